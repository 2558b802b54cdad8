"""What a guest sees, for the instance's owner: the same tree, by the API."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from pydantic import Field

from launcher.bus import Bus
from launcher.errors import NotFound
from launcher.guestdata.tree import answer, leaves, split
from launcher.messages.instances import GetInstance
from launcher.models import Model
from launcher.services.api.endpoint import Answer, Ask, Endpoint
from launcher.services.api.metadata.service import Metadata


class MetadataPage(Model):
    """The guest's answer at `path`, and every leaf at or below it by its full path."""

    path: str
    content_type: str
    body: str = Field(description="base64")
    leaves: dict[str, str] = Field(description="as text; what is not UTF-8 is replaced")


class MetadataView:
    def __init__(self, *, bus: Bus, metadata: Metadata) -> None:
        self.bus, self.metadata = bus, metadata

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        return [
            Endpoint(
                "GET",
                "/instances/{id}/metadata-service/{path:.*}",
                self.get_metadata_page,
                "What the guest is told by the metadata service",
                response=MetadataPage,
                raises=(NotFound,),
            )
        ]

    async def get_metadata_page(self, ask: Ask) -> Answer:
        """Whose instance it is, is the controller's to say."""
        instance = await self.bus.call(ask.ctx, GetInstance(instance_id=ask.path["id"]))
        guest = await self.metadata.guests.get(ask.ctx, instance.id)
        path = "/".join(split(ask.path["path"]))
        node = self.metadata.look_up(guest, path)
        sent = answer(node)
        below = {name.lstrip("/"): leaf.body.decode(errors="replace") for name, leaf in leaves(node, path)}
        body = base64.b64encode(sent.body).decode()
        return Answer(MetadataPage(path=path, content_type=sent.content_type, body=body, leaves=below))
