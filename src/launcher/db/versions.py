"""Changes of what any host filters by, counted: which group's policy changed last, and at which count.

A group's policy is its rules and the addresses of the members that these name.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence


def get(db: sqlite3.Connection) -> int:
    found: int = db.execute("SELECT version FROM policy").fetchone()[0]
    return found


def touch(db: sqlite3.Connection, group_id: int) -> None:
    """The group's rules have changed; that concerns somebody when an instance is in it."""
    if db.execute("SELECT 1 FROM group_members WHERE group_id = ? LIMIT 1", (group_id,)).fetchone():
        db.execute("UPDATE security_groups SET version = ? WHERE id = ?", (_next(db), group_id))


def touch_naming(db: sqlite3.Connection, number: int, group_ids: Sequence[int]) -> None:
    """An instance joined or left these groups: that concerns those whose rules name one and that others are in."""
    rows = db.execute(
        "SELECT DISTINCT rules.group_id AS id FROM security_group_rules AS rules"
        " WHERE source_id IN (SELECT value FROM json_each(:groups)) AND EXISTS ("
        "SELECT 1 FROM group_members WHERE group_members.group_id = rules.group_id AND number != :number)",
        {"groups": json.dumps(list(group_ids)), "number": number},
    ).fetchall()
    if rows:
        version = _next(db)
        db.executemany("UPDATE security_groups SET version = ? WHERE id = ?", [(version, row["id"]) for row in rows])


def regroup(db: sqlite3.Connection, number: int) -> None:
    """The instance's own set of groups has changed."""
    db.execute("UPDATE instances SET regrouped = ? WHERE number = ?", (_next(db), number))


def overtake(db: sqlite3.Connection, known: int) -> None:
    """A host knows a later version than this database, which was put back from a copy then: everything has changed."""
    if known > get(db):
        db.execute("UPDATE policy SET version = ?", (known,))
        version = _next(db)
        db.execute("UPDATE security_groups SET version = ?", (version,))
        db.execute("UPDATE instances SET regrouped = ? WHERE vm_state != 'deleted'", (version,))


def _next(db: sqlite3.Connection) -> int:
    found: int = db.execute("UPDATE policy SET version = version + 1 RETURNING version").fetchone()[0]
    return found
