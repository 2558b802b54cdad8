"""Volumes and snapshots as the audit sees them: what each may and must have on its host."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from typing import Any

from launcher.models import InstanceId, Model
from launcher.volumes import VolumeRef, VolumeStatus


class VolumeOwner(Model):
    """One row."""

    ref: VolumeRef
    generation: int
    status: VolumeStatus
    host: str | None
    instance_id: InstanceId | None


def list_live(db: sqlite3.Connection) -> list[VolumeOwner]:
    return _many(db, "status != 'deleted'", {})


def list_named(db: sqlite3.Connection, numbers: Collection[int]) -> list[VolumeOwner]:
    """The live ones, and of the deleted ones those that are named."""
    named = "status != 'deleted' OR number IN (SELECT value FROM json_each(:numbers))"
    return _many(db, named, {"numbers": json.dumps(sorted(numbers))})


def _many(db: sqlite3.Connection, condition: str, wanted: dict[str, Any]) -> list[VolumeOwner]:
    rows = db.execute(f"SELECT * FROM volumes WHERE {condition} ORDER BY number", wanted)  # noqa: S608 - our own text
    return [
        VolumeOwner(
            ref=VolumeRef(volume_id=row["id"], number=row["number"], snapshot=row["snapshot_of"] is not None),
            generation=row["generation"],
            status=row["status"],
            host=row["host"],
            instance_id=row["instance_id"],
        )
        for row in rows
    ]
