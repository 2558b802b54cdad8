"""Bearer tokens, kept as their SHA-256."""

from __future__ import annotations

import sqlite3

from launcher.errors import Unauthorized
from launcher.models import Identity


def create(db: sqlite3.Connection, token_sha256: str, identity: Identity, now_ms: float) -> None:
    db.execute(
        "INSERT OR IGNORE INTO credentials VALUES (?, ?, ?, ?, ?)",
        (token_sha256, identity.user_id, identity.project_id, identity.is_admin, now_ms),
    )


def resolve(db: sqlite3.Connection, token_sha256: str) -> Identity:
    row = db.execute("SELECT * FROM credentials WHERE token_sha256 = ?", (token_sha256,)).fetchone()
    if row is None:
        raise Unauthorized("the bearer token is not known here", hint="see admin.json in the state directory")
    return Identity(user_id=row["user_id"], project_id=row["project_id"], is_admin=bool(row["is_admin"]))
