"""Compute v2.1, put together: its versions, and its parts."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from launcher.bus import Bus
from launcher.errors import LauncherError
from launcher.services.api.openstack import nova
from launcher.services.api.openstack.actions import Actions
from launcher.services.api.openstack.flavors import Flavors
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, Settled
from launcher.services.api.openstack.hosts import Hosts
from launcher.services.api.openstack.interfaces import Devices
from launcher.services.api.openstack.key_pairs import KeyPairs
from launcher.services.api.openstack.quotas import ProjectQuotas
from launcher.services.api.openstack.server_parts import ServerParts
from launcher.services.api.openstack.servers import Servers

UPDATED = "2013-07-23T11:33:21Z"


class Compute:
    """Nova's part."""

    type, name, prefix, endpoint, unscoped = "compute", "nova", nova.PREFIX, nova.ENDPOINT, False

    def __init__(self, *, bus: Bus) -> None:
        self.actions = Actions(bus=bus)
        self.parts = (
            Servers(bus=bus),
            self.actions,
            ServerParts(bus=bus),
            Devices(bus=bus),
            Flavors(bus=bus),
            KeyPairs(bus=bus),
            ProjectQuotas(bus=bus),
            Hosts(bus=bus),
        )

    @property
    def operations(self) -> Sequence[Operation]:
        return [
            Operation("GET", "", self.list_versions, public=True),
            Operation("GET", "/v2.1", self.get_version, public=True),
            *(each for part in self.parts for each in part.operations),
        ]

    def refusal(self, error: LauncherError) -> tuple[int, Json]:
        return nova.refusal(error)

    def settle(self, request: web.Request) -> Settled:
        return nova.settle(request)

    async def list_versions(self, ask: Ask) -> Reply:
        return Reply({"versions": [_version(ask)]})

    async def get_version(self, ask: Ask) -> Reply:
        media = {"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}
        return Reply({"version": {**_version(ask), "media-types": [media]}})


def _version(ask: Ask) -> Json:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": str(nova.NEWEST),
        "min_version": str(nova.OLDEST),
        "updated": UPDATED,
        "links": [{"rel": "self", "href": f"{ask.base}{nova.ENDPOINT}/"}],
    }
