"""An image of an instance's root disk: copied here, brought to the controller, which lets it through the gate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import TypeVar

from launcher.bus import Bus
from launcher.drivers.images.store import ImageStore
from launcher.drivers.virt.driver import VirtDriver
from launcher.messages.images import EndUpload, OpenSnapshot
from launcher.models import LaunchOrder, PowerState
from launcher.services.compute.holdings import Holdings
from launcher.services.compute.work import Launch

T = TypeVar("T")
GATE = 120.0
"""Seconds that the controller may take to look at the image."""
LOOK_EVERY = 0.25
"""Seconds between two looks whether the instance is to be deleted meanwhile."""


class Saving:
    """Done again from its beginning when it was cut off; what the last attempt left is replaced."""

    def __init__(self, *, bus: Bus, virt: VirtDriver, images: ImageStore, holdings: Holdings) -> None:
        self.bus, self.virt, self.images, self.holdings = bus, virt, images, holdings

    async def save(self, work: Launch) -> None:
        order = work.order
        found = await self.virt.find_domain(order.instance_id)
        runs = found is not None and found.power is not PowerState.STOPPED
        self.holdings.hold(order, running=runs)
        opened = OpenSnapshot(instance_id=order.instance_id, generation=order.generation)
        ticket = await self.bus.call(work.within_step(), opened)
        if ticket is None:
            return
        copy = partial(self.virt.copy_root, order) if runs else None
        received = await self._while_wanted(order, self.images.save_image(order, ticket, copy))
        await self.bus.call(work.within_step(), EndUpload(image_id=ticket.image_id, received=received), timeout=GATE)

    async def _while_wanted(self, order: LaunchOrder, copying: Awaitable[T]) -> T:
        """A deletion does not wait for it. Raises StaleGeneration."""
        task = asyncio.ensure_future(copying)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=LOOK_EVERY)
                self.holdings.turns.check(order)
            return await task
        finally:
            task.cancel()
            await asyncio.wait([task])
