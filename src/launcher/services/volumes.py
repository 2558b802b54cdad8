"""The volumes of one host: part of the compute role, because what is plugged into a machine is its host's work.

One message says what is under way with a volume, and a table says what is done about it. Everything here may be done
twice and from wherever an earlier attempt was cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from launcher.auditing import RemoveVolume, UnplugVolume
from launcher.bus import Bus
from launcher.drivers.virt.driver import Plugged, VirtDriver
from launcher.drivers.volumes.driver import VolumeDriver
from launcher.errors import Conflict, DiskHeld, LauncherError
from launcher.failpoints import failpoint
from launcher.messages.volumes import (
    ClaimVolume,
    GetAttachments,
    ReportVolumeDone,
    ReportVolumeFault,
    WorkOnVolume,
)
from launcher.messaging import Context, Route
from launcher.models import InstanceRef, LaunchOrder, PowerState
from launcher.services.turns import Turns
from launcher.volumes import VolumeDisk, VolumeOrder, VolumeRef, VolumeStatus

log = logging.getLogger(__name__)

GIB = 2**30
Deed = Callable[[VolumeOrder], Awaitable[None]]


class _Queue:
    """Who is at work for a volume, and how many wait for it, that one included."""

    def __init__(self) -> None:
        self.lock, self.length = asyncio.Lock(), 0


class Volumes:
    """`turns` are the instances': nobody starts or ends a machine while a volume is plugged into it or pulled.

    `missed` is told of a machine that was reset, so that it is started again. `memory` is where a suspended one's is.
    """

    def __init__(
        self,
        *,
        host: str,
        bus: Bus,
        virt: VirtDriver,
        driver: VolumeDriver,
        turns: Turns,
        missed: Callable[[LaunchOrder, str], Awaitable[None]],
        memory: Callable[[InstanceRef], Path],
    ) -> None:
        self.host, self.bus, self.virt, self.driver = host, bus, virt, driver
        self.turns, self.missed, self.memory = turns, missed, memory
        self.locks: dict[int, _Queue] = {}
        self.asked: set[tuple[int, int]] = set()
        self.highest = 0
        self.deeds: Mapping[VolumeStatus, Deed] = {
            VolumeStatus.CREATING: self.create,
            VolumeStatus.ATTACHING: self.attach,
            VolumeStatus.DETACHING: self.detach,
            VolumeStatus.EXTENDING: self.extend,
            VolumeStatus.DELETING: self.delete,
        }

    @property
    def routes(self) -> Sequence[Route]:
        return [
            WorkOnVolume.to(self.work_on_volume),
            RemoveVolume.to(self.remove_volume),
            UnplugVolume.to(self.unplug_volume),
        ]

    async def start(self) -> None:
        await self.driver.start()
        self.highest = max([0, *(ref.number for ref in await self.driver.list_volumes())])

    async def work_on_volume(self, ctx: Context, message: WorkOnVolume) -> None:
        """Told twice while at it, it goes on undisturbed."""
        order = message.order
        if (order.number, order.generation) in self.asked or order.status not in self.deeds:
            return
        self.asked.add((order.number, order.generation))
        try:
            async with self._turn(order) as mine:
                if mine:
                    await self._work(ctx, order)
        except LauncherError as reason:  # the controller asks again
            log.info("%s: left as it is: %s", order.name, reason)
        finally:
            self.asked.discard((order.number, order.generation))

    async def plugged(self, ctx: Context, order: LaunchOrder) -> tuple[Plugged, ...]:
        """What the machine has when it starts, by the rows of this moment: an attachment or detachment that comes after
        it waits for the instance's turn.
        """
        if not order.volumes:
            return ()
        request = GetAttachments(instance_id=order.instance_id, generation=order.generation)
        return tuple([await self._plug(disk) for disk in await self.bus.call(ctx, request)])

    async def remove_volume(self, ctx: Context, message: RemoveVolume) -> None:
        """Without a report. What is being worked on is left to that work, and to the next look."""
        if message.ref.number in self.locks:
            raise Conflict(f"{message.ref.name}: somebody is at work for it")
        async with self._lock(message.ref.number):
            await self.driver.delete(message.ref)

    async def unplug_volume(self, ctx: Context, message: UnplugVolume) -> None:
        """Likewise."""
        async with self.turns.take_idle(message.ref.instance_id) as mine:
            if not mine:
                raise Conflict(f"{message.ref.name}: somebody is at work for it")
            await self.virt.unplug_disk(message.ref, message.name)

    # --- what is under way, and what is done about it ------------------------------------------------

    async def create(self, order: VolumeOrder) -> None:
        self.highest = max(self.highest, order.number)
        if order.source is None:
            await self.driver.create(order, order.size_gb, image=order.image)
        elif order.machine is None:
            await self.driver.copy(order.source, order, order.size_gb)
        else:
            async with self.virt.still(order.machine):
                await self.driver.copy(order.source, order, order.size_gb)

    async def attach(self, order: VolumeOrder) -> None:
        """A machine that does not run has it when it starts."""
        assert order.machine
        assert order.device
        disk = await self._plug(VolumeDisk(ref=_ref(order), device=order.device))
        if await self._runs(order.machine):
            await self.virt.plug_disk(order.machine, disk)

    async def detach(self, order: VolumeOrder) -> None:
        """What the guest does not let go of stays its own, unless its machine may be reset."""
        if order.machine is None or not await self._has_disks(order.machine):
            return
        if not order.force:
            await self.virt.unplug_disk(order.machine, order.name)
            return
        try:
            await self.virt.unplug_disk(order.machine, order.name)
        except LauncherError as error:
            log.warning("%s: %s; the machine is reset", order.name, error)
            await self.virt.destroy(order.machine)
            await self.missed(order.machine, f"reset to take {order.name} away")

    async def extend(self, order: VolumeOrder) -> None:
        runs = order.machine is not None and await self._has_disks(order.machine)
        await self.driver.extend(order, order.size_gb, in_use=runs)
        if order.machine is not None and runs:
            await self.virt.resize_disk(order.machine, order.name, order.size_gb * GIB)

    async def delete(self, order: VolumeOrder) -> None:
        await self.driver.delete(order)

    # --- how -----------------------------------------------------------------------------------------

    async def _work(self, ctx: Context, order: VolumeOrder) -> None:
        """Nothing is done that the controller has not agreed to for this generation."""
        said = {"volume_id": order.volume_id, "generation": order.generation, "status": order.status}
        async with failpoint("volume.claim"):
            await self.bus.call(ctx, ClaimVolume(host=self.host, **said))
        try:
            async with failpoint(f"volume.{order.status}"):
                await self.deeds[order.status](order)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
            await self._fail(ctx, order, error)
            return
        async with failpoint("volume.report"):
            await self.bus.call(ctx, ReportVolumeDone(host=self.host, **said))

    async def _fail(self, ctx: Context, order: VolumeOrder, cause: Exception) -> None:
        """Undo what the attempt may have left, then say why. While that cannot be undone it is asked for again."""
        told = LauncherError.told(cause)
        if LauncherError.named(cause) is None:
            log.error("%s: %s failed", order.name, order.status, exc_info=cause)
        try:
            await self._undo(order)
        except LauncherError as error:
            log.warning("%s: not all undone yet: %s", order.name, error)
            return
        report = ReportVolumeFault(
            volume_id=order.volume_id,
            generation=order.generation,
            status=order.status,
            host=self.host,
            code=told.code,
            message=told.message,
            hint=told.hint,
            retriable=told.retriable,
        )
        async with failpoint("volume.fault"):
            await self.bus.call(ctx, report)

    async def _undo(self, order: VolumeOrder) -> None:
        if order.status is VolumeStatus.CREATING:
            await self.driver.delete(order)
        if order.status is VolumeStatus.ATTACHING and order.machine and await self._runs(order.machine):
            await self.virt.unplug_disk(order.machine, order.name)

    async def _runs(self, machine: LaunchOrder) -> bool:
        found = await self.virt.find_domain(machine.instance_id)
        return found is not None and found.power is not PowerState.STOPPED

    async def _has_disks(self, machine: LaunchOrder) -> bool:
        """Whether it runs. Raises DiskHeld for a suspended one, which will know its disks when it goes on."""
        if await self._runs(machine):
            return True
        if await asyncio.to_thread(self.memory(machine).exists):
            raise DiskHeld(f"{machine.name} is suspended", hint="resume it")
        return False

    async def _plug(self, disk: VolumeDisk) -> Plugged:
        """Raises NotFound when the volume is not here: a machine is never given another's."""
        found = await self.driver.find(disk.ref)
        return Plugged(name=disk.ref.name, serial=disk.ref.volume_id, device=disk.device, **found.model_dump())

    @contextlib.asynccontextmanager
    async def _turn(self, order: VolumeOrder) -> AsyncIterator[bool]:
        """First the instance's, then the volumes', lower numbers first, so that no two wait for each other."""
        async with contextlib.AsyncExitStack() as held:
            if order.machine is not None:
                errand = f"{order.name} at {order.generation}"
                if not await held.enter_async_context(self.turns.take(order.machine, errand)):
                    yield False
                    return
            numbers = {order.number, *([order.source.number] if order.source else [])}
            for number in sorted(numbers):
                await held.enter_async_context(self._lock(number))
            yield True

    @contextlib.asynccontextmanager
    async def _lock(self, number: int) -> AsyncIterator[None]:
        """Kept while somebody is at work for the volume or waits to be."""
        queue = self.locks.setdefault(number, _Queue())
        queue.length += 1
        try:
            async with queue.lock:
                yield
        finally:
            queue.length -= 1
            if not queue.length:
                del self.locks[number]


def _ref(order: VolumeOrder) -> VolumeRef:
    return VolumeRef(volume_id=order.volume_id, number=order.number, snapshot=order.snapshot)
