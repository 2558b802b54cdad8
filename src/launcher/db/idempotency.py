"""Which instances, which volume or image an Idempotency-Key stands for."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable

from launcher.errors import Conflict
from launcher.models import InstanceId, Model


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


def once(
    db: sqlite3.Connection, project_id: str, key: str | None, request: Model, now_ms: float, make: Callable[[], str]
) -> str:
    """The id of what an earlier request with this key made, else of what `make` makes now."""
    if key is None:
        return make()
    digest = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
    known = find(db, project_id, key, digest)
    if known is not None:
        return known[0]
    made = make()
    keep(db, project_id, key, digest, [made], now_ms)
    return made
