"""Key pairs of a project; public halves only."""

from __future__ import annotations

import sqlite3

from launcher.errors import Conflict, NotFound
from launcher.models import KeyPair


def create(db: sqlite3.Connection, project_id: str, pair: KeyPair) -> None:
    try:
        db.execute(
            "INSERT INTO key_pairs VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *(project_id, pair.name, pair.type, pair.public_key, pair.fingerprint),
                *(pair.ec2_fingerprint, pair.created_ms),
            ),
        )
    except sqlite3.IntegrityError:
        raise Conflict(
            f"there is a key pair {pair.name!r} already", hint="delete it or take another name", field="name"
        ) from None


def get(db: sqlite3.Connection, project_id: str, name: str) -> KeyPair:
    row = db.execute("SELECT * FROM key_pairs WHERE project_id = ? AND name = ?", (project_id, name)).fetchone()
    if row is None:
        raise NotFound(f"there is no key pair {name!r}", hint="see `launcher keypair list`", field="key_name")
    return _pair(row)


def list_all(db: sqlite3.Connection, project_id: str) -> list[KeyPair]:
    rows = db.execute("SELECT * FROM key_pairs WHERE project_id = ? ORDER BY name", (project_id,)).fetchall()
    return [_pair(row) for row in rows]


def delete(db: sqlite3.Connection, project_id: str, name: str) -> None:
    get(db, project_id, name)
    db.execute("DELETE FROM key_pairs WHERE project_id = ? AND name = ?", (project_id, name))


def _pair(row: sqlite3.Row) -> KeyPair:
    return KeyPair(
        name=row["name"],
        type=row["type"],
        public_key=row["public_key"],
        fingerprint=row["fingerprint"],
        ec2_fingerprint=row["ec2_fingerprint"],
        created_ms=int(row["created_ms"]),
    )
