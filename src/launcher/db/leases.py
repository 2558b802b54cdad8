"""Networks and the fixed IPs taken from them. Addresses are integers here, so "the lowest free" is one query."""

from __future__ import annotations

import sqlite3
from ipaddress import IPv4Address

from launcher.errors import NoMoreFixedIps
from launcher.models import InstanceId, MacAddress
from launcher.networks import FixedIp, Network


def keep_network(db: sqlite3.Connection, network: Network) -> None:
    db.execute(
        "INSERT INTO networks VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body",
        (network.name, network.model_dump_json()),
    )


def list_networks(db: sqlite3.Connection) -> list[Network]:
    rows = db.execute("SELECT body FROM networks ORDER BY name").fetchall()
    return [Network.model_validate_json(row["body"]) for row in rows]


def allocate(
    db: sqlite3.Connection, network: Network, instance_id: InstanceId, mac: str, hostname: str, now_ms: float
) -> FixedIp:
    """The lease of this NIC: the one it has, else the lowest free address."""
    row = db.execute("SELECT * FROM fixed_ips WHERE instance_id = ? AND mac = ?", (instance_id, mac)).fetchone()
    if row is None:
        row = db.execute(
            "INSERT INTO fixed_ips VALUES (?, ?, ?, ?, ?, ?) RETURNING *",
            (network.name, _lowest_free(db, network), instance_id, mac, hostname, now_ms),
        ).fetchone()
    return _lease(row, network)


def release(db: sqlite3.Connection, instance_id: InstanceId) -> list[MacAddress]:
    """Whose addresses were given back."""
    rows = db.execute("DELETE FROM fixed_ips WHERE instance_id = ? RETURNING mac", (instance_id,)).fetchall()
    return [row["mac"] for row in rows]


def list_leases(db: sqlite3.Connection, network: Network) -> list[FixedIp]:
    rows = db.execute("SELECT * FROM fixed_ips WHERE network = ? ORDER BY address", (network.name,)).fetchall()
    return [_lease(row, network) for row in rows]


def find_by_address(db: sqlite3.Connection, bridge: str, address: IPv4Address) -> FixedIp | None:
    found = _joined(db, "address = ? AND body ->> '$.bridge' = ?", int(address), bridge)
    return found[0] if found else None


def find_by_instance(db: sqlite3.Connection, instance_id: InstanceId) -> FixedIp | None:
    found = list_by_instance(db, instance_id)
    return found[0] if found else None


def list_by_instance(db: sqlite3.Connection, instance_id: InstanceId) -> list[FixedIp]:
    return _joined(db, "instance_id = ?", instance_id)


def _joined(db: sqlite3.Connection, condition: str, *values: int | str) -> list[FixedIp]:
    rows = db.execute(
        f"SELECT fixed_ips.*, body FROM fixed_ips JOIN networks ON network = name WHERE {condition}",  # noqa: S608
        values,
    ).fetchall()
    return [_lease(row, Network.model_validate_json(row["body"])) for row in rows]


def _lowest_free(db: sqlite3.Connection, network: Network) -> int:
    """The network's own, the gateway's and the broadcast address are never given out."""
    first, last = int(network.cidr.network_address) + 1, int(network.cidr.broadcast_address) - 1
    gateway = int(network.gateway)
    candidates = db.execute(
        "SELECT address + 1 AS free FROM fixed_ips WHERE network = :name UNION SELECT :first UNION SELECT :gateway + 1"
        " EXCEPT SELECT address FROM fixed_ips WHERE network = :name EXCEPT SELECT :gateway ORDER BY free",
        {"name": network.name, "first": first, "gateway": gateway},
    )
    free: int | None = next((row["free"] for row in candidates if first <= row["free"] <= last), None)
    if free is None:
        raise NoMoreFixedIps(
            f"no free address in network {network.name} ({network.cidr}, {last - first} usable)",
            hint="delete instances or enlarge [network] cidr",
        )
    return free


def _lease(row: sqlite3.Row, network: Network) -> FixedIp:
    return FixedIp(
        instance_id=row["instance_id"],
        address=IPv4Address(row["address"]),
        mac=row["mac"],
        hostname=row["hostname"],
        network=network,
    )
