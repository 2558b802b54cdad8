"""Images, flavors and hosts: what a launch can be made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from launcher.clock import Clock
from launcher.db import images
from launcher.db.database import Database
from launcher.messages.catalogue import ListFlavors, ListHosts, ListImages, RegisterImage
from launcher.messages.notices import HostHeartbeat
from launcher.messaging import Context, Route
from launcher.models import Flavor, HostState, Image

ReadImage = Callable[[str], Awaitable[Sequence[Image]]]


class Catalogue:
    """`read_image` looks a name up in the image library; the driver behind it is the composition root's choice."""

    def __init__(self, *, db: Database, clock: Clock, flavors: Mapping[str, Flavor], read_image: ReadImage) -> None:
        self.db, self.clock, self.flavors, self.read_image = db, clock, flavors, read_image
        self.hosts: dict[str, HostState] = {}

    @property
    def routes(self) -> Sequence[Route]:
        return [
            RegisterImage.to(self.register_image),
            ListImages.to(self.list_images),
            ListFlavors.to(self.list_flavors),
            ListHosts.to(self.list_hosts),
        ]

    def hear_host(self, message: HostHeartbeat) -> bool:
        """Whether this is the first word of a new process on that host."""
        known = self.hosts.get(message.host.name)
        self.hosts[message.host.name] = message.host
        return known is None or known.boot_id != message.host.boot_id

    def live_hosts(self, timeout: float) -> Sequence[str]:
        """Those heard of within `timeout` seconds."""
        oldest_ms = self.clock.now_ms() - timeout * 1000
        return [host.name for host in self.hosts.values() if host.seen_ms >= oldest_ms]

    async def register_image(self, ctx: Context, message: RegisterImage) -> list[Image]:
        found = list(await self.read_image(message.name))
        await self.register(found)
        return found

    async def register(self, found: Sequence[Image]) -> None:
        await self.db.write(lambda db: images.register(db, found, self.clock.now_ms()))

    async def list_images(self, ctx: Context, message: ListImages) -> list[Image]:
        return await self.db.read(images.list_all)

    async def list_flavors(self, ctx: Context, message: ListFlavors) -> list[Flavor]:
        return list(self.flavors.values())

    async def list_hosts(self, ctx: Context, message: ListHosts) -> list[HostState]:
        return sorted(self.hosts.values(), key=lambda host: host.name)
