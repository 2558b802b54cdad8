"""Network v2.0, put together: versions, networks, subnets, routers, quotas, extensions; and its other parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from launcher.bus import Bus
from launcher.errors import LauncherError, NotFound
from launcher.messages.accounts import GetQuotas, SetQuotas
from launcher.messages.catalogue import ListHosts
from launcher.messages.floating_ips import ListFloatingIps, ListFloatingPools
from launcher.messages.network import DeleteNetwork, ListNetworks
from launcher.messages.security_groups import ListSecurityGroups
from launcher.models import Model, Quotas
from launcher.services.api.openstack import neutron
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, Settled, refused
from launcher.services.api.openstack.network_addresses import Addresses
from launcher.services.api.openstack.network_groups import Groups
from launcher.services.api.openstack.network_ports import Ports
from launcher.services.api.openstack.network_shapes import network, pool, pool_subnet, router, subnets
from launcher.services.api.openstack.neutron import V2, listed, shown, the_one
from launcher.services.api.openstack.versions import Refused

EXTENSIONS = {
    "security-group": "Security groups",
    "router": "Routers, to read",
    "external-net": "Pools of floating IPs as networks",
    "quotas": "Quotas",
    "quota_details": "Quotas and what is in use",
    "availability_zone": "Availability zones",
    "agent": "Agents, of which there are none",
    "filter-validation": "Unknown filters are refused",
    "pagination": "Pages",
    "sorting": "Sorting",
    "binding": "Where a port is",
    "provider": "What carries a network",
}
WHOLE = "a network has its range from the start: `launcher network create NAME CIDR`"
ROUTERS = "each network has its gateway; there are no others"
QUOTAS = {
    "floatingip": "floating_ips",
    "security_group": "security_groups",
    "security_group_rule": "security_group_rules",
}
UNLIMITED = ("network", "subnet", "port", "router", "subnetpool", "rbac_policy", "trunk")
NETWORK_FILTERS = ("id", "name", "status", "tenant_id", "project_id", "shared", "router:external", "admin_state_up")
SUBNET_FILTERS = (
    "id",
    "name",
    "network_id",
    "cidr",
    "ip_version",
    "gateway_ip",
    "tenant_id",
    "project_id",
    "enable_dhcp",
)
Limit = Annotated[int, Field(ge=0, le=2**31 - 1)]


class QuotaFields(Model):
    floatingip: Limit | None = None
    security_group: Limit | None = None
    security_group_rule: Limit | None = None
    network: Annotated[Any, Refused("this is no quota here")] = None
    subnet: Annotated[Any, Refused("this is no quota here")] = None
    port: Annotated[Any, Refused("this is no quota here")] = None
    router: Annotated[Any, Refused("this is no quota here")] = None


class QuotaRequest(Model):
    """PUT /quotas/{project}."""

    quota: QuotaFields


class Networking:
    """Neutron's part."""

    type, name, prefix, endpoint, unscoped = "network", "neutron", neutron.PREFIX, neutron.PREFIX, False

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus
        self.parts = (Ports(bus=bus), Groups(bus=bus), Addresses(bus=bus))

    @property
    def operations(self) -> Sequence[Operation]:
        return [
            Operation("GET", "", self.list_versions, public=True),
            Operation("GET", V2, self.list_resources, public=True),
            *self._networks(),
            *self._routers(),
            *self._quotas(),
            *self._about(),
            *(each for part in self.parts for each in part.operations),
        ]

    def settle(self, request: web.Request) -> Settled:
        return Settled()

    def refusal(self, error: LauncherError) -> tuple[int, Json]:
        return neutron.refusal(error)

    def _networks(self) -> Sequence[Operation]:
        networks, subnets = f"{V2}/networks", f"{V2}/subnets"
        return [
            Operation("GET", networks, self.list_networks, queries=("*",)),
            Operation("GET", f"{networks}/{{id}}", self.get_network, queries=("fields",)),
            Operation("DELETE", f"{networks}/{{id}}", self.delete_network, status=204),
            refused("POST", networks, WHOLE),
            refused("PUT", f"{networks}/{{id}}", "a network stays as it was made"),
            Operation("GET", subnets, self.list_subnets, queries=("*",)),
            Operation("GET", f"{subnets}/{{id}}", self.get_subnet, queries=("fields",)),
            refused("POST", subnets, WHOLE),
            refused("PUT", f"{subnets}/{{id}}", "a network stays as it was made"),
            refused("DELETE", f"{subnets}/{{id}}", "a network's range goes with it"),
        ]

    def _routers(self) -> Sequence[Operation]:
        routers = f"{V2}/routers"
        return [
            Operation("GET", routers, self.list_routers, queries=("*",)),
            Operation("GET", f"{routers}/{{id}}", self.get_router, queries=("fields",)),
            refused("POST", routers, ROUTERS),
            refused("PUT", f"{routers}/{{id}}", ROUTERS),
            refused("DELETE", f"{routers}/{{id}}", ROUTERS),
            refused("PUT", f"{routers}/{{id}}/add_router_interface", ROUTERS),
            refused("PUT", f"{routers}/{{id}}/remove_router_interface", ROUTERS),
        ]

    def _quotas(self) -> Sequence[Operation]:
        one = f"{V2}/quotas/{{project}}"
        return [
            Operation("GET", one, self.get_quota),
            Operation("GET", f"{one}/default", self.get_default_quota),
            Operation("GET", f"{one}/details", self.get_quota_details),
            Operation("GET", f"{one}/details.json", self.get_quota_details),
            Operation("PUT", one, self.set_quota, body=QuotaRequest),
            refused("DELETE", one, "`launcher project quota` and DELETE /os-quota-sets put back all of them"),
        ]

    def _about(self) -> Sequence[Operation]:
        return [
            Operation("GET", f"{V2}/extensions", self.list_extensions, queries=("*",)),
            Operation("GET", f"{V2}/extensions/{{alias}}", self.get_extension),
            Operation("GET", f"{V2}/agents", _empty("agents"), queries=("*",)),
            Operation("GET", f"{V2}/availability_zones", self.list_zones, queries=("*",)),
            Operation("GET", f"{V2}/subnetpools", _empty("subnetpools"), queries=("*",)),
            Operation("GET", f"{V2}/address-groups", _empty("address_groups"), queries=("*",)),
        ]

    # --- versions, extensions, zones ---------------------------------------------------------------------------

    async def list_versions(self, ask: Ask) -> Reply:
        link = {"rel": "self", "href": f"{ask.base}{neutron.PREFIX}{V2}/"}
        return Reply({"versions": [{"id": "v2.0", "status": "CURRENT", "links": [link]}]})

    async def list_resources(self, ask: Ask) -> Reply:
        names = ("networks", "subnets", "ports", "routers", "floatingips", "security_groups", "security_group_rules")
        links = {name: [{"rel": "self", "href": f"{ask.base}{neutron.PREFIX}{V2}/{name}"}] for name in names}
        told = [{"name": name.removesuffix("s"), "collection": name, "links": links[name]} for name in names]
        return Reply({"resources": told})

    async def list_extensions(self, ask: Ask) -> Reply:
        return Reply({"extensions": [_extension(alias) for alias in EXTENSIONS]})

    async def get_extension(self, ask: Ask) -> Reply:
        if ask.path["alias"] not in EXTENSIONS:
            raise NotFound(f"Extension with alias {ask.path['alias']} does not exist")
        return Reply({"extension": _extension(ask.path["alias"])})

    async def list_zones(self, ask: Ask) -> Reply:
        names = sorted({each.availability_zone for each in await self.bus.call(ask.ctx, ListHosts())})
        told = [{"name": name, "resource": "network", "state": "available"} for name in names]
        return listed(ask, "availability_zones", told, filters=("name", "resource", "state"))

    # --- networks, subnets, routers ---------------------------------------------------------------------------

    async def list_networks(self, ask: Ask) -> Reply:
        return listed(ask, "networks", await self._all_networks(ask), filters=NETWORK_FILTERS)

    async def get_network(self, ask: Ask) -> Reply:
        return shown(ask, "network", the_one(ask, "Network", await self._all_networks(ask)))

    async def delete_network(self, ask: Ask) -> Reply:
        """Those of floating IPs are the settings'."""
        for each in await self.bus.call(ask.ctx, ListNetworks()):
            if network(ask, each)["id"] == ask.path["id"]:
                await self.bus.call(ask.ctx, DeleteNetwork(network=str(each.id)))
                return Reply()
        raise NotFound(f"Network {ask.path['id']} could not be found.")

    async def _all_networks(self, ask: Ask) -> list[Json]:
        inner = await self.bus.call(ask.ctx, ListNetworks())
        outer = await self.bus.call(ask.ctx, ListFloatingPools())
        return [*(network(ask, each) for each in inner), *(pool(each) for each in outer)]

    async def list_subnets(self, ask: Ask) -> Reply:
        return listed(ask, "subnets", await self._all_subnets(ask), filters=SUBNET_FILTERS)

    async def get_subnet(self, ask: Ask) -> Reply:
        return shown(ask, "subnet", the_one(ask, "Subnet", await self._all_subnets(ask)))

    async def _all_subnets(self, ask: Ask) -> list[Json]:
        inner = await self.bus.call(ask.ctx, ListNetworks())
        outer = await self.bus.call(ask.ctx, ListFloatingPools())
        return [*(told for each in inner for told in subnets(each)), *(pool_subnet(each) for each in outer)]

    async def list_routers(self, ask: Ask) -> Reply:
        filters = ("id", "name", "status", "tenant_id", "project_id", "admin_state_up")
        return listed(ask, "routers", await self._all_routers(ask), filters=filters)

    async def get_router(self, ask: Ask) -> Reply:
        return shown(ask, "router", the_one(ask, "Router", await self._all_routers(ask)))

    async def _all_routers(self, ask: Ask) -> list[Json]:
        pools = await self.bus.call(ask.ctx, ListFloatingPools())
        return [router(each, pools) for each in await self.bus.call(ask.ctx, ListNetworks())]

    # --- quotas ------------------------------------------------------------------------------------------------

    async def get_quota(self, ask: Ask) -> Reply:
        return Reply({"quota": _quota(await self.bus.call(ask.ctx, GetQuotas(project=ask.path["project"])))})

    async def get_default_quota(self, ask: Ask) -> Reply:
        message = GetQuotas(project=ask.path["project"], usual=True)
        return Reply({"quota": _quota(await self.bus.call(ask.ctx, message))})

    async def get_quota_details(self, ask: Ask) -> Reply:
        """What is in use is told of the project that is asked in."""
        limits = _quota(await self.bus.call(ask.ctx, GetQuotas(project=ask.path["project"])))
        used = await self._used(ask) if ask.path["project"] == ask.ctx.project_id else {}
        told = {name: {"limit": limit, "used": used.get(name, 0), "reserved": 0} for name, limit in limits.items()}
        return Reply({"quota": told})

    async def set_quota(self, ask: Ask) -> Reply:
        given = ask.body.quota.model_dump(exclude_none=True)
        wanted = {QUOTAS[name]: value for name, value in given.items()}
        return Reply(
            {"quota": _quota(await self.bus.call(ask.ctx, SetQuotas(project=ask.path["project"], quotas=wanted)))}
        )

    async def _used(self, ask: Ask) -> Json:
        floating = await self.bus.call(ask.ctx, ListFloatingIps())
        groups = await self.bus.call(ask.ctx, ListSecurityGroups())
        return {
            "floatingip": len([each for each in floating if each.project_id == ask.ctx.project_id]),
            "security_group": len(groups),
            "security_group_rule": sum(len(each.rules) for each in groups),
        }


def _empty(kind: str) -> Callable[[Ask], Awaitable[Reply]]:
    async def nothing(ask: Ask) -> Reply:
        return Reply({kind: []})

    return nothing


def _extension(alias: str) -> Json:
    about = EXTENSIONS[alias]
    return {"alias": alias, "name": about, "description": about, "updated": "2013-01-01T00:00:00-00:00", "links": []}


def _quota(quotas: Quotas) -> Json:
    own = {name: getattr(quotas, ours) for name, ours in QUOTAS.items()}
    return dict.fromkeys(UNLIMITED, -1) | own
