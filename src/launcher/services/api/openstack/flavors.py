"""Compute v2.1's flavors. They are the settings': an id is a name, and none can be made."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.bus import Bus
from launcher.errors import NotFound
from launcher.messages.catalogue import ListFlavors
from launcher.models import Flavor
from launcher.services.api.openstack import nova
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, refused
from launcher.services.api.openstack.versions import Version, shaped, since

PAGED = ("limit", "marker", "sort_key", "sort_dir")
SHAPE = {"description": since(55), "extra_specs": since(61)}
SETTINGS = "flavors are the settings' ([flavors] in config.toml)"


class Flavors:
    """A part of Compute."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        every, one = "/v2.1/flavors", "/v2.1/flavors/{id}"
        filters = (*PAGED, "is_public", "minRam", "minDisk")
        return [
            Operation("GET", every, self.list_flavors, queries=filters),
            Operation("GET", f"{every}/detail", self.list_details, queries=filters),
            Operation("GET", one, self.get_flavor),
            Operation("GET", f"{one}/os-extra_specs", self.get_extra_specs),
            Operation("GET", f"{one}/os-flavor-access", self.get_access),
            refused("POST", every, SETTINGS, status=403),
            refused("PUT", one, SETTINGS, status=403, ages=since(55)),
            refused("DELETE", one, SETTINGS, status=403),
            refused("POST", f"{one}/os-extra_specs", SETTINGS, status=403),
            refused("POST", f"{one}/action", SETTINGS, status=403),
        ]

    async def list_flavors(self, ask: Ask) -> Reply:
        short = ("id", "name", "links", *(["description"] if ask.version in SHAPE["description"] else []))
        return Reply({"flavors": [{name: each[name] for name in short} for each in await self._list(ask)]})

    async def list_details(self, ask: Ask) -> Reply:
        return Reply({"flavors": await self._list(ask)})

    async def get_flavor(self, ask: Ask) -> Reply:
        return Reply({"flavor": _flavor(ask, await self._the_flavor(ask))})

    async def get_extra_specs(self, ask: Ask) -> Reply:
        await self._the_flavor(ask)
        return Reply({"extra_specs": {}})

    async def get_access(self, ask: Ask) -> Reply:
        """Of a flavor that is not everybody's; all are."""
        found = await self._the_flavor(ask)
        raise NotFound(f"Access list not available for public flavors: {found.name}")

    async def _the_flavor(self, ask: Ask) -> Flavor:
        for each in await self.bus.call(ask.ctx, ListFlavors()):
            if each.name == ask.path["id"]:
                return each
        raise NotFound(f"Flavor {ask.path['id']} could not be found.")

    async def _list(self, ask: Ask) -> list[Json]:
        least_ram, least_disk = (nova.number(ask, name) for name in ("minRam", "minDisk"))
        found = [
            _flavor(ask, each)
            for each in await self.bus.call(ask.ctx, ListFlavors())
            if each.memory_mb >= least_ram and each.root_gb >= least_disk
        ]
        return nova.page(ask, found)


def _flavor(ask: Ask, flavor: Flavor) -> Json:
    whole = {
        "id": flavor.name,
        "name": flavor.name,
        "vcpus": flavor.vcpus,
        "ram": flavor.memory_mb,
        "disk": flavor.root_gb,
        "swap": flavor.swap_mb or (0 if ask.version >= Version(2, 75) else ""),
        "rxtx_factor": 1.0,
        "OS-FLV-EXT-DATA:ephemeral": flavor.ephemeral_gb,
        "OS-FLV-DISABLED:disabled": False,
        "os-flavor-access:is_public": True,
        "description": None,
        "extra_specs": {},
        "links": nova.links(ask, f"flavors/{flavor.name}"),
    }
    return shaped(SHAPE, ask.version, whole)
