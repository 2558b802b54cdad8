"""Volumes and snapshots: accepted, found, listed. How they move from status to status stands in `volume_moves.py`."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any, TypeVar

from pydantic import TypeAdapter

from launcher.db import instances
from launcher.errors import Conflict, NotFound
from launcher.models import Image, InstanceId, Model
from launcher.volumes import (
    DEVICES,
    Snapshot,
    Volume,
    VolumeDisk,
    VolumeId,
    VolumeOrder,
    VolumeRef,
    VolumeStatus,
)

Found = TypeVar("Found", Volume, Snapshot)
_LISTS = {"volume": "volume list", "snapshot": "snapshot list"}
_BOTH = """'id', id, 'number', number, 'generation', generation, 'project_id', project_id, 'user_id', user_id,
    'name', name, 'description', description, 'metadata', json(metadata), 'status', status,
    'state_since_ms', CAST(state_since_ms AS INTEGER), 'size_gb', size_gb, 'host', host,
    'image_id', json_extract(image, '$.id'), 'fault', json(fault),
    'created_ms', CAST(created_ms AS INTEGER), 'deleted_ms', CAST(deleted_ms AS INTEGER)"""
_NUMBER = "(SELECT number FROM {} AS other WHERE other.id = volumes.{})"
VOLUME = f"""json_object({_BOTH}, 'availability_zone', availability_zone, 'snapshot_id', source,
'extension', json(extension), 'snapshot_number', {_NUMBER.format("volumes", "source")},
    'attachment', CASE WHEN instance_id IS NOT NULL THEN json_object('instance_id', instance_id,
        'instance_number', {_NUMBER.format("instances", "instance_id")}, 'device', device,
        'delete_on_termination', json(iif(delete_on_termination, 'true', 'false')),
        'attached_ms', CAST(attached_ms AS INTEGER)) END)"""
_SNAPSHOT = (
    f"json_object({_BOTH}, 'volume_id', snapshot_of, 'volume_number', {_NUMBER.format('volumes', 'snapshot_of')})"
)
_VOLUMES, _SNAPSHOTS = TypeAdapter(list[Volume]), TypeAdapter(list[Snapshot])


class Usage(Model):
    """What a project's live volumes and snapshots hold of its quota, extensions under way included."""

    volumes: int
    snapshots: int
    gigabytes: int


def get_usage(db: sqlite3.Connection, project_id: str) -> Usage:
    row = db.execute(
        "SELECT count(*) FILTER (WHERE snapshot_of IS NULL), count(snapshot_of),"
        " coalesce(sum(max(size_gb, coalesce(new_size_gb, 0))), 0) FROM volumes"
        " WHERE project_id = ? AND status != 'deleted'",
        (project_id,),
    ).fetchone()
    return Usage(volumes=row[0], snapshots=row[1], gigabytes=row[2])


