"""The native dialect's verbs on an instance between its launch and its end; it translates and decides nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from pydantic import Field

from launcher.bus import Bus
from launcher.errors import Conflict
from launcher.images import ImageName
from launcher.life import PLAIN, Action
from launcher.messages.life import LONGEST_PATIENCE, ActOnInstance, RebuildInstance, RescueInstance
from launcher.models import Instance, Model
from launcher.services.api.endpoint import Answer, Ask, Endpoint

SUMMARIES = {
    Action.STOP: "End its machine; its disk and its address stay",
    Action.START: "Start a stopped instance",
    Action.REBOOT: "Shut it down and start it again",
    Action.PAUSE: "Stop its processors",
    Action.UNPAUSE: "Let its processors run again",
    Action.SUSPEND: "Write its memory to a file and end its machine",
    Action.RESUME: "Go on with a suspended instance",
    Action.UNRESCUE: "Boot a rescued instance from its own root again",
}


class ShutdownBody(Model):
    """POST /instances/{id}/stop and …/reboot: how the guest is made to end."""

    force: bool = Field(default=False, description="do not ask the guest, or do not wait for it any more")
    timeout_s: float | None = Field(
        default=None, ge=0, le=LONGEST_PATIENCE, description="seconds that the guest may take; else as in the settings"
    )


class RebuildBody(Model):
    """POST /instances/{id}/rebuild: without an image the one that it has."""

    image: ImageName | None = None
    key_name: str | None = Field(default=None, min_length=1, max_length=255, description="else the key stays")


class RescueBody(Model):
    """POST /instances/{id}/rescue: without an image the one that it was made of."""

    image: ImageName | None = None


class NativeLife:
    """One endpoint for each action."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        return [
            Endpoint(
                "POST",
                f"/instances/{{id}}/{action}",
                self._act(action),
                SUMMARIES[action],
                status=202,
                body=ShutdownBody if operation.patient else None,
                response=Instance,
                raises=(Conflict,),
                traced=True,
            )
            for action, operation in PLAIN.items()
        ] + [
            Endpoint(
                "POST",
                f"/instances/{{id}}/{name}",
                act,
                summary,
                status=202,
                body=body,
                response=Instance,
                raises=(Conflict,),
                traced=True,
            )
            for name, act, summary, body in (
                ("rebuild", self.rebuild, "Make its disks anew; addresses and volumes stay", RebuildBody),
                ("rescue", self.rescue, "Boot it from another root, its own beside that", RescueBody),
            )
        ]

    async def rebuild(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, RebuildInstance(instance_id=ask.path["id"], **dict(ask.body))))

    async def rescue(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, RescueInstance(instance_id=ask.path["id"], **dict(ask.body))))

    def _act(self, action: Action) -> Callable[[Ask], Awaitable[Answer]]:
        async def act(ask: Ask) -> Answer:
            wanted = ActOnInstance(
                instance_id=ask.path["id"], action=action, **(ask.body.model_dump() if ask.body else {})
            )
            return Answer(await self.bus.call(ask.ctx, wanted))

        act.__name__ = action.value
        return act
