"""The fixed IPs taken from networks. Addresses are integers here; a row exists only while one is taken."""

from __future__ import annotations

import sqlite3
from ipaddress import IPv4Address
from typing import Any

from launcher.db.networks import BODY, network_of
from launcher.errors import BadRequest, Conflict, NoMoreFixedIps
from launcher.models import InstanceId, MacAddress
from launcher.networks import FixedIp, Network

_JOINED = (
    f"SELECT fixed_ips.*, {BODY} AS network_body, floating_ips.address AS floating FROM fixed_ips"  # noqa: S608
    " JOIN networks ON networks.id = fixed_ips.network"
    " LEFT JOIN floating_ips ON floating_ips.network = fixed_ips.network AND fixed = fixed_ips.address"
)


def find(db: sqlite3.Connection, instance_id: InstanceId, mac: MacAddress) -> FixedIp | None:
    return next(iter(_many(db, "instance_id = ? AND mac = ?", instance_id, mac)), None)


def allocate(
    db: sqlite3.Connection,
    network: Network,
    *,
    instance_id: InstanceId,
    nic: int,
    mac: MacAddress,
    hostname: str,
    address: IPv4Address | None,
    now_ms: float,
) -> FixedIp:
    """A new lease: of this address, else of the lowest free one."""
    if address is not None:
        check_free(db, network, address)
    taken = int(address) if address else _lowest_free(db, network)
    row = db.execute(
        "INSERT INTO fixed_ips VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING *, NULL AS floating",
        (network.id, taken, instance_id, nic, mac, hostname, now_ms),
    ).fetchone()
    return _lease(row, network)


def check_free(db: sqlite3.Connection, network: Network, address: IPv4Address) -> None:
    """Raises BadRequest for an address that nobody may have, Conflict for one that somebody has."""
    if not network.may_lease(address):
        raise BadRequest(
            f"{address} is not to be had: network {network.name} gives out {network.first} to {network.last}, "
            f"its gateway {network.gateway} excepted",
            field="networks",
        )
    if _is_taken(db, network, int(address)):
        raise Conflict(f"{address} of network {network.name} is in use", hint="leave it out", field="networks")


def release(db: sqlite3.Connection, instance_id: InstanceId) -> list[FixedIp]:
    """What was given back."""
    given_back = list_of_instance(db, instance_id)
    db.execute("DELETE FROM fixed_ips WHERE instance_id = ?", (instance_id,))
    return given_back


def list_leases(db: sqlite3.Connection) -> list[FixedIp]:
    return _many(db, "TRUE ORDER BY fixed_ips.network, fixed_ips.address")


def list_of_instance(db: sqlite3.Connection, instance_id: InstanceId) -> list[FixedIp]:
    """In the order of its NICs."""
    return _many(db, "instance_id = ? ORDER BY nic", instance_id)


def find_by_address(db: sqlite3.Connection, address: IPv4Address, bridge: str | None) -> FixedIp | None:
    """The lease of this address on this bridge; without a bridge, the only one of this address."""
    found = _many(db, "fixed_ips.address = ?1 AND (?2 IS NULL OR bridge = ?2)", int(address), bridge)
    return found[0] if len(found) == 1 else None


def _many(db: sqlite3.Connection, condition: str, *wanted: Any) -> list[FixedIp]:
    rows = db.execute(f"{_JOINED} WHERE {condition}", wanted).fetchall()
    networks = {body: network_of(body) for body in {row["network_body"] for row in rows}}
    return [_lease(row, networks[row["network_body"]]) for row in rows]


def _is_taken(db: sqlite3.Connection, network: Network, address: int) -> bool:
    row = db.execute("SELECT 1 FROM fixed_ips WHERE network = ? AND address = ?", (network.id, address)).fetchone()
    return row is not None


def _lowest_free(db: sqlite3.Connection, network: Network) -> int:
    free = _end_of_run(db, network, int(network.first))
    if free == int(network.gateway):
        free = _end_of_run(db, network, free + 1)
    if free > int(network.last):
        usable = int(network.last) - int(network.first) + 1 - (network.gateway in network.cidr)
        raise NoMoreFixedIps(
            f"no free address in network {network.name} ({network.cidr}, {usable} usable)",
            hint="delete instances, or make a larger network",
        )
    return free


FREE_AFTER = (
    "SELECT address + 1 FROM fixed_ips AS taken WHERE network = ?1 AND address >= ?2 AND NOT EXISTS"
    " (SELECT 1 FROM fixed_ips WHERE network = ?1 AND address = taken.address + 1) ORDER BY address LIMIT 1"
)
"""The end of a run of taken addresses: it walks the primary key, so its cost is the run's length."""


def _end_of_run(db: sqlite3.Connection, network: Network, start: int) -> int:
    """`start`, if it is free; else the first free address after the run of taken ones that begins there."""
    if not _is_taken(db, network, start):
        return start
    found: int = db.execute(FREE_AFTER, (network.id, start)).fetchone()[0]
    return found


def _lease(row: sqlite3.Row, network: Network) -> FixedIp:
    return FixedIp(
        instance_id=row["instance_id"],
        nic=row["nic"],
        address=IPv4Address(row["address"]),
        address6=network.address6_of(row["mac"]),
        floating=None if row["floating"] is None else IPv4Address(row["floating"]),
        mac=row["mac"],
        hostname=row["hostname"],
        network=network,
    )
