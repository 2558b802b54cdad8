"""Which instances, or which volume, an Idempotency-Key stands for."""

from __future__ import annotations

import json
import sqlite3

from launcher.errors import Conflict
from launcher.models import InstanceId


def find(db: sqlite3.Connection, project_id: str, key: str, request_sha256: str) -> list[InstanceId] | None:
    """The ids of what was made by an earlier request with this key; Conflict when that request was another one."""
    row = db.execute(
        "SELECT request_sha256, instance_ids FROM idempotency_keys WHERE project_id = ? AND key = ?", (project_id, key)
    ).fetchone()
    if row is None:
        return None
    if row["request_sha256"] != request_sha256:
        raise Conflict(
            f"the idempotency key {key!r} was used for another request", hint="use a new key", field="Idempotency-Key"
        )
    found: list[InstanceId] = json.loads(row["instance_ids"])
    return found


def keep(
    db: sqlite3.Connection, project_id: str, key: str, request_sha256: str, ids: list[InstanceId], now_ms: float
) -> None:
    db.execute(
        "INSERT INTO idempotency_keys VALUES (?, ?, ?, ?, ?)",
        (project_id, key, request_sha256, json.dumps(ids), now_ms),
    )
