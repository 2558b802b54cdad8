"""Compute v2.1's hosts: zones, hypervisors, services; and what there is none of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from launcher.bus import Bus
from launcher.errors import NotFound
from launcher.messages.catalogue import ListHosts
from launcher.models import HostState
from launcher.services.api.openstack import ids, nova
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, refused
from launcher.services.api.openstack.versions import Version, shaped, since

UUIDS = Version(2, 53)
"""From here on hypervisors and services have UUIDs."""
SERVICE = {"forced_down": since(11)}
STATISTICS = ("vcpus", "memory_mb", "local_gb", "vcpus_used", "memory_mb_used", "local_gb_used")
STATISTICS_TOO = ("free_ram_mb", "free_disk_gb", "current_workload", "running_vms", "disk_available_least")
ITSELF = "a host is up as long as its heartbeat comes; nobody takes it down by a word"
NO_GROUPS = "there are no server groups: the scheduler knows no affinity"


class Hosts:
    """A part of Compute. All but the zones' names is an administrator's to see."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        machines = "/v2.1/os-hypervisors"
        paged = {name: since(33) for name in ("limit", "marker")}
        paged |= {name: since(53) for name in ("hypervisor_hostname_pattern", "with_servers")}
        return [
            Operation("GET", "/v2.1/os-availability-zone", self.list_zones),
            Operation("GET", "/v2.1/os-availability-zone/detail", self.list_zone_details),
            Operation("GET", machines, self.list_hypervisors, aged=paged),
            Operation("GET", f"{machines}/detail", self.list_hypervisor_details, aged=paged),
            Operation("GET", f"{machines}/statistics", self.get_statistics),
            Operation("GET", f"{machines}/{{id}}", self.get_hypervisor, aged={"with_servers": since(53)}),
            Operation("GET", "/v2.1/os-services", self.list_services, queries=("host", "binary")),
            refused("PUT", "/v2.1/os-services/{id}", ITSELF),
            refused("DELETE", "/v2.1/os-services/{id}", ITSELF),
            *self._nothing(),
        ]

    def _nothing(self) -> Sequence[Operation]:
        groups = "/v2.1/os-server-groups"
        return [
            Operation("GET", groups, _empty("server_groups"), queries=("all_projects", "limit", "offset")),
            refused("POST", groups, NO_GROUPS, status=403),
            Operation("GET", "/v2.1/os-migrations", _empty("migrations"), queries=("*",)),
            Operation("GET", "/v2.1/os-aggregates", _empty("aggregates")),
            refused("POST", "/v2.1/os-aggregates", "hosts say their zone themselves ([host] availability_zone)"),
            Operation("GET", "/v2.1/extensions", _empty("extensions")),
        ]

    async def list_zones(self, ask: Ask) -> Reply:
        hosts = await self.bus.call(ask.ctx, ListHosts())
        names = sorted({each.availability_zone for each in hosts})
        return Reply({"availabilityZoneInfo": [_zone(name, None) for name in names]})

    async def list_zone_details(self, ask: Ask) -> Reply:
        nova.only_admins(ask, "os-availability-zone:detail")
        zones: dict[str, Json] = {}
        for host in await self.bus.call(ask.ctx, ListHosts()):
            service = {"available": True, "active": True, "updated_at": nova.moment(host.seen_ms)}
            zones.setdefault(host.availability_zone, {})[host.name] = {"nova-compute": service}
        return Reply({"availabilityZoneInfo": [_zone(name, hosts) for name, hosts in sorted(zones.items())]})

    async def list_hypervisors(self, ask: Ask) -> Reply:
        short = ("id", "hypervisor_hostname", "state", "status")
        found = [{name: each[name] for name in short} for each in await self._hypervisors(ask)]
        return Reply({"hypervisors": found})

    async def list_hypervisor_details(self, ask: Ask) -> Reply:
        return Reply({"hypervisors": await self._hypervisors(ask)})

    async def get_hypervisor(self, ask: Ask) -> Reply:
        for each in await self._hypervisors(ask):
            if str(each["id"]) == ask.path["id"]:
                return Reply({"hypervisor": {**each, "uptime": None}})
        raise NotFound(f"Compute host {ask.path['id']} could not be found.")

    async def get_statistics(self, ask: Ask) -> Reply:
        found = await self._hypervisors(ask)
        sums = {name: sum(each[name] or 0 for each in found) for name in (*STATISTICS, *STATISTICS_TOO)}
        return Reply({"hypervisor_statistics": {"count": len(found), **sums}})

    async def _hypervisors(self, ask: Ask) -> list[Json]:
        nova.only_admins(ask, "os-hypervisors:list")
        hosts = await self.bus.call(ask.ctx, ListHosts())
        pattern = ask.query.get("hypervisor_hostname_pattern", "")
        found = [_hypervisor(ask, place, host) for place, host in enumerate(hosts, 1) if pattern in host.name]
        return nova.page(ask, found)

    async def list_services(self, ask: Ask) -> Reply:
        nova.only_admins(ask, "os-services:list")
        hosts, query = await self.bus.call(ask.ctx, ListHosts()), ask.query
        told = [
            _service(ask, place, host)
            for place, host in enumerate(hosts, 1)
            if query.get("host", host.name) == host.name and query.get("binary", "nova-compute") == "nova-compute"
        ]
        return Reply({"services": told})


def _empty(kind: str) -> Callable[[Ask], Awaitable[Reply]]:
    async def nothing(ask: Ask) -> Reply:
        return Reply({kind: []})

    return nothing


def _zone(name: str, hosts: Json | None) -> Json:
    return {"zoneName": name, "zoneState": {"available": True}, "hosts": hosts}


def _id(ask: Ask, kind: str, place: int, host: HostState) -> str | int:
    return ids.uuid_of(kind, host.name) if ask.version >= UUIDS else place


def _hypervisor(ask: Ask, place: int, host: HostState) -> Json:
    """What is told of disks is what is free; the rest of them is nobody's to count here."""
    free_gb = host.disk_free_mb // 1024
    return {
        "id": _id(ask, "hypervisor", place, host),
        "hypervisor_hostname": host.name,
        "state": "up",
        "status": "enabled",
        "host_ip": None,
        "vcpus": host.vcpus,
        "vcpus_used": host.vcpus_used,
        "memory_mb": host.memory_mb,
        "memory_mb_used": host.memory_used_mb,
        "free_ram_mb": host.memory_mb - host.memory_used_mb,
        "local_gb": free_gb,
        "local_gb_used": 0,
        "free_disk_gb": free_gb,
        "disk_available_least": free_gb,
        "current_workload": 0,
        "running_vms": host.running,
        "hypervisor_type": "QEMU",
        "hypervisor_version": 0,
        "cpu_info": {} if ask.version >= Version(2, 28) else "",
        "service": {"id": _id(ask, "service", place, host), "host": host.name, "disabled_reason": None},
    }


def _service(ask: Ask, place: int, host: HostState) -> Json:
    whole = {
        "id": _id(ask, "service", place, host),
        "binary": "nova-compute",
        "host": host.name,
        "zone": host.availability_zone,
        "status": "enabled",
        "state": "up",
        "updated_at": nova.precise(host.seen_ms),
        "disabled_reason": None,
        "forced_down": False,
    }
    return shaped(SERVICE, ask.version, whole)
