"""How instances move between their launch and their end, after the table in `life.py`; else as `moves.py` does it."""

from __future__ import annotations

import sqlite3
from typing import Any

from launcher.db import images, instances
from launcher.db.moves import move
from launcher.errors import WrongState
from launcher.life import AT_REST, BY_TASK, OPERATIONS, RUNNING, Action, possible
from launcher.models import Fault, Instance, InstanceId, LaunchOrder, Model, TaskState, VmState


class Held(Model):
    """An instance that a host has in hand; `running` when there should be a machine."""

    order: LaunchOrder
    running: bool


def begin(
    db: sqlite3.Connection,
    instance_id: InstanceId,
    action: Action,
    *,
    hasten: bool,
    request_id: str,
    trace_id: str,
    now_ms: float,
    next_check_ms: float,
    deadline_ms: float,
) -> Instance:
    """Raises WrongState. With `hasten` it may be under way already, and what it waits for is not waited for."""
    instance, operation = instances.get(db, instance_id), OPERATIONS[action]
    hastened = hasten and operation.patient and instance.task_state is operation.task
    if instance.vm_state not in operation.allowed or not (instance.task_state is None or hastened):
        raise _wrong_state(instance, action)
    return move(
        db,
        instance_id,
        instance.generation,
        "host IS NOT NULL",
        {
            "generation": instance.generation + (operation.renews or hastened),
            "task_state": operation.task,
            "task_request_id": request_id,
            "task_trace_id": trace_id,
            "fault": None,
            "state_since_ms": now_ms,
            "next_check_ms": next_check_ms,
            "deadline_ms": deadline_ms,
            "attempts": 0,
            "nudges": 0,
        },
    )


def go_on(
    db: sqlite3.Connection,
    instance_id: InstanceId,
    generation: int,
    task: TaskState,
    *,
    host: str,
    next_check_ms: float,
) -> None:
    """The host is at work for this task, and it is still wanted."""
    changes = {"next_check_ms": next_check_ms, "nudges": 0}
    _doing(db, instance_id, generation, task, host, changes)


def end(
    db: sqlite3.Connection, instance_id: InstanceId, generation: int, task: TaskState, *, host: str, now_ms: float
) -> Instance:
    """It is done."""
    changes: dict[str, Any] = {"task_state": None, "state_since_ms": now_ms, "next_check_ms": None}
    if state := BY_TASK[task].end:
        changes["vm_state"] = state
    return _doing(db, instance_id, generation, task, host, changes)


def fail(db: sqlite3.Connection, instance: Instance, fault: Fault, *, now_ms: float, next_check_ms: float) -> Instance:
    """Given up. What was to start may have begun to: that is ended, and the instance stopped; else it is as it was."""
    assert instance.task_state is not None
    begun = {
        "generation": instance.generation + 1,
        "task_state": TaskState.STOPPING,
        "next_check_ms": next_check_ms,
        "deadline_ms": now_ms,
        "nudges": 0,
    }
    changes = begun if BY_TASK[instance.task_state].starts else {"task_state": None, "next_check_ms": None}
    told = {**changes, "fault": fault.model_dump_json(), "state_since_ms": now_ms}
    images.end_snapshot(db, instance.id, f"{fault.message}; {fault.hint}".rstrip("; "), now_ms)
    return _doing(db, instance.id, instance.generation, instance.task_state, instance.host, told)


def try_again(db: sqlite3.Connection, instance: Instance, *, attempts: int, next_check_ms: float) -> Instance:
    assert instance.task_state is not None
    changes = {"attempts": attempts, "next_check_ms": next_check_ms}
    return _doing(db, instance.id, instance.generation, instance.task_state, instance.host, changes)


def become_stopped(db: sqlite3.Connection, instance_id: InstanceId, generation: int, *, now_ms: float) -> Instance:
    """Its machine ended by itself."""
    changes = {"vm_state": VmState.STOPPED, "state_since_ms": now_ms}
    return move(
        db, instance_id, generation, "vm_state IN ('active', 'paused', 'rescued') AND task_state IS NULL", changes
    )


def count_held(db: sqlite3.Connection, host: str) -> tuple[int, int]:
    """The instances at rest that count against this host, and how many of them have a machine."""
    held = list_held(db, host)
    return len(held), sum(each.running for each in held)


def list_held(db: sqlite3.Connection, host: str) -> list[Held]:
    states = ", ".join(f"'{state}'" for state in sorted(AT_REST))
    rows = db.execute(
        "SELECT spec, generation, vm_state FROM instances"  # noqa: S608 - our own words
        f" WHERE host = ? AND vm_state IN ({states}) AND task_state IS NULL",
        (host,),
    ).fetchall()
    return [
        Held(
            order=LaunchOrder.model_validate_json(row["spec"]).model_copy(
                update={"generation": row["generation"], "volumes": True}
            ),
            running=row["vm_state"] in RUNNING,
        )
        for row in rows
    ]


def _doing(
    db: sqlite3.Connection,
    instance_id: InstanceId,
    generation: int,
    task: TaskState,
    host: str | None,
    changes: dict[str, Any],
) -> Instance:
    wanted = {**changes, "host": host}
    return move(db, instance_id, generation, f"task_state = '{task}' AND host = :host", wanted)


def _wrong_state(instance: Instance, action: Action) -> WrongState:
    if instance.task_state is not None:
        return WrongState(
            f"{instance.name} is {instance.vm_state}, and {instance.task_state} now: it cannot {action} meanwhile",
            hint="wait for its end; a delete is possible at any time",
        )
    *others, last = OPERATIONS[action].allowed
    states = f"{', '.join(others)} or {last}" if others else last
    may = ", ".join(possible(instance.vm_state)) or "only a delete"
    return WrongState(
        f"{instance.name} is {instance.vm_state}: to {action} it must be {states}", hint=f"possible now: {may}"
    )
