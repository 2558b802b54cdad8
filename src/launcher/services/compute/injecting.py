"""A step of the launch: the guest gets its key and the rest; what else there is to tell it is asked for when needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from launcher.bus import Bus
from launcher.drivers.images.store import ImageStore
from launcher.drivers.virt.driver import Disks
from launcher.guestdata.guest import Guest
from launcher.messages.instances import GetGuestMetadata
from launcher.messaging import Context
from launcher.models import LaunchOrder
from launcher.networks import FixedIp


class Injecting:
    def __init__(self, *, bus: Bus, images: ImageStore) -> None:
        self.bus, self.images = bus, images

    async def give(self, ctx: Context, order: LaunchOrder, nics: Sequence[FixedIp], disks: Disks) -> tuple[Disks, str]:
        """All disks, with the config drive that may have been made, and the ways that were used."""
        done = await self.images.inject(order, nics, partial(self._tell, ctx, order, nics))
        return disks.model_copy(update={"config_drive": done.config_drive}), done.report

    async def _tell(self, ctx: Context, order: LaunchOrder, nics: Sequence[FixedIp]) -> Guest:
        """As the metadata service would."""
        told = await self.bus.call(ctx, GetGuestMetadata(instance_id=order.instance_id))
        return Guest(told, tuple(nics))
