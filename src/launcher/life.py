"""What can be done to an instance between its launch and its end, as data: from which states, by which task, to which.

    stop     active, paused, suspended  ─ stopping ─►    stopped
    start    stopped                    ─ starting ─►    active
    reboot   active, paused             ─ rebooting ─►   active
    pause    active                     ─ pausing ─►     paused
    unpause  paused                     ─ unpausing ─►   active
    suspend  active                     ─ suspending ─►  suspended
    resume   suspended                  ─ resuming ─►    active
    rebuild  active, paused, stopped    ─ rebuilding ─►  active
    rescue   active, paused, stopped    ─ rescuing ─►    rescued
    unrescue rescued                    ─ unrescuing ─►  active
    snapshot each but rescued              ─ image_snapshot ─►  as before

While a task is under way the instance keeps the state it came from. A task that fails for good leaves it there, with
the fault; but where a machine was to start, its remains are ended and the instance is stopped. A delete wins over all.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from launcher.models import TaskState, VmState


class Action(StrEnum):
    """What its owner may ask for."""

    STOP = "stop"
    START = "start"
    REBOOT = "reboot"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    SUSPEND = "suspend"
    RESUME = "resume"
    REBUILD = "rebuild"
    RESCUE = "rescue"
    UNRESCUE = "unrescue"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True)
class Operation:
    """`renews`: it ends a machine or starts one, so what is said of the one before is of a generation that is past.

    `patient`: the guest is asked to shut down, and has some time for it. `starts`: it ends in a machine that was begun.
    `told`: a message of its own asks for it and says more. Without an `end` the instance stays what it is.
    """

    task: TaskState
    allowed: tuple[VmState, ...]
    end: VmState | None
    renews: bool = False
    patient: bool = False
    starts: bool = False
    told: bool = False


OPERATIONS = {
    Action.STOP: Operation(
        TaskState.STOPPING,
        (VmState.ACTIVE, VmState.PAUSED, VmState.SUSPENDED),
        VmState.STOPPED,
        renews=True,
        patient=True,
    ),
    Action.START: Operation(TaskState.STARTING, (VmState.STOPPED,), VmState.ACTIVE, renews=True, starts=True),
    Action.REBOOT: Operation(
        TaskState.REBOOTING,
        (VmState.ACTIVE, VmState.PAUSED),
        VmState.ACTIVE,
        renews=True,
        patient=True,
        starts=True,
    ),
    Action.PAUSE: Operation(TaskState.PAUSING, (VmState.ACTIVE,), VmState.PAUSED),
    Action.UNPAUSE: Operation(TaskState.UNPAUSING, (VmState.PAUSED,), VmState.ACTIVE),
    Action.SUSPEND: Operation(TaskState.SUSPENDING, (VmState.ACTIVE,), VmState.SUSPENDED),
    Action.RESUME: Operation(TaskState.RESUMING, (VmState.SUSPENDED,), VmState.ACTIVE, renews=True),
    Action.REBUILD: Operation(
        TaskState.REBUILDING,
        (VmState.ACTIVE, VmState.PAUSED, VmState.STOPPED),
        VmState.ACTIVE,
        renews=True,
        starts=True,
        told=True,
    ),
    Action.RESCUE: Operation(
        TaskState.RESCUING,
        (VmState.ACTIVE, VmState.PAUSED, VmState.STOPPED),
        VmState.RESCUED,
        renews=True,
        starts=True,
        told=True,
    ),
    Action.UNRESCUE: Operation(TaskState.UNRESCUING, (VmState.RESCUED,), VmState.ACTIVE, renews=True, starts=True),
    Action.SNAPSHOT: Operation(
        TaskState.IMAGE_SNAPSHOT,
        (VmState.ACTIVE, VmState.PAUSED, VmState.STOPPED, VmState.SUSPENDED),
        None,
        told=True,
    ),
}
PLAIN = {action: operation for action, operation in OPERATIONS.items() if not operation.told}
BY_TASK = {operation.task: operation for operation in OPERATIONS.values()}
AWAKE = frozenset({VmState.ACTIVE, VmState.RESCUED})
"""Its guest runs."""
RUNNING = AWAKE | {VmState.PAUSED}
"""There is a machine, and it has memory."""
AT_REST = RUNNING | {VmState.STOPPED, VmState.SUSPENDED}
"""It has its host, its disk, its address and its filters; all of these count against the host and the quota."""


def possible(state: VmState) -> list[Action]:
    """What may be asked for in this state, when nothing else is under way."""
    return [action for action, operation in OPERATIONS.items() if state in operation.allowed]
