"""How instances move. Every move is a compare-and-set: from this generation and these states to those.

A move that finds another generation, host or state changes nothing and raises StaleGeneration: whoever asked is
working for an instance that has moved on.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from launcher.db import images, instances, volume_moves
from launcher.db.instances import BODY
from launcher.errors import NotFound, StaleGeneration
from launcher.models import Fault, Instance, InstanceId, InstanceRef, Model, Nic, TaskState, VmState

_LAUNCHING = "vm_state = 'building' AND task_state NOT IN ('cleaning', 'deleting')"
_STEPPING = f"{_LAUNCHING} AND task_state != 'rescheduling'"


class Due(Model):
    """An instance that the reconcile loop looks at now."""

    instance: Instance
    nudges: int
    attempts: int
    deadline_ms: float


def begin_step(
    db: sqlite3.Connection,
    instance_id: InstanceId,
    generation: int,
    *,
    host: str,
    step: TaskState,
    now_ms: float,
    next_check_ms: float,
) -> Instance:
    """Claimed by `host`, or already its own, and about to do `step`."""
    stepping = f"{_STEPPING} AND (host IS NULL OR host = :host)"
    return move(
        db,
        instance_id,
        generation,
        "task_state = 'rescheduling' AND host = :host" if step is TaskState.RESCHEDULING else stepping,
        {"host": host, "task_state": step, "state_since_ms": now_ms, "next_check_ms": next_check_ms, "nudges": 0},
    )


def become_active(
    db: sqlite3.Connection,
    instance_id: InstanceId,
    generation: int,
    *,
    host: str,
    nics: Sequence[Nic],
    injection: str,
    now_ms: float,
) -> Instance:
    move(
        db,
        instance_id,
        generation,
        f"{_STEPPING} AND host = :host",
        {
            "host": host,
            "vm_state": VmState.ACTIVE,
            "task_state": None,
            "injection": injection,
            "state_since_ms": now_ms,
            "launched_ms": now_ms,
            "next_check_ms": None,
        },
    )
    db.executemany(
        "UPDATE nics SET network = ?, address = ?, address6 = ? WHERE mac = ?",
        [(nic.network, _text(nic.address), _text(nic.address6), nic.mac) for nic in nics],
    )
    return instances.get(db, instance_id)


def try_again(
    db: sqlite3.Connection, instance_id: InstanceId, generation: int, *, attempts: int, next_check_ms: float
) -> Instance:
    """A step failed and may succeed later: look again at `next_check_ms`."""
    changes = {"attempts": attempts, "next_check_ms": next_check_ms}
    return move(db, instance_id, generation, _STEPPING, changes)


def begin_rescheduling(
    db: sqlite3.Connection,
    instance_id: InstanceId,
    generation: int,
    *,
    host: str,
    attempts: int,
    now_ms: float,
    next_check_ms: float,
) -> Instance:
    """A step failed on `host` and may succeed on another; first, what this one made goes.

    A machine that ran before has its disk where it is: it is not moved.
    """
    tried = dict.fromkeys((*instances.get_order(db, instance_id).tried_hosts, host))
    return move(
        db,
        instance_id,
        generation,
        f"{_STEPPING} AND host = :host AND launched_ms IS NULL",
        {
            "host": host,
            "generation": generation + 1,
            "task_state": TaskState.RESCHEDULING,
            "tried_hosts": json.dumps(list(tried)),
            "attempts": attempts,
            "state_since_ms": now_ms,
            "next_check_ms": next_check_ms,
            "nudges": 0,
        },
    )


def begin_cleaning(
    db: sqlite3.Connection,
    instance_id: InstanceId,
    generation: int,
    fault: Fault,
    *,
    now_ms: float,
    next_check_ms: float,
) -> Instance:
    """The launch failed for good: its fault is known, its artefacts are about to go."""
    return move(
        db,
        instance_id,
        generation,
        _LAUNCHING,
        {
            "generation": generation + 1,
            "task_state": TaskState.CLEANING,
            "fault": fault.model_dump_json(),
            "state_since_ms": now_ms,
            "next_check_ms": next_check_ms,
            "nudges": 0,
        },
    )


def begin_deleting(
    db: sqlite3.Connection, instance: Instance, *, trace_id: str, now_ms: float, next_check_ms: float
) -> Instance:
    """From any state but the end; fences everything that still works for the old generation."""
    images.end_snapshot(db, instance.id, f"{instance.name} was deleted meanwhile", now_ms)
    return move(
        db,
        instance.id,
        instance.generation,
        "vm_state != 'deleted'",
        {
            "generation": instance.generation + 1,
            "task_state": TaskState.DELETING,
            "delete_trace_id": trace_id,
            "state_since_ms": now_ms,
            "next_check_ms": next_check_ms,
            "nudges": 0,
        },
    )


def begin_restart(
    db: sqlite3.Connection, instance_id: InstanceId, generation: int, *, now_ms: float, deadline_ms: float
) -> Instance:
    """An active instance whose domain is missing is built again from what it has; one call restarts it once."""
    return move(
        db,
        instance_id,
        generation,
        "vm_state = 'active' AND task_state IS NULL",
        {
            "generation": generation + 1,
            "vm_state": VmState.BUILDING,
            "task_state": TaskState.SCHEDULING,
            "state_since_ms": now_ms,
            "next_check_ms": now_ms,
            "deadline_ms": deadline_ms,
            "attempts": 0,
            "nudges": 0,
        },
    )


def become_gone(
    db: sqlite3.Connection, instance_id: InstanceId, generation: int, *, now_ms: float, next_check_ms: float
) -> Instance:
    """Nothing is left: a failed launch ends in `error` or begins again elsewhere, a deletion ends in `deleted`."""
    row = db.execute("SELECT task_state FROM instances WHERE id = ?", (instance_id,)).fetchone()
    task_state = row and row["task_state"]
    if task_state == TaskState.RESCHEDULING:
        return _begin_again(db, instance_id, generation, now_ms=now_ms, next_check_ms=next_check_ms)
    deleting = task_state == TaskState.DELETING
    moved = move(
        db,
        instance_id,
        generation,
        "task_state IN ('cleaning', 'deleting')",
        {
            "vm_state": VmState.DELETED if deleting else VmState.ERROR,
            "task_state": None,
            "state_since_ms": now_ms,
            "deleted_ms": now_ms if deleting else None,
            "next_check_ms": None,
        },
    )
    if deleting:
        db.execute("DELETE FROM nics WHERE number = ?", (moved.number,))
    else:
        db.execute("UPDATE nics SET address = NULL, address6 = NULL WHERE number = ?", (moved.number,))
    volume_moves.release(db, instance_id, now_ms=now_ms)
    return instances.get(db, instance_id)


def _text(address: object) -> str | None:
    return None if address is None else str(address)


def _begin_again(
    db: sqlite3.Connection, instance_id: InstanceId, generation: int, *, now_ms: float, next_check_ms: float
) -> Instance:
    """Nobody's any more; its address is still leased."""
    return move(
        db,
        instance_id,
        generation,
        "task_state = 'rescheduling'",
        {
            "generation": generation + 1,
            "task_state": TaskState.SCHEDULING,
            "host": None,
            "state_since_ms": now_ms,
            "next_check_ms": next_check_ms,
            "nudges": 0,
        },
    )


