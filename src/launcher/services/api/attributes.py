"""The native dialect's changes of an instance beside its state; it translates and decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from launcher.bus import Bus
from launcher.errors import Conflict, Forbidden, QuotaExceeded
from launcher.messages.attributes import LockInstance, ModifyInstance
from launcher.models import Instance, Model, Name, ShutdownBehaviour
from launcher.services.api.endpoint import Answer, Ask, Endpoint

BASE64 = r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


class AttributesBody(Model):
    """PATCH /instances/{id}: what is left out stays as it is."""

    name: Name | None = None
    flavor: str | None = Field(default=None, min_length=1, max_length=255, description="of a stopped instance")
    user_data: str | None = Field(
        default=None, max_length=100_000, pattern=BASE64, description="base64; of a stopped instance"
    )
    shutdown_behaviour: ShutdownBehaviour | None = None
    protected: bool | None = Field(default=None, description="a delete is refused until this is taken back")


class NativeAttributes:
    """All answered by the controller."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        one = "/instances/{id}"
        return [
            Endpoint(
                "PATCH",
                one,
                self.modify_instance,
                "Change attributes, resize",
                body=AttributesBody,
                response=Instance,
                raises=(Conflict, QuotaExceeded),
                traced=True,
            ),
            Endpoint(
                "PUT", f"{one}/lock", self.lock, "Keep others from it", response=Instance, raises=(Conflict, Forbidden)
            ),
            Endpoint(
                "DELETE",
                f"{one}/lock",
                self.unlock,
                "Let others at it",
                response=Instance,
                raises=(Conflict, Forbidden),
            ),
        ]

    async def modify_instance(self, ask: Ask) -> Answer:
        wanted = ModifyInstance(instance_id=ask.path["id"], **ask.body.model_dump())
        return Answer(await self.bus.call(ask.ctx, wanted))

    async def lock(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, LockInstance(instance_id=ask.path["id"], locked=True)))

    async def unlock(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, LockInstance(instance_id=ask.path["id"], locked=False)))
