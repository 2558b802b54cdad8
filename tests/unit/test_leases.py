"""Addresses: the lowest free one, never a reserved one, the same one again for the same NIC."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

import pytest

from launcher.db import leases, schemas
from launcher.errors import NoMoreFixedIps
from launcher.networks import Network
from tests.orders import NETWORK, instance_id


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    connection.executescript(schemas.NETWORK[0])
    yield connection
    connection.close()


def allocate(db: sqlite3.Connection, network: Network, number: int) -> str:
    leases.keep_network(db, network)
    mac = f"02:16:3e:00:{number >> 8:02x}:{number & 255:02x}"
    return str(leases.allocate(db, network, instance_id(number), mac, f"i-{number}", 0.0).address)


def test_the_lowest_free_address_is_taken_and_a_released_one_comes_back(db: sqlite3.Connection) -> None:
    assert [allocate(db, NETWORK, number) for number in (1, 2, 3)] == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    assert leases.release(db, instance_id(2)) == ["02:16:3e:00:00:02"]
    assert leases.release(db, instance_id(2)) == []
    assert allocate(db, NETWORK, 4) == "10.0.0.3"
    assert allocate(db, NETWORK, 5) == "10.0.0.5"


def test_an_address_of_two_networks_is_told_apart_by_the_bridge(db: sqlite3.Connection) -> None:
    twin = NETWORK.model_copy(update={"name": "twin", "bridge": "br101"})
    assert (allocate(db, NETWORK, 1), allocate(db, twin, 2)) == ("10.0.0.2", "10.0.0.2")
    found = [leases.find_by_address(db, bridge, IPv4Address("10.0.0.2")) for bridge in ("br100", "br101", "lo")]
    assert [lease and lease.instance_id for lease in found] == [instance_id(1), instance_id(2), None]
    assert [lease.network for lease in leases.list_by_instance(db, instance_id(2))] == [twin]


def test_repeating_an_allocation_returns_the_same_lease(db: sqlite3.Connection) -> None:
    assert allocate(db, NETWORK, 1) == allocate(db, NETWORK, 1) == "10.0.0.2"


@pytest.mark.parametrize("gateway", ["10.0.0.1", "10.0.0.4", "10.0.0.6"])
def test_network_gateway_and_broadcast_are_never_given_out(db: sqlite3.Connection, gateway: str) -> None:
    small = NETWORK.model_copy(update={"cidr": IPv4Network("10.0.0.0/29"), "gateway": IPv4Network(gateway)[0]})
    taken = [allocate(db, small, number) for number in range(1, 6)]
    assert sorted(taken) == [f"10.0.0.{n}" for n in range(1, 7) if f"10.0.0.{n}" != gateway]
    with pytest.raises(NoMoreFixedIps, match="5 usable"):
        allocate(db, small, 6)


def test_a_huge_network_costs_nothing(db: sqlite3.Connection) -> None:
    huge = NETWORK.model_copy(update={"cidr": IPv4Network("10.0.0.0/8")})
    assert [allocate(db, huge, number) for number in range(1, 300)][-1] == "10.0.1.44"
    assert db.execute("SELECT count(*) FROM fixed_ips").fetchone()[0] == 299
