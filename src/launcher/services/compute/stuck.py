"""Machines that the hypervisor paused because a disk of theirs could not be written: they go on when there is space.

Whether there is, is found out by trying: QEMU writes what it could not write once more, and pauses again if it must.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from launcher.bus import Bus
from launcher.drivers.virt.driver import VirtDriver
from launcher.errors import NotFound, StaleGeneration
from launcher.messages.reports import ReportStuck
from launcher.messaging import Context
from launcher.models import InstanceId, LaunchOrder
from launcher.services.compute.holdings import Holdings


class Stuck:
    """`known` are those that the controller was told of."""

    def __init__(
        self, *, host: str, bus: Bus, virt: VirtDriver, holdings: Holdings, context: Callable[[], Context]
    ) -> None:
        self.host, self.bus, self.virt, self.holdings, self.context = host, bus, virt, holdings, context
        self.known: set[InstanceId] = set()

    async def look(self) -> None:
        """Those that somebody is at work for are left to the next look."""
        found = set(await self.virt.list_stuck())
        self.known &= self.holdings.held.keys()
        for instance_id in sorted(found | self.known):
            order = self.holdings.held.get(instance_id)
            if order is None:
                continue
            async with self.holdings.turns.take_idle(instance_id) as mine:
                if mine:
                    await self._settle(order, stuck=instance_id in found)

    async def _settle(self, order: LaunchOrder, *, stuck: bool) -> None:
        """The controller knows who was paused by its owner, too."""
        report = ReportStuck(
            instance_id=order.instance_id,
            generation=order.generation,
            host=self.host,
            stuck=stuck,
            news=stuck is not (order.instance_id in self.known),
        )
        with contextlib.suppress(StaleGeneration, NotFound):
            wanted = await self.bus.call(self.context(), report)
            if stuck and wanted:
                await self.virt.unpause(order)
        (self.known.add if stuck else self.known.discard)(order.instance_id)
