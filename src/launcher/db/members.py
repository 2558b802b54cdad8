"""Who is in which security group, and at which addresses the others of a group know it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from launcher.db import versions
from launcher.models import Instance, TaskState, VmState

NOWHERE = "[]"
_AWAY = {VmState.STOPPED, VmState.ERROR, VmState.DELETED}
_LEAVING = {TaskState.CLEANING, TaskState.DELETING}


def put(db: sqlite3.Connection, number: int, group_ids: Sequence[int], *, addresses: str = NOWHERE) -> None:
    """The groups that an instance is in. Nobody has to know of a new one before it has an address."""
    db.executemany(
        "INSERT INTO group_members VALUES (?, ?, ?, ?)",
        [(group_id, number, position, addresses) for position, group_id in enumerate(group_ids)],
    )


def replace(db: sqlite3.Connection, number: int, group_ids: Sequence[int]) -> None:
    """These and no others, from now on; the hosts of whoever knows it must hear of what it left and joined."""
    before, addresses = list_groups(db, number), _addresses(db, number)
    if before == list(group_ids):
        return
    db.execute("DELETE FROM group_members WHERE number = ?", (number,))
    put(db, number, group_ids, addresses=addresses)
    if addresses != NOWHERE:
        versions.touch_naming(db, number, sorted(set(before) ^ set(group_ids)))
    versions.regroup(db, number)


def settle(db: sqlite3.Connection, instance: Instance) -> None:
    """After every move of an instance: is it a member for the others, and where? To be called in its transaction.

    It joins when it becomes active, with its addresses, and leaves when its end is decided, or when it stops.
    """
    here = instance.vm_state not in _AWAY and instance.task_state not in _LEAVING
    addresses = json.dumps([str(address) for address in instance.addresses] if here else [])
    if addresses != _addresses(db, instance.number):
        db.execute("UPDATE group_members SET addresses = ? WHERE number = ?", (addresses, instance.number))
        versions.touch_naming(db, instance.number, list_groups(db, instance.number))
    if instance.vm_state is VmState.DELETED:
        db.execute("DELETE FROM group_members WHERE number = ?", (instance.number,))


def list_groups(db: sqlite3.Connection, number: int) -> list[int]:
    """In the order in which they were named."""
    rows = db.execute("SELECT group_id FROM group_members WHERE number = ? ORDER BY position", (number,)).fetchall()
    return [row["group_id"] for row in rows]


def list_names(db: sqlite3.Connection, group_id: int, limit: int) -> list[str]:
    """Of the instances that are in the group."""
    rows = db.execute(
        "SELECT name FROM group_members JOIN instances USING (number) WHERE group_id = ? ORDER BY number LIMIT ?",
        (group_id, limit),
    ).fetchall()
    return [row["name"] for row in rows]


def list_addresses(db: sqlite3.Connection, group_id: int) -> str:
    """Where the members of a group are reached, as a list in JSON."""
    rows = db.execute(
        "SELECT addresses FROM group_members WHERE group_id = ? AND addresses != ? ORDER BY number", (group_id, NOWHERE)
    )
    return f"[{','.join(row['addresses'][1:-1] for row in rows)}]"


def _addresses(db: sqlite3.Connection, number: int) -> str:
    row = db.execute("SELECT addresses FROM group_members WHERE number = ? LIMIT 1", (number,)).fetchone()
    return row["addresses"] if row else NOWHERE
