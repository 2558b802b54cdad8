"""The native dialect's networks; it translates and decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from launcher.addresses import AddressText, CidrText, PrefixText
from launcher.bus import Bus
from launcher.errors import Conflict, Forbidden, NoMoreFixedIps, NotFound
from launcher.messages.network import CreateNetwork, DeleteNetwork, ListNetworks
from launcher.models import Model, Name
from launcher.networks import SEGMENTS, BridgeName, Network
from launcher.services.api.endpoint import Answer, Ask, Endpoint


class NetworkBody(Model):
    """POST /networks. Without a project it is everybody's; what is left out is chosen."""

    name: Name
    cidr: CidrText
    project_id: str | None = Field(default=None, min_length=1, max_length=255)
    gateway: AddressText | None = Field(default=None, description="the first address")
    bridge: BridgeName | None = None
    segment: int | None = Field(default=None, ge=SEGMENTS[0], le=SEGMENTS[1], description="mode vlan: VLAN id or VNI")
    cidr6: PrefixText | None = Field(default=None, description="a /64 for SLAAC")
    dns: tuple[AddressText, ...] | None = Field(default=None, max_length=4)


class NetworkList(Model):
    networks: list[Network]


class NativeNetworks:
    """Answered by the network role, without the controller."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        one = "/networks/{id}"
        return [
            Endpoint(
                "POST",
                "/networks",
                self.create_network,
                "Make a network (administrators)",
                status=201,
                body=NetworkBody,
                response=Network,
                raises=(Forbidden, Conflict, NoMoreFixedIps),
            ),
            Endpoint("GET", "/networks", self.list_networks, "List networks", response=NetworkList),
            Endpoint("GET", one, self.get_network, "Show a network", response=Network, raises=(Conflict,)),
            Endpoint(
                "DELETE",
                one,
                self.delete_network,
                "Delete a network nobody is in (administrators)",
                status=204,
                raises=(Forbidden, Conflict),
            ),
        ]

    async def create_network(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, CreateNetwork(**ask.body.model_dump())))

    async def list_networks(self, ask: Ask) -> Answer:
        return Answer(NetworkList(networks=await self.bus.call(ask.ctx, ListNetworks())))

    async def get_network(self, ask: Ask) -> Answer:
        wanted = ask.path["id"]
        known = await self.bus.call(ask.ctx, ListNetworks())
        found = [each for each in known if wanted in (each.name, str(each.id))]
        if not found:
            raise NotFound(f"there is no network {wanted!r}", hint="see `launcher network list`")
        return Answer(min(found, key=lambda each: (each.project_id != ask.ctx.project_id, each.name != wanted)))

    async def delete_network(self, ask: Ask) -> Answer:
        await self.bus.call(ask.ctx, DeleteNetwork(network=ask.path["id"]))
        return Answer()
