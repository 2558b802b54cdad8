"""Copies of images on the hosts that no instance there uses, removed when an administrator wants the space."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from launcher.bus import Bus
from launcher.errors import LauncherError
from launcher.images import Pruned
from launcher.messages.compute import PruneBases
from launcher.messages.images import PruneImages
from launcher.messaging import Context, Route

TIMEOUT = 30.0


class Caches:
    """Asks the hosts; each knows by itself what is in use there."""

    def __init__(self, *, bus: Bus, live_hosts: Callable[[], Sequence[str]]) -> None:
        self.bus, self.live_hosts = bus, live_hosts

    @property
    def routes(self) -> Sequence[Route]:
        return [PruneImages.to(self.prune_images)]

    async def prune_images(self, ctx: Context, message: PruneImages) -> Pruned:
        hosts = sorted(self.live_hosts())
        freed = await asyncio.gather(*(self._prune(ctx, host) for host in hosts))
        answers = dict(zip(hosts, freed, strict=True))
        return Pruned(
            freed={host: size for host, size in answers.items() if size is not None},
            silent=tuple(host for host, size in answers.items() if size is None),
        )

    async def _prune(self, ctx: Context, host: str) -> int | None:
        try:
            return await self.bus.call(ctx, PruneBases(), host=host, timeout=TIMEOUT)
        except LauncherError:
            return None
