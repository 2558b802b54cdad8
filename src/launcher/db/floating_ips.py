"""The floating IPs that projects hold, and the fixed ones that they lead to. Addresses are integers here."""

from __future__ import annotations

import sqlite3
from ipaddress import IPv4Address
from typing import Any, NamedTuple

from launcher.errors import BadRequest, Conflict, NoMoreFloatingIps, NotFound, QuotaExceeded
from launcher.floating import FloatingIp, FloatingPool
from launcher.models import InstanceId
from launcher.networks import FixedIp

_JOINED = (
    "SELECT floating_ips.*, instance_id FROM floating_ips"
    " LEFT JOIN fixed_ips ON fixed_ips.network = floating_ips.network AND fixed_ips.address = fixed"
)


def allocate(
    db: sqlite3.Connection,
    pool: FloatingPool,
    *,
    project_id: str,
    address: IPv4Address | None,
    quota: int,
    now_ms: float,
) -> FloatingIp:
    """This address, else the pool's lowest free one."""
    held = db.execute("SELECT count(*) FROM floating_ips WHERE project_id = ?", (project_id,)).fetchone()[0]
    if held >= quota:
        raise QuotaExceeded(f"the project holds {held} of {quota} floating IPs", hint="delete those that lead nowhere")
    taken = _check_free(db, pool, address) if address else _lowest_free(db, pool)
    db.execute(
        "INSERT INTO floating_ips (address, pool, project_id, allocated_ms) VALUES (?, ?, ?, ?)",
        (taken, pool.name, project_id, now_ms),
    )
    return FloatingIp(address=IPv4Address(taken), pool=pool.name, project_id=project_id, allocated_ms=int(now_ms))


def get(db: sqlite3.Connection, project_id: str | None, address: IPv4Address) -> FloatingIp:
    """`project_id` None sees all."""
    found = _many(db, "floating_ips.address = ?1 AND (?2 IS NULL OR project_id = ?2)", int(address), project_id)
    if not found:
        raise NotFound(f"there is no floating IP {address}", hint="see `launcher floating-ip list`", field="address")
    return found[0]


def list_visible(db: sqlite3.Connection, project_id: str | None) -> list[FloatingIp]:
    """`project_id` None sees all."""
    return _many(db, "?1 IS NULL OR project_id = ?1", project_id)


class Led(NamedTuple):
    """An association as the host needs it: an address alone does not say which network's it is."""

    address: IPv4Address
    network: int
    fixed: IPv4Address
    instance_id: InstanceId


def list_led(db: sqlite3.Connection) -> list[Led]:
    rows = db.execute(f"{_JOINED} WHERE fixed IS NOT NULL ORDER BY floating_ips.address").fetchall()
    return [
        Led(IPv4Address(row["address"]), row["network"], IPv4Address(row["fixed"]), row["instance_id"]) for row in rows
    ]


def associate(db: sqlite3.Connection, floating: FloatingIp, lease: FixedIp, *, reassociate: bool) -> FloatingIp:
    """Let it lead to this lease; repeating it is success."""
    elsewhere = (floating.instance_id, floating.fixed) not in ((None, None), (lease.instance_id, lease.address))
    if elsewhere and not reassociate:
        raise Conflict(
            f"{floating.address} leads to {floating.fixed} of instance {floating.instance_id}",
            hint="disassociate it first, or ask for it: `--reassociate`",
            field="address",
        )
    there = _many(db, "floating_ips.network = ? AND fixed = ?", lease.network.id, int(lease.address))
    if there and there[0].address != floating.address:
        raise Conflict(
            f"{there[0].address} leads to {lease.address} already, and a fixed IP has one floating IP",
            hint=f"disassociate {there[0].address} first",
            field="instance",
        )
    db.execute(
        "UPDATE floating_ips SET network = ?, fixed = ? WHERE address = ?",
        (lease.network.id, int(lease.address), int(floating.address)),
    )
    return floating.model_copy(update={"instance_id": lease.instance_id, "fixed": lease.address})


def put_back(db: sqlite3.Connection, made: Led, before: Led | None) -> None:
    """Undo an association, unless it has changed since: it leads where it did before, if that is there and free."""
    where = (before.network, int(before.fixed), before.instance_id) if before else (None, None, None)
    db.execute(
        "UPDATE floating_ips SET (network, fixed) = ("
        " SELECT network, address FROM fixed_ips AS old WHERE network = ?1 AND address = ?2 AND instance_id = ?3"
        " AND NOT EXISTS (SELECT 1 FROM floating_ips WHERE network = ?1 AND fixed = ?2 AND floating_ips.address != ?4))"
        " WHERE address = ?4 AND network = ?5 AND fixed = ?6",
        (*where, int(made.address), made.network, int(made.fixed)),
    )


def disassociate(db: sqlite3.Connection, floating: FloatingIp) -> None:
    db.execute("UPDATE floating_ips SET network = NULL, fixed = NULL WHERE address = ?", (int(floating.address),))


def release(db: sqlite3.Connection, floating: FloatingIp) -> None:
    if floating.fixed is not None:
        raise Conflict(
            f"{floating.address} leads to {floating.fixed} of instance {floating.instance_id}",
            hint=f"`launcher floating-ip disassociate {floating.address}` first",
            field="address",
        )
    db.execute("DELETE FROM floating_ips WHERE address = ?", (int(floating.address),))


def _many(db: sqlite3.Connection, condition: str, *wanted: Any) -> list[FloatingIp]:
    rows = db.execute(f"{_JOINED} WHERE {condition} ORDER BY floating_ips.address", wanted).fetchall()
    return [
        FloatingIp(
            address=IPv4Address(row["address"]),
            pool=row["pool"],
            project_id=row["project_id"],
            allocated_ms=int(row["allocated_ms"]),
            instance_id=row["instance_id"],
            fixed=None if row["fixed"] is None else IPv4Address(row["fixed"]),
        )
        for row in rows
    ]


def _check_free(db: sqlite3.Connection, pool: FloatingPool, address: IPv4Address) -> int:
    if not pool.first <= address <= pool.last:
        raise BadRequest(
            f"{address} is not to be had: pool {pool.name} gives out {pool.first} to {pool.last}", field="address"
        )
    if db.execute("SELECT 1 FROM floating_ips WHERE address = ?", (int(address),)).fetchone():
        raise Conflict(f"{address} is held already", hint="leave the address out", field="address")
    return int(address)


def _lowest_free(db: sqlite3.Connection, pool: FloatingPool) -> int:
    free = int(pool.first)
    if db.execute("SELECT 1 FROM floating_ips WHERE address = ?", (free,)).fetchone():
        free = db.execute(FREE_AFTER, (free,)).fetchone()[0]
    if free > int(pool.last):
        raise NoMoreFloatingIps(
            f"no free address in pool {pool.name} ({pool.first} to {pool.last})", hint="name another pool: `--pool`"
        )
    return free


FREE_AFTER = (
    "SELECT address + 1 FROM floating_ips AS held WHERE address >= ?1 AND NOT EXISTS"
    " (SELECT 1 FROM floating_ips WHERE address = held.address + 1) ORDER BY address LIMIT 1"
)
"""The end of a run of held addresses; it walks the primary key."""