def next_number(db: sqlite3.Connection) -> int:
    """The number that the next row gets; true within the transaction that also creates it."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'volumes'").fetchone()
    return (row[0] if row else 0) + 1


def skip_numbers(db: sqlite3.Connection, highest: int) -> None:
    """Give no number up to this one: a database that was lost or put back had given it to somebody."""
    if next_number(db) <= highest:
        db.execute("DELETE FROM sqlite_sequence WHERE name = 'volumes'")
        db.execute("INSERT INTO sqlite_sequence VALUES ('volumes', ?)", (highest,))


def create(db: sqlite3.Connection, columns: dict[str, Any]) -> None:
    """The row of an accepted one, in `creating`."""
    known = {"generation": 1, "status": VolumeStatus.CREATING, **columns}
    places = ", ".join(f":{column}" for column in known)
    db.execute(f"INSERT INTO volumes ({', '.join(known)}) VALUES ({places})", known)  # noqa: S608 - our own names


def get(db: sqlite3.Connection, volume_id: VolumeId) -> Volume:
    return _only(_many(db, "id = :key", {"key": volume_id}), "volume", volume_id)


def get_snapshot(db: sqlite3.Connection, volume_id: VolumeId) -> Snapshot:
    return _only(_many_snapshots(db, "id = :key", {"key": volume_id}), "snapshot", volume_id)


def resolve(db: sqlite3.Connection, project_id: str | None, name_or_id: str) -> Volume:
    """By id, or by a name that one live volume of the project has; `project_id` None looks everywhere."""
    wanted = {"project": project_id, "key": name_or_id}
    found = _many(db, f"id = :key AND {_MINE}", wanted) or _many(db, _NAMED, wanted)
    return _only(found, "volume", name_or_id)


def resolve_snapshot(db: sqlite3.Connection, project_id: str | None, name_or_id: str) -> Snapshot:
    """By id, or by a name that one live snapshot of the project has; `project_id` None looks everywhere."""
    wanted = {"project": project_id, "key": name_or_id}
    found = _many_snapshots(db, f"id = :key AND {_MINE}", wanted) or _many_snapshots(db, _NAMED, wanted)
    return _only(found, "snapshot", name_or_id)


def list_all(db: sqlite3.Connection, project_id: str | None, *, deleted: bool) -> list[Volume]:
    """`project_id` None sees all."""
    return _many(db, f"{_MINE} AND (:deleted OR status != 'deleted')", {"project": project_id, "deleted": deleted})


def list_snapshots(db: sqlite3.Connection, project_id: str | None, *, deleted: bool) -> list[Snapshot]:
    """`project_id` None sees all."""
    wanted = {"project": project_id, "deleted": deleted}
    return _many_snapshots(db, f"{_MINE} AND (:deleted OR status != 'deleted')", wanted)


def list_of_instance(db: sqlite3.Connection, instance_id: InstanceId) -> list[Volume]:
    return _many(db, "instance_id = :key", {"key": instance_id})


def list_disks(db: sqlite3.Connection, instance_id: InstanceId) -> list[VolumeDisk]:
    """What a machine has when it starts now: one on its way out is not given again."""
    rows = db.execute(
        "SELECT id, number, device FROM volumes WHERE instance_id = ? AND status != 'detaching' ORDER BY device",
        (instance_id,),
    )
    return [VolumeDisk(ref=VolumeRef(volume_id=row["id"], number=row["number"]), device=row["device"]) for row in rows]


def free_device(db: sqlite3.Connection, instance_id: InstanceId, own: Collection[str]) -> str:
    """The first that neither a volume has nor a disk of its `own`."""
    rows = db.execute("SELECT device FROM volumes WHERE instance_id = ?", (instance_id,))
    taken = {*own, *(row[0] for row in rows)}
    free = next((device for device in DEVICES if device not in taken), None)
    if free is None:
        raise Conflict(f"the instance has {len(taken)} disks beside its root, and no more devices", field="instance")
    return free


def is_being_copied(db: sqlite3.Connection, volume_id: VolumeId) -> bool:
    """Whether a snapshot of it, or a volume from it, is being made just now."""
    busy = "status = 'creating' AND (snapshot_of = ?1 OR source = ?1)"
    return db.execute(f"SELECT 1 FROM volumes WHERE {busy} LIMIT 1", (volume_id,)).fetchone() is not None  # noqa: S608


def get_image(db: sqlite3.Connection, volume_id: VolumeId) -> Image | None:
    """What it was made of, or what its ancestor was."""
    found = db.execute("SELECT image FROM volumes WHERE id = ?", (volume_id,)).fetchone()[0]
    return None if found is None else Image.model_validate_json(found)


def get_order(db: sqlite3.Connection, volume_id: VolumeId) -> VolumeOrder:
    """What its host has to do for it, at its present generation."""
    row = db.execute("SELECT * FROM volumes WHERE id = ?", (volume_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no volume {volume_id}")
    source_id = row["snapshot_of"] or row["source"]
    source = source_id and db.execute("SELECT * FROM volumes WHERE id = ?", (source_id,)).fetchone()
    copied = row["snapshot_of"] and row["status"] == VolumeStatus.CREATING
    holder = source["instance_id"] if copied else row["instance_id"]
    return VolumeOrder(
        volume_id=row["id"],
        number=row["number"],
        snapshot=row["snapshot_of"] is not None,
        generation=row["generation"],
        status=row["status"],
        size_gb=row["new_size_gb"] or row["size_gb"],
        availability_zone=row["availability_zone"],
        source=_ref(source) if source else None,
        image=None if source or row["image"] is None else Image.model_validate_json(row["image"]),
        machine=instances.get_order(db, holder) if holder else None,
        device=row["device"],
        force=bool(row["forced"]),
    )


def _ref(row: sqlite3.Row) -> VolumeRef:
    return VolumeRef(volume_id=row["id"], number=row["number"], snapshot=row["snapshot_of"] is not None)


_MINE = "(:project IS NULL OR project_id = :project)"
_NAMED = f"name = :key AND status != 'deleted' AND {_MINE}"


def _many(db: sqlite3.Connection, condition: str, wanted: dict[str, Any]) -> list[Volume]:
    return _VOLUMES.validate_json(_json(db, VOLUME, f"snapshot_of IS NULL AND {condition}", wanted))


def _many_snapshots(db: sqlite3.Connection, condition: str, wanted: dict[str, Any]) -> list[Snapshot]:
    return _SNAPSHOTS.validate_json(_json(db, _SNAPSHOT, f"snapshot_of IS NOT NULL AND {condition}", wanted))


def _json(db: sqlite3.Connection, body: str, condition: str, wanted: dict[str, Any]) -> bytes:
    query = f"SELECT {body} AS body FROM volumes WHERE {condition} ORDER BY number"  # noqa: S608 - our own text
    return f"[{','.join(row['body'] for row in db.execute(query, wanted))}]".encode()


def _only(found: list[Found], kind: str, name_or_id: str) -> Found:
    if not found:
        raise NotFound(f"there is no {kind} {name_or_id!r}", hint=f"see `launcher {_LISTS[kind]}`", field=kind)
    if len(found) > 1:
        raise Conflict(f"{len(found)} {kind}s are called {name_or_id!r}", hint="use the id", field=kind)
    return found[0]
