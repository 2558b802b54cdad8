"""What is done to instances between their launch and their end: asked of the controller, told to a host, reported."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from launcher.images import ImageName
from launcher.life import PLAIN, Action
from launcher.messaging import Call, Cast
from launcher.models import Generation, Instance, InstanceId, LaunchOrder, TaskState

LONGEST_PATIENCE = 3600


def _plain(action: Action) -> Action:
    if action not in PLAIN:
        raise ValueError(f"{action} is asked for by a message of its own")
    return action


class ActOnInstance(Call[Instance]):
    """Begin to do it; the answer comes before it is done. Raises WrongState.

    `stop` and `reboot` ask the guest to shut down and force it after `timeout_s` (without one, after what the settings
    say). `force` does not ask, also where the guest was asked before.
    """

    topic = "controller"
    traced = True
    instance_id: str
    action: Annotated[Action, AfterValidator(_plain)]
    force: bool = False
    timeout_s: float | None = Field(default=None, ge=0, le=LONGEST_PATIENCE)


class RebuildInstance(Call[Instance]):
    """Make its root disk, and its ephemeral and swap disks, anew: from `image`, or from the one it has.

    Number, addresses, volumes and host stay; the guest gets its key and the rest again, a new one by `key_name`. It
    runs afterwards, whether it ran before or not. Raises WrongState, NotFound, BadRequest for what does not fit.
    """

    topic = "controller"
    traced = True
    instance_id: str
    image: ImageName | None = None
    key_name: str | None = Field(default=None, min_length=1, max_length=255)


class RescueInstance(Call[Instance]):
    """Boot it from `image`, or from the one it was made of, with its own root as another disk. `unrescue` goes back.

    Its guest is asked to shut down before, as by a stop. Raises WrongState, NotFound, BadRequest.
    """

    topic = "controller"
    traced = True
    instance_id: str
    image: ImageName | None = None


class ChangeInstance(Cast):
    """To the host of an instance: do what its task says, then report it. May be repeated: what is done stays done.

    Until `deadline_ms` a guest that was asked to shut down is waited for.
    """

    topic = "compute"
    traced = True
    order: LaunchOrder
    task: TaskState
    deadline_ms: float


class ReportChanged(Call[None]):
    """The task is done. Raises StaleGeneration when it is not wanted any more."""

    topic = "controller"
    instance_id: InstanceId
    generation: Generation
    host: str
    task: TaskState
