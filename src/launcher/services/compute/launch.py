"""The launch: the steps that make a running machine of an order, and their undoing. The table is in `__init__`."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from launcher.bus import Bus
from launcher.drivers.images.store import ImageStore
from launcher.drivers.network.driver import NetworkDriver
from launcher.drivers.virt.driver import VirtDriver
from launcher.errors import BusError, StaleGeneration
from launcher.messages.images import OpenContent
from launcher.messages.network import AllocateFixedIp, ReleaseFixedIp
from launcher.models import TaskState
from launcher.services.compute.holdings import Holdings
from launcher.services.compute.injecting import Injecting
from launcher.services.compute.reporting import Reporting
from launcher.services.compute.work import Launch
from launcher.services.filters import Filters
from launcher.services.saga import Saga, Step, StepFailed
from launcher.services.volumes import Volumes

log = logging.getLogger(__name__)


class Launches:
    """Called once at a time per instance, by who has its turn."""

    def __init__(
        self,
        *,
        bus: Bus,
        virt: VirtDriver,
        network: NetworkDriver,
        images: ImageStore,
        filters: Filters,
        volumes: Volumes,
        holdings: Holdings,
        reporting: Reporting,
    ) -> None:
        self.bus, self.virt, self.network, self.images, self.filters = bus, virt, network, images, filters
        self.volumes = volumes
        self.holdings, self.reporting = holdings, reporting
        self.injecting = Injecting(bus=bus, images=images)
        self.saga: Saga[Launch] = Saga(
            Step(TaskState.NETWORKING, self.allocate_address, self.release_address, waits=True),
            Step(TaskState.BRIDGING, self.plug, self.unplug),
            Step(TaskState.IMAGING, self.create_disks, self.delete_disks),
            Step(TaskState.INJECTING, self.inject),
            Step(TaskState.FILTERING, self.apply_firewall, self.remove_firewall),
            Step(TaskState.SPAWNING, self.start_domain, self.destroy_domain, needs_earlier=True, waits=True),
            report=self.report_step,
        )

    async def launch(self, work: Launch) -> None:
        """Run all steps, whatever of them was done before."""
        try:
            await self.saga.run(work)
            await self.reporting.active(work)
        except (StaleGeneration, BusError) as reason:
            log.info("%s: left as it is: %s", work.order.name, reason)
        except StepFailed as failure:
            await self._fail(work, failure)

    async def bring_up(self, work: Launch) -> None:
        """All steps for an instance that has its disk. Raises StepFailed, and what ReportStep is refused with."""
        await self.saga.run(work)

    async def unwind(self, work: Launch) -> None:
        """Undo all; only when nothing is left is the controller told. Otherwise it will ask again."""
        order = work.order
        self.holdings.turns.fence(order)
        try:
            if work.keep_address:
                await self.reporting.agree(work, TaskState.RESCHEDULING)
            await self.saga.unwind(work)
            self.holdings.let_go(order)
            await self.reporting.gone(work)
        except (StepFailed, StaleGeneration, BusError) as reason:
            log.warning("%s: not all gone yet: %s", order.name, reason)

    async def report_step(self, work: Launch, step: TaskState) -> None:
        """The host's claim and the start of the machine wait until the controller has agreed for this generation; the
        steps between prepare the host while it is asked, and go no further when it refuses.
        """
        self.reporting.end_step(work)
        self.holdings.turns.check(work.order)
        await self.reporting.begin(work, step)
        self.holdings.hold(work.order, running=True)  # agreed to, so it is this host's

    async def _fail(self, work: Launch, failure: StepFailed) -> None:
        """The controller says whether to leave it for another try or to undo it all."""
        with contextlib.suppress(StaleGeneration, BusError):
            move = await self.reporting.fault(work, failure)
            if move.order is not None:
                await self.unwind(Launch(work.ctx, move.order, move.keep_address))

    # --- the steps, in order ---------------------------------------------------------------------

    async def allocate_address(self, work: Launch) -> None:
        order = work.order
        self.holdings.numbers.take(order)
        requests = [
            AllocateFixedIp(
                instance_id=order.instance_id,
                project_id=order.project_id,
                nic=position,
                mac=nic.mac,
                hostname=order.hostname,
                network=nic.network,
                address=nic.address,
            )
            for position, nic in enumerate(order.nics)
        ]
        work.nics = [await self.bus.call(work.within_step(), request) for request in requests]

    async def release_address(self, work: Launch) -> None:
        """Looks for the domain once more: a start that was cut off may have come late, until its tap and disk went."""
        await self.virt.destroy(work.order)
        if not work.keep_address:
            await self.bus.call(work.ctx, ReleaseFixedIp(instance_id=work.order.instance_id))

    async def plug(self, work: Launch) -> None:
        for lease in work.nics:
            await self.network.ensure_bridge(lease.network)
            await self.network.plug(work.order, lease.network, lease.nic)

    async def unplug(self, work: Launch) -> None:
        if self.holdings.numbers.has(work.order):
            await self.network.unplug(work.order)

    async def fetch_images(self, work: Launch) -> None:
        """What only the controller's host has."""
        for image in await self.images.list_missing(work.order):
            ticket = await self.bus.call(work.within_step(), OpenContent(sha256=image.sha256))
            await self.images.fetch(work.order, image, ticket)

    async def create_disks(self, work: Launch) -> None:
        await self.fetch_images(work)
        work.disks = await self.images.create_disks(work.order)

    async def delete_disks(self, work: Launch) -> None:
        await self.images.delete_disks(work.order)

    async def inject(self, work: Launch) -> None:
        assert work.disks
        give = self.injecting.give
        work.disks, work.injection = await give(work.within_step(), work.order, work.nics, work.disks)

    async def apply_firewall(self, work: Launch) -> None:
        await self.filters.apply(work.within_step(), work.order, work.nics)

    async def remove_firewall(self, work: Launch) -> None:
        if self.holdings.numbers.has(work.order):
            await self.filters.remove(work.order)

    async def start_domain(self, work: Launch) -> None:
        """A suspended machine goes on where it was, every other one boots. What has to reach the host's disk does so
        meanwhile; before that nobody is told that the machine runs.
        """
        settling = asyncio.ensure_future(self.images.settle(work.order))
        try:
            await self._start(work)
        finally:
            await asyncio.wait([settling])
        await settling

    async def plug_volumes(self, work: Launch) -> None:
        """Into a machine that runs; those that it has stay."""
        for disk in await self.volumes.plugged(work.ctx, work.order):
            await self.virt.plug_disk(work.order, disk)

    async def _start(self, work: Launch) -> None:
        """One that boots does it with the volumes of this moment; one that goes on knows those it had."""
        assert work.disks
        if work.task is TaskState.RESUMING:
            await self.virt.resume(work.order, self.images.memory_file(work.order))
            return
        plugged = await self.volumes.plugged(work.within_step(), work.order)
        await self.virt.spawn(work.order, work.disks.model_copy(update={"volumes": plugged}))

    async def destroy_domain(self, work: Launch) -> None:
        await self.virt.destroy(work.order)
