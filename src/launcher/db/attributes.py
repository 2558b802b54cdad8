"""What an owner may change of an instance beside its state, and what keeps others from it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from launcher.errors import Conflict, Forbidden, Locked, Protected, WrongState
from launcher.models import Flavor, Instance, LaunchOrder, ShutdownBehaviour, TaskState, VmState

OWNER, ADMIN = "owner", "admin"


def put(
    db: sqlite3.Connection,
    instance: Instance,
    *,
    name: str | None,
    user_data: str | None,
    shutdown_behaviour: ShutdownBehaviour | None,
    protected: bool | None,
    description: str | None,
    labels: Sequence[str] | None,
) -> None:
    """None leaves it as it is; an empty text is none."""
    given = {"name": name, "shutdown_behaviour": shutdown_behaviour, "protected": protected}
    changes: dict[str, object] = {column: value for column, value in given.items() if value is not None}
    texts = {"user_data": user_data, "description": description}
    changes |= {column: text or None for column, text in texts.items() if text is not None}
    if labels is not None:
        changes["labels"] = json.dumps(list(dict.fromkeys(labels)))
    _set(db, instance, changes)


def resize(db: sqlite3.Connection, instance: Instance, order: LaunchOrder, flavor: Flavor) -> None:
    """From now on it counts as this large; its order says so to the host."""
    resized = order.model_copy(update={"flavor": flavor})
    changes = {
        "previous_flavor": instance.flavor.model_dump_json(),
        "flavor": flavor.model_dump_json(),
        "vcpus": flavor.vcpus,
        "memory_mb": flavor.memory_mb,
        "spec": resized.model_dump_json(),
    }
    _set(db, instance, changes)


def lock(db: sqlite3.Connection, instance: Instance, reason: str | None, *, by_admin: bool) -> None:
    """One that is there is made an administrator's by an administrator only."""
    if by_admin or not instance.locked:
        _set(db, instance, {"locked": ADMIN if by_admin else OWNER, "lock_reason": reason})


def unlock(db: sqlite3.Connection, instance: Instance, *, by_admin: bool) -> None:
    locked = db.execute("SELECT locked FROM instances WHERE id = ?", (instance.id,)).fetchone()["locked"]
    if locked == ADMIN and not by_admin:
        raise Forbidden(f"{instance.name} was locked by an administrator")
    _set(db, instance, {"locked": None, "lock_reason": None})


def refuse_locked(instance: Instance, *, by_admin: bool) -> None:
    if instance.locked and not by_admin:
        raise Locked(f"{instance.name} is locked", hint=f"launcher unlock {instance.id[:8]}")


def refuse_protected(instance: Instance) -> None:
    if instance.protected:
        hint = f"launcher set {instance.id[:8]} --no-protect"
        raise Protected(f"{instance.name} is protected from being deleted", hint=hint)


def refuse_ended(instance: Instance) -> None:
    if instance.vm_state is VmState.DELETED or instance.task_state is TaskState.DELETING:
        raise Conflict(f"{instance.name} is being deleted", field="instance_id")


def refuse_unless_stopped(instance: Instance, what: str) -> None:
    if instance.vm_state is not VmState.STOPPED or instance.task_state is not None:
        now = f", and {instance.task_state} now" if instance.task_state else ""
        raise WrongState(
            f"{instance.name} is {instance.vm_state}{now}: to get another {what} it must be stopped",
            hint=f"launcher stop {instance.id[:8]} --wait",
            field=what,
        )


def _set(db: sqlite3.Connection, instance: Instance, changes: dict[str, object]) -> None:
    if changes:
        settings = ", ".join(f"{column} = :{column}" for column in changes)
        db.execute(
            f"UPDATE instances SET {settings} WHERE id = :the_id",  # noqa: S608 - columns are this module's own
            {**changes, "the_id": instance.id},
        )
