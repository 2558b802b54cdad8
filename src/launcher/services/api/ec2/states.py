"""Instance states as EC2 numbers them."""

from __future__ import annotations

from typing import NamedTuple

from launcher.models import Instance, TaskState, VmState


class State(NamedTuple):
    code: int
    name: str


class Reason(NamedTuple):
    code: str
    message: str


PENDING, RUNNING, SHUTTING_DOWN, TERMINATED = (
    State(0, "pending"),
    State(16, "running"),
    State(32, "shutting-down"),
    State(48, "terminated"),
)
STOPPING, STOPPED = State(64, "stopping"), State(80, "stopped")

_RESTING = {
    VmState.BUILDING: PENDING,
    VmState.ACTIVE: RUNNING,
    VmState.STOPPED: STOPPED,
    VmState.ERROR: TERMINATED,
    VmState.DELETED: TERMINATED,
}


def of(instance: Instance) -> State:
    """An instance in error is `terminated`: it will never run, and waiters know that; `reason` says why."""
    if instance.task_state is TaskState.DELETING:
        return SHUTTING_DOWN
    return _RESTING[instance.vm_state]


def reason(instance: Instance) -> Reason | None:
    if instance.fault is not None:
        return Reason("Server.InternalError", f"Server.InternalError: {instance.fault.step}: {instance.fault.message}")
    if of(instance) in (SHUTTING_DOWN, TERMINATED):
        return Reason("Client.UserInitiatedShutdown", "Client.UserInitiatedShutdown: User initiated shutdown")
    if of(instance) is PENDING:
        return Reason("pending", "pending")
    return None