# --- the reconcile loop's view ---------------------------------------------------------------------


def list_due(db: sqlite3.Connection, now_ms: float, limit: int) -> list[Due]:
    """Whose next look has come, the longest waiting first."""
    rows = db.execute(
        f"SELECT {BODY} AS body, nudges, attempts, deadline_ms FROM instances"  # noqa: S608 - our own text
        " WHERE next_check_ms <= ? ORDER BY next_check_ms LIMIT ?",
        (now_ms, limit),
    ).fetchall()
    return [
        Due(
            instance=Instance.model_validate_json(row["body"]),
            nudges=row["nudges"],
            attempts=row["attempts"],
            deadline_ms=row["deadline_ms"],
        )
        for row in rows
    ]


def get_due(db: sqlite3.Connection, instance_id: InstanceId) -> Due:
    row = db.execute(
        f"SELECT {BODY} AS body, nudges, attempts, deadline_ms FROM instances WHERE id = ?",  # noqa: S608
        (instance_id,),
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no instance {instance_id}")
    body = Instance.model_validate_json(row["body"])
    return Due(instance=body, nudges=row["nudges"], attempts=row["attempts"], deadline_ms=row["deadline_ms"])


def nudged(db: sqlite3.Connection, due: Due, *, next_check_ms: float) -> None:
    db.execute(
        "UPDATE instances SET nudges = nudges + 1, next_check_ms = ?"
        " WHERE id = ? AND generation = ? AND next_check_ms IS NOT NULL",
        (next_check_ms, due.instance.id, due.instance.generation),
    )


def look_at_unfinished(
    db: sqlite3.Connection, now_ms: float, *, host: str | None = None, until_ms: float | None = None
) -> list[str]:
    """Make due now what is not at rest: all, or what is of `host` or still waits for one; the names of these.

    What has come to its state after `until_ms` is left alone: it is the work of whoever works now.
    """
    rows = db.execute(
        "UPDATE instances SET next_check_ms = :now, nudges = 0"
        " WHERE next_check_ms IS NOT NULL AND (:host IS NULL OR host = :host OR host IS NULL)"
        " AND state_since_ms <= :until RETURNING id, number",
        {"now": now_ms, "host": host, "until": now_ms if until_ms is None else until_ms},
    ).fetchall()
    return [InstanceRef(instance_id=row["id"], number=row["number"]).name for row in rows]


def move(
    db: sqlite3.Connection, instance_id: InstanceId, generation: int, condition: str, changes: dict[str, Any]
) -> Instance:
    """Change the row if it has this generation and meets the condition; else StaleGeneration."""
    settings = ", ".join(f"{column} = :{column}" for column in changes)
    row = db.execute(
        f"UPDATE instances SET {settings}"  # noqa: S608 - columns and conditions are this module's own
        f" WHERE id = :the_id AND generation = :the_generation AND {condition} RETURNING {BODY} AS body",
        {**changes, "the_id": instance_id, "the_generation": generation},
    ).fetchone()
    if row is None:
        raise StaleGeneration(f"instance {instance_id} has moved on from generation {generation}")
    return Instance.model_validate_json(row["body"])
