"""OpenStack's services, put together: which there are, and that the catalogue lists them."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from launcher.bus import Bus
from launcher.services.api.callers import Callers
from launcher.services.api.openstack.compute import Compute
from launcher.services.api.openstack.frame import Frame, Service
from launcher.services.api.openstack.identity import Identity
from launcher.services.api.openstack.image import Images
from launcher.services.api.openstack.network import Networking
from launcher.services.api.openstack.volume import BlockStorage
from launcher.services.api.uploads import Uploads


class OpenStack:
    """A service that is added here is served, catalogued, and held to the tenant matrix."""

    def __init__(self, *, callers: Callers, url: str, region: str, bus: Bus, uploads: Uploads) -> None:
        self.frame = Frame(callers=callers, url=url)
        others: Sequence[Service] = (
            Compute(bus=bus),
            Images(bus=bus, uploads=uploads),
            Networking(bus=bus),
            BlockStorage(bus=bus),
        )
        identity = Identity(bus=bus, region=region, others=others)
        self.services: Sequence[Service] = (identity, *others)

    def add_to(self, application: web.Application) -> None:
        for service in self.services:
            self.frame.serve(application, service)
