"""Network v2.0's floating IPs."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Annotated, Any

from launcher.accounts import UserRole
from launcher.bus import Bus
from launcher.errors import BadRequest, NotFound
from launcher.floating import FloatingIp
from launcher.messages.floating_ips import (
    AllocateFloatingIp,
    AssociateFloatingIp,
    DisassociateFloatingIp,
    ListFloatingIps,
    ListFloatingPools,
    ReleaseFloatingIp,
)
from launcher.models import Model
from launcher.services.api.openstack import ids
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply
from launcher.services.api.openstack.network_ports import Held, find, held
from launcher.services.api.openstack.network_shapes import PLAIN, of_pool
from launcher.services.api.openstack.neutron import V2, listed, shown, the_one
from launcher.services.api.openstack.versions import Refused

FILTERS = ("id", "floating_ip_address", "floating_network_id", "fixed_ip_address", "port_id", "status", "router_id")
FILTERS_TOO = ("tenant_id", "project_id", "description")


class CreateFields(Model):
    floating_network_id: str
    floating_ip_address: IPv4Address | None = None
    port_id: str | None = None
    fixed_ip_address: IPv4Address | None = None
    subnet_id: Annotated[Any, Refused("a pool has one range")] = None
    description: Annotated[Any, Refused("floating IPs have none")] = None
    qos_policy_id: Annotated[Any, Refused("there are no QoS policies")] = None
    dns_name: Annotated[Any, Refused("floating IPs have no names")] = None
    dns_domain: Annotated[Any, Refused("floating IPs have no names")] = None
    tenant_id: str | None = None
    project_id: str | None = None


class CreateRequest(Model):
    """POST /floatingips."""

    floatingip: CreateFields


class UpdateFields(Model):
    port_id: str | None = None
    fixed_ip_address: IPv4Address | None = None
    description: Annotated[Any, Refused("floating IPs have none")] = None


class UpdateRequest(Model):
    """PUT /floatingips/{id}."""

    floatingip: UpdateFields


class Addresses:
    """A part of Networking."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        every, one, needs = f"{V2}/floatingips", f"{V2}/floatingips/{{id}}", UserRole.MEMBER
        return [
            Operation("GET", every, self.list_floating_ips, queries=("*",)),
            Operation("POST", every, self.create_floating_ip, status=201, body=CreateRequest, needs=needs),
            Operation("GET", one, self.get_floating_ip, queries=("fields",)),
            Operation("PUT", one, self.update_floating_ip, body=UpdateRequest, needs=needs),
            Operation("DELETE", one, self.delete_floating_ip, status=204, needs=needs),
        ]

    async def list_floating_ips(self, ask: Ask) -> Reply:
        return listed(ask, "floatingips", await self._told(ask), filters=(*FILTERS, *FILTERS_TOO))

    async def get_floating_ip(self, ask: Ask) -> Reply:
        return shown(ask, "floatingip", the_one(ask, "Floating IP", await self._told(ask)))

    async def create_floating_ip(self, ask: Ask) -> Reply:
        given: CreateFields = ask.body.floatingip
        pools = {of_pool(each.name): each.name for each in await self.bus.call(ask.ctx, ListFloatingPools())}
        if given.floating_network_id not in pools:
            raise BadRequest(f"Network {given.floating_network_id} is not a valid external network")
        port = None if given.port_id is None else await find(self.bus, ask, given.port_id)
        wanted = AllocateFloatingIp(pool=pools[given.floating_network_id], address=given.floating_ip_address)
        made = await self.bus.call(ask.ctx, wanted)
        if port is not None:
            made = await self._associate(ask, made, port, given.fixed_ip_address)
        return Reply({"floatingip": _floating(made, [] if port is None else [port])})

    async def update_floating_ip(self, ask: Ask) -> Reply:
        """A port that is null lets it lead nowhere."""
        given, found = ask.body.floatingip, await self._the_floating(ask)
        if given.port_id is not None:
            await self._associate(ask, found, await find(self.bus, ask, given.port_id), given.fixed_ip_address)
        elif "port_id" in given.model_fields_set:
            await self.bus.call(ask.ctx, DisassociateFloatingIp(address=found.address))
        return await self.get_floating_ip(ask)

    async def delete_floating_ip(self, ask: Ask) -> Reply:
        """Also one that leads somewhere."""
        found = await self._the_floating(ask)
        if found.instance_id is not None:
            await self.bus.call(ask.ctx, DisassociateFloatingIp(address=found.address))
        await self.bus.call(ask.ctx, ReleaseFloatingIp(address=found.address))
        return Reply()

    async def _associate(self, ask: Ask, found: FloatingIp, port: Held, fixed: IPv4Address | None) -> FloatingIp:
        if fixed is not None and fixed != port.nic.address:
            raise BadRequest(f"Port {ids.of_port(port.instance, port.nic)} does not have fixed ip {fixed}")
        wanted = AssociateFloatingIp(
            address=found.address, instance=port.instance.id, fixed=port.nic.address, reassociate=True
        )
        return await self.bus.call(ask.ctx, wanted)

    async def _told(self, ask: Ask) -> list[Json]:
        ports = await held(self.bus, ask)
        return [_floating(each, ports) for each in await self.bus.call(ask.ctx, ListFloatingIps())]

    async def _the_floating(self, ask: Ask) -> FloatingIp:
        for each in await self.bus.call(ask.ctx, ListFloatingIps()):
            if ids.uuid_of("floating", each.address) == ask.path["id"]:
                return each
        raise NotFound(f"Floating IP {ask.path['id']} could not be found")


def _floating(each: FloatingIp, ports: Sequence[Held]) -> Json:
    port = next((one for one in ports if (one.instance.id, one.nic.address) == (each.instance_id, each.fixed)), None)
    return {
        "id": ids.uuid_of("floating", each.address),
        "floating_ip_address": str(each.address),
        "floating_network_id": of_pool(each.pool),
        "fixed_ip_address": str(each.fixed) if each.fixed else None,
        "port_id": ids.of_port(port.instance, port.nic) if port else None,
        "router_id": ids.uuid_of("router", port.network.id) if port else None,
        "status": "ACTIVE" if each.instance_id else "DOWN",
        "tenant_id": each.project_id,
        "project_id": each.project_id,
        "port_details": None,
        "qos_policy_id": None,
        "dns_name": "",
        "dns_domain": "",
        **PLAIN,
    }
