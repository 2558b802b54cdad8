"""How volumes and snapshots move. Every move is a compare-and-set: from this generation and these statuses to that one.

A move that finds another generation, host or status changes nothing and raises StaleGeneration.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

from launcher.errors import StaleGeneration
from launcher.models import Fault, InstanceId, Model
from launcher.volumes import BEGINNINGS, ENDINGS, Ending, VolumeId, VolumeRef, VolumeStatus

_REST = "CASE WHEN instance_id IS NULL THEN 'available' ELSE 'in-use' END"
_UNPLUGGED = "instance_id = NULL, device = NULL, attached_ms = NULL, delete_on_termination = 0, forced = 0"
_STAMPS = {VolumeStatus.DELETING: "deleted_ms", VolumeStatus.ATTACHING: "attached_ms"}


class DueVolume(Model):
    """One that the reconcile loop looks at now."""

    ref: VolumeRef
    generation: int
    status: VolumeStatus
    host: str | None
    nudges: int
    attempts: int
    created_ms: float


def begin(
    db: sqlite3.Connection,
    volume_id: VolumeId,
    generation: int,
    status: VolumeStatus,
    *,
    now_ms: float,
    next_check_ms: float,
    changes: dict[str, Any] | None = None,
) -> None:
    """What a user asks for; fences all that still works for the generation before."""
    moved = {
        "generation": generation + 1,
        "status": status,
        "state_since_ms": now_ms,
        "next_check_ms": next_check_ms,
        "attempts": 0,
        "nudges": 0,
        "fault": None,
        **(changes or {}),
    }
    _move(db, volume_id, generation, BEGINNINGS[status], moved)


def claim(
    db: sqlite3.Connection,
    volume_id: VolumeId,
    generation: int,
    status: VolumeStatus,
    *,
    host: str,
    next_check_ms: float,
) -> None:
    """A host is at it; the first one that says so has it for good."""
    _move(
        db,
        volume_id,
        generation,
        {status},
        {"host": host, "next_check_ms": next_check_ms},
        more="AND (host IS NULL OR host = :host)",
    )


def end(
    db: sqlite3.Connection, volume_id: VolumeId, generation: int, status: VolumeStatus, *, host: str, now_ms: float
) -> None:
    """It is done."""
    done = _ending(volume_id, status).done
    settings = {VolumeStatus.EXTENDING: "size_gb = new_size_gb", VolumeStatus.DETACHING: _UNPLUGGED}.get(status, "")
    changes: dict[str, Any] = {"fault": None, "attempts": 0}
    if status in _STAMPS:
        changes[_STAMPS[status]] = now_ms
    _rest(db, volume_id, generation, status, done, changes, host=host, now_ms=now_ms, settings=settings)


def end_hostless(db: sqlite3.Connection, volume_id: VolumeId, generation: int, *, now_ms: float) -> None:
    """A deletion of what no host ever had."""
    changes: dict[str, Any] = {"fault": None, "deleted_ms": now_ms}
    deleting, deleted = VolumeStatus.DELETING, VolumeStatus.DELETED
    _rest(db, volume_id, generation, deleting, deleted, changes, host=None, now_ms=now_ms, settings="")


def fail(
    db: sqlite3.Connection,
    volume_id: VolumeId,
    generation: int,
    status: VolumeStatus,
    fault: Fault,
    *,
    host: str | None,
    now_ms: float,
) -> None:
    """It will not be done, and nothing is left of the attempt."""
    settings = _UNPLUGGED if status is VolumeStatus.ATTACHING else ""
    changes = {"fault": fault.model_dump_json(), "attempts": 0}
    to = _ending(volume_id, status).failed
    _rest(db, volume_id, generation, status, to, changes, host=host, now_ms=now_ms, settings=settings)


def try_again(
    db: sqlite3.Connection,
    volume_id: VolumeId,
    generation: int,
    status: VolumeStatus,
    fault: Fault,
    *,
    attempts: int,
    next_check_ms: float,
) -> None:
    """It failed and may succeed later; its owner sees why it takes so long."""
    changes = {"fault": fault.model_dump_json(), "attempts": attempts, "next_check_ms": next_check_ms}
    _move(db, volume_id, generation, {status}, changes)


def release(db: sqlite3.Connection, instance_id: InstanceId, *, now_ms: float) -> list[VolumeId]:
    """Nothing is left of the instance: its volumes are free, and some go with it. Returns those that are due now.

    An extension goes on without the machine.
    """
    settings = (
        "generation = generation + 1, state_since_ms = :now, nudges = 0, attempts = 0,"
        " status = CASE WHEN delete_on_termination THEN 'deleting' WHEN status = 'extending' THEN status"
        " ELSE 'available' END,"
        " new_size_gb = CASE WHEN delete_on_termination THEN NULL ELSE new_size_gb END,"
        f" next_check_ms = CASE WHEN delete_on_termination OR status = 'extending' THEN :now END, {_UNPLUGGED}"
    )
    rows = db.execute(
        f"UPDATE volumes SET {settings} WHERE instance_id = :instance RETURNING id, next_check_ms",  # noqa: S608
        {"now": now_ms, "instance": instance_id},
    ).fetchall()
    return [row["id"] for row in rows if row["next_check_ms"] is not None]


# --- the reconcile loop's view ---------------------------------------------------------------------


def list_due(db: sqlite3.Connection, now_ms: float, limit: int) -> list[DueVolume]:
    """Whose next look has come, the longest waiting first."""
    rows = db.execute(
        "SELECT * FROM volumes WHERE next_check_ms <= ? ORDER BY next_check_ms LIMIT ?", (now_ms, limit)
    ).fetchall()
    return [_due(row) for row in rows]


def get_due(db: sqlite3.Connection, volume_id: VolumeId) -> DueVolume:
    """Raises StaleGeneration for one that was never here."""
    row = db.execute("SELECT * FROM volumes WHERE id = ?", (volume_id,)).fetchone()
    if row is None:
        raise StaleGeneration(f"there is no volume {volume_id}")
    return _due(row)


def nudged(db: sqlite3.Connection, due: DueVolume, *, next_check_ms: float) -> None:
    db.execute(
        "UPDATE volumes SET nudges = nudges + 1, next_check_ms = ?"
        " WHERE id = ? AND generation = ? AND next_check_ms IS NOT NULL",
        (next_check_ms, due.ref.volume_id, due.generation),
    )


def look_at_unfinished(db: sqlite3.Connection, now_ms: float, *, host: str | None = None) -> list[str]:
    """Make due now what is not at rest: all, or what is of `host` or still waits for one; the names of these."""
    rows = db.execute(
        "UPDATE volumes SET next_check_ms = :now, nudges = 0"
        " WHERE next_check_ms IS NOT NULL AND (:host IS NULL OR host = :host OR host IS NULL)"
        " RETURNING id, number, snapshot_of",
        {"now": now_ms, "host": host},
    ).fetchall()
    return [_ref(row).name for row in rows]


def _ref(row: sqlite3.Row) -> VolumeRef:
    return VolumeRef(volume_id=row["id"], number=row["number"], snapshot=row["snapshot_of"] is not None)


def _due(row: sqlite3.Row) -> DueVolume:
    return DueVolume(
        ref=_ref(row),
        generation=row["generation"],
        status=row["status"],
        host=row["host"],
        nudges=row["nudges"],
        attempts=row["attempts"],
        created_ms=row["created_ms"],
    )


def _ending(volume_id: VolumeId, status: VolumeStatus) -> Ending:
    """Raises StaleGeneration for a status in which nothing is under way."""
    if status not in ENDINGS:
        raise StaleGeneration(f"volume {volume_id}: nothing is under way that is called {status}")
    return ENDINGS[status]


def _rest(
    db: sqlite3.Connection,
    volume_id: VolumeId,
    generation: int,
    status: VolumeStatus,
    to: VolumeStatus | None,
    changes: dict[str, Any],
    *,
    host: str | None,
    now_ms: float,
    settings: str,
) -> None:
    """At the end of what was under way nothing is due any more. Its host's word counts, without one the scheduler's."""
    settled = {"state_since_ms": now_ms, "next_check_ms": None, "nudges": 0, "new_size_gb": None, **changes}
    if to is not None:
        settled["status"] = to
    every = ", ".join(filter(None, [settings, f"status = {_REST}" if to is None else ""]))
    _move(db, volume_id, generation, {status}, settled, settings=every, more="AND host IS :host", host=host)


def _move(
    db: sqlite3.Connection,
    volume_id: VolumeId,
    generation: int,
    come_from: Collection[VolumeStatus],
    changes: dict[str, Any],
    *,
    settings: str = "",
    more: str = "",
    host: str | None = None,
) -> None:
    """Change the row if it has this generation and one of these statuses; else StaleGeneration."""
    every = ", ".join([*(f"{column} = :{column}" for column in changes), *([settings] if settings else [])])
    found = db.execute(
        f"UPDATE volumes SET {every} WHERE id = :the_id AND generation = :the_generation"  # noqa: S608 - our own text
        f" AND status IN ({', '.join(repr(str(each)) for each in come_from)}) {more} RETURNING id",
        {"host": host, **changes, "the_id": volume_id, "the_generation": generation},
    ).fetchone()
    if found is None:
        raise StaleGeneration(f"volume {volume_id} has moved on from generation {generation}")
