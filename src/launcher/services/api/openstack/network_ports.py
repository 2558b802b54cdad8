"""Network v2.0's ports: the NICs of instances. They come with an instance and go with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from launcher.accounts import UserRole
from launcher.bus import Bus
from launcher.errors import BadRequest, NotFound
from launcher.messages.network import ListNetworks
from launcher.messages.security_groups import ListSecurityGroups, SetInstanceGroups
from launcher.models import Instance, Model, Nic
from launcher.networks import Network
from launcher.services.api.openstack import ids
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, refused
from launcher.services.api.openstack.network_shapes import port
from launcher.services.api.openstack.neutron import V2, instances, listed, shown
from launcher.services.api.openstack.versions import Refused

FILTERS = ("id", "name", "network_id", "device_id", "device_owner", "mac_address", "fixed_ips", "status")
FILTERS_TOO = ("tenant_id", "project_id", "security_groups", "admin_state_up", "binding:host_id")
LAUNCHS = "a port comes with its server: name the network at its creation"


class Held(NamedTuple):
    """A NIC, whose it is and where."""

    instance: Instance
    nic: Nic
    network: Network


class PortFields(Model):
    security_groups: list[str] | None = Field(default=None, max_length=1000)
    name: Annotated[Any, Refused("ports have none")] = None
    description: Annotated[Any, Refused("ports have none")] = None
    fixed_ips: Annotated[Any, Refused("an address stays with its port")] = None
    allowed_address_pairs: Annotated[Any, Refused("a port sends from its own addresses")] = None


class PortRequest(Model):
    """PUT /ports/{id}."""

    port: PortFields


class Ports:
    """A part of Networking."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        every, one = f"{V2}/ports", f"{V2}/ports/{{id}}"
        groups = "a port's groups are those of its server, of all its ports"
        return [
            Operation("GET", every, self.list_ports, queries=("*",)),
            Operation("GET", one, self.get_port, queries=("fields",)),
            Operation("PUT", one, self.update_port, body=PortRequest, why=groups, needs=UserRole.MEMBER),
            refused("POST", every, LAUNCHS),
            refused("DELETE", one, LAUNCHS),
        ]

    async def list_ports(self, ask: Ask) -> Reply:
        groups = await self._groups(ask)
        told = [_port(ask, each, groups) for each in await held(self.bus, ask)]
        return listed(ask, "ports", told, filters=(*FILTERS, *FILTERS_TOO))

    async def get_port(self, ask: Ask) -> Reply:
        found = await find(self.bus, ask, ask.path["id"])
        return shown(ask, "port", _port(ask, found, await self._groups(ask)))

    async def update_port(self, ask: Ask) -> Reply:
        found, wanted = await find(self.bus, ask, ask.path["id"]), ask.body.port.security_groups
        if wanted is not None:
            names = {group: name for name, group in (await self._groups(ask)).items()}
            unknown = [each for each in wanted if each not in names]
            if unknown:
                raise BadRequest(f"Security group {unknown[0]} does not exist", field="security_groups")
            groups = tuple(names[each] for each in wanted)
            await self.bus.call(ask.ctx, SetInstanceGroups(instance_id=found.instance.id, groups=groups))
        return await self.get_port(ask)

    async def _groups(self, ask: Ask) -> dict[str, str]:
        """Ids by names, of the project that is asked in."""
        found = await self.bus.call(ask.ctx, ListSecurityGroups())
        return {each.name: ids.uuid_of("group", each.id) for each in found}


async def held(bus: Bus, ask: Ask) -> list[Held]:
    """All NICs that are seen."""
    networks = {each.name: each for each in await bus.call(ask.ctx, ListNetworks())}
    return [
        Held(instance, nic, networks[nic.network])
        for instance in await instances(bus, ask)
        for nic in instance.nics
        if nic.network in networks
    ]


async def find(bus: Bus, ask: Ask, port_id: str) -> Held:
    """Raises NotFound."""
    for each in await held(bus, ask):
        if ids.of_port(each.instance, each.nic) == port_id:
            return each
    raise NotFound(f"Port {port_id} could not be found.")


def _port(ask: Ask, each: Held, groups: dict[str, str]) -> Json:
    """Groups of another project's instance are not told."""
    own = each.instance.security_groups if each.instance.project_id == ask.ctx.project_id else ()
    return port(ask, each.instance, each.nic, each.network, [groups[name] for name in own if name in groups])
