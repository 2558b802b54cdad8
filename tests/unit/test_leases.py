"""Addresses: the lowest free one or the one asked for, never a reserved one, the same one again for the same NIC."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

import pytest

from launcher.db import leases, networks, schemas
from launcher.errors import BadRequest, Conflict, NoMoreFixedIps
from launcher.networks import FixedIp, Network
from tests.orders import NETWORK, instance_id

BIG = NETWORK.model_copy(update={"cidr": IPv4Network("10.0.0.0/8")})


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    for script in schemas.NETWORK:
        connection.executescript(script)
    yield connection
    connection.close()


def lease(
    db: sqlite3.Connection, network: Network, number: int, address: str | None = None, *, nic: int = 0
) -> FixedIp:
    """As the network role does it."""
    kept, mac = networks.keep(db, network), f"02:16:3e:{nic:02x}:{number >> 8:02x}:{number & 255:02x}"
    return leases.find(db, instance_id(number), mac) or leases.allocate(
        db,
        kept,
        instance_id=instance_id(number),
        nic=nic,
        mac=mac,
        hostname=f"i-{number}",
        address=IPv4Address(address) if address else None,
        now_ms=0.0,
    )


def allocate(db: sqlite3.Connection, network: Network, number: int, address: str | None = None) -> str:
    return str(lease(db, network, number, address).address)


def test_the_lowest_free_address_is_taken_and_a_released_one_comes_back(db: sqlite3.Connection) -> None:
    assert [allocate(db, NETWORK, number) for number in (1, 2, 3)] == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    assert [each.mac for each in leases.release(db, instance_id(2))] == ["02:16:3e:00:00:02"]
    assert leases.release(db, instance_id(2)) == []
    assert allocate(db, NETWORK, 4) == "10.0.0.3"
    assert allocate(db, NETWORK, 5) == "10.0.0.5"


def test_repeating_an_allocation_returns_the_same_lease(db: sqlite3.Connection) -> None:
    assert allocate(db, NETWORK, 1) == allocate(db, NETWORK, 1) == "10.0.0.2"


def test_an_address_that_was_asked_for(db: sqlite3.Connection) -> None:
    assert allocate(db, NETWORK, 1, "10.0.0.3") == "10.0.0.3"
    assert [allocate(db, NETWORK, number) for number in (2, 3)] == ["10.0.0.2", "10.0.0.4"]
    with pytest.raises(Conflict, match=r"10\.0\.0\.3 of network default is in use"):
        allocate(db, NETWORK, 4, "10.0.0.3")


@pytest.mark.parametrize("reserved", ["10.0.0.0", "10.0.0.1", "10.0.0.255", "10.0.1.7", "9.255.255.255"])
def test_a_reserved_or_foreign_address_is_not_to_be_had(db: sqlite3.Connection, reserved: str) -> None:
    with pytest.raises(BadRequest, match=r"gives out 10\.0\.0\.1 to 10\.0\.0\.254, its gateway 10\.0\.0\.1 excepted"):
        allocate(db, NETWORK, 1, reserved)


@pytest.mark.parametrize("gateway", ["10.0.0.1", "10.0.0.4", "10.0.0.6"])
def test_network_gateway_and_broadcast_are_never_given_out(db: sqlite3.Connection, gateway: str) -> None:
    small = NETWORK.model_copy(update={"cidr": IPv4Network("10.0.0.0/29"), "gateway": IPv4Network(gateway)[0]})
    taken = [allocate(db, small, number) for number in range(1, 6)]
    assert sorted(taken) == [f"10.0.0.{n}" for n in range(1, 7) if f"10.0.0.{n}" != gateway]
    with pytest.raises(NoMoreFixedIps, match="5 usable"):
        allocate(db, small, 6)


def test_two_nics_of_an_instance_and_the_end_of_both(db: sqlite3.Connection) -> None:
    other = NETWORK.model_copy(
        update={"name": "b", "bridge": "br101", "cidr": IPv4Network("10.1.0.0/24"), "gateway": IPv4Address("10.1.0.1")}
    )
    lease(db, other, 1, nic=1)
    lease(db, NETWORK, 1)
    found = leases.list_of_instance(db, instance_id(1))
    assert [(each.nic, str(each.address)) for each in found] == [(0, "10.0.0.2"), (1, "10.1.0.2")]
    assert len(leases.release(db, instance_id(1))) == 2
    assert leases.list_leases(db) == []


def test_one_address_in_two_networks_is_found_by_the_bridge(db: sqlite3.Connection) -> None:
    twin = NETWORK.model_copy(update={"name": "twin", "bridge": "br101"})
    lease(db, NETWORK, 1)
    lease(db, twin, 2)
    address = IPv4Address("10.0.0.2")
    assert leases.find_by_address(db, address, None) is None
    for bridge, number in (("br100", 1), ("br101", 2)):
        found = leases.find_by_address(db, address, bridge)
        assert found is not None
        assert found.instance_id == instance_id(number)


def test_a_huge_network_costs_nothing(db: sqlite3.Connection) -> None:
    """With 5,000 leases of 16 million addresses: rows for those only, and no step of the search reads a whole table."""
    kept = networks.keep(db, BIG)
    rows = [
        (kept.id, int(BIG.first) + n, instance_id(n), f"02:16:3f:00:{n >> 8:02x}:{n & 255:02x}") for n in range(1, 5001)
    ]
    db.executemany("INSERT INTO fixed_ips VALUES (?, ?, ?, 0, ?, 'h', 0)", rows)
    assert allocate(db, BIG, 9001) == str(BIG.first + 5001)
    assert db.execute("SELECT count(*) FROM fixed_ips").fetchone()[0] == 5001

    plan = [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {leases.FREE_AFTER}", (kept.id, int(BIG.first)))]
    assert sum(step.startswith("SEARCH") for step in plan) == 2
    assert not [step for step in plan if step.startswith("SCAN") or "TEMP" in step]

    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1000
        return 0

    db.set_progress_handler(count, 1000)
    allocate(db, BIG, 9002)
    assert steps < 200_000, "about 20 steps of SQLite's machine for each address of the run before the free one"


def test_one_that_is_in_use_is_not_deleted_and_one_that_is_being_deleted_gives_nothing(db: sqlite3.Connection) -> None:
    kept = networks.keep(db, NETWORK)
    lease(db, NETWORK, 1)
    with pytest.raises(Conflict, match="1 addresses in use"):
        networks.begin_deleting(db, kept)
    leases.release(db, instance_id(1))
    networks.begin_deleting(db, kept)
    assert networks.list_visible(db, None) == []
    assert networks.is_deleting(db, kept)
    networks.delete(db, kept)
    assert networks.list_all(db) == []


def test_what_an_earlier_launcher_leased_is_kept() -> None:
    db = sqlite3.connect(":memory:")
    db.row_factory = sqlite3.Row
    db.executescript(schemas.NETWORK[0])
    old = NETWORK.model_dump_json(exclude={"id", "project_id", "segment", "cidr6"})
    db.execute("INSERT INTO networks VALUES ('default', ?)", (old,))
    address = int(IPv4Address("10.0.0.9"))
    db.execute("INSERT INTO fixed_ips VALUES ('default', ?, ?, '02:16:3e:00:00:01', 'h', 0)", (address, instance_id(1)))
    for step in schemas.NETWORK[1:]:
        db.executescript(step)
    (found,) = leases.list_leases(db)
    assert (str(found.address), found.nic, found.network.name, found.network.id) == ("10.0.0.9", 0, "default", 1)
    assert networks.keep(db, NETWORK).id == 1
