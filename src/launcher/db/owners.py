"""Instances as the audit sees them: what each may and must have on its host."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection

from pydantic import TypeAdapter

from launcher.models import InstanceId, MacAddress, Model, TaskState, VmState


class Owner(Model):
    """One row. `bases` are the checksums of the image files that its disk and its boot stand on."""

    id: InstanceId
    number: int
    generation: int
    vm_state: VmState
    task_state: TaskState | None
    host: str | None
    macs: tuple[MacAddress, ...]
    addresses: tuple[str, ...]
    bases: tuple[str, ...]


_OWNERS = TypeAdapter(list[Owner])
_BODY = """json_object(
    'id', id, 'number', number, 'generation', generation, 'vm_state', vm_state, 'task_state', task_state,
    'host', host,
    'macs', (SELECT json_group_array(mac) FROM (SELECT mac FROM nics WHERE nics.number = instances.number
        ORDER BY position)),
    'addresses', (SELECT json_group_array(address) FROM (SELECT address FROM nics
        WHERE nics.number = instances.number AND address IS NOT NULL ORDER BY position)),
    'bases', (SELECT json_group_array(value) FROM json_each(
        json_extract(spec, '$.image.sha256', '$.kernel.sha256', '$.ramdisk.sha256')) WHERE value IS NOT NULL)
    )"""


def list_live(db: sqlite3.Connection) -> list[Owner]:
    return _many(db, "vm_state != 'deleted'", {})


def list_named(db: sqlite3.Connection, ids: Collection[InstanceId], numbers: Collection[int]) -> list[Owner]:
    """The live ones, and of the deleted ones those that are named."""
    named = (
        "vm_state != 'deleted' OR id IN (SELECT value FROM json_each(:ids))"
        " OR number IN (SELECT value FROM json_each(:numbers))"
    )
    return _many(db, named, {"ids": json.dumps(sorted(ids)), "numbers": json.dumps(sorted(numbers))})


def is_empty(db: sqlite3.Connection) -> bool:
    """Whether no instance was ever accepted: its row would be there."""
    return db.execute("SELECT 1 FROM instances LIMIT 1").fetchone() is None


def _many(db: sqlite3.Connection, condition: str, wanted: dict[str, str]) -> list[Owner]:
    rows = db.execute(
        f"SELECT {_BODY} AS body FROM instances WHERE {condition} ORDER BY number",  # noqa: S608 - our own text
        wanted,
    )
    return _OWNERS.validate_json("[" + ",".join(row["body"] for row in rows) + "]")
