"""What is done to an instance on its host between its launch and its end. The table is in `__init__`.

A task is agreed to by the controller before it is begun, may be done twice, and gives way to a newer generation.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from launcher.clock import Clock
from launcher.drivers.images.store import ImageStore
from launcher.drivers.virt.driver import VirtDriver
from launcher.errors import BusError, NotFound, StaleGeneration
from launcher.failpoints import failpoint
from launcher.life import AT_REST, BY_TASK
from launcher.messages.life import ChangeInstance
from launcher.messaging import Context, Route
from launcher.models import PowerState, TaskState
from launcher.services.compute.holdings import Holdings
from launcher.services.compute.launch import Launches
from launcher.services.compute.reporting import Reporting
from launcher.services.compute.saving import Saving
from launcher.services.compute.work import Launch
from launcher.services.saga import StepFailed

log = logging.getLogger(__name__)

LOOK_EVERY = 0.25
"""Seconds between two looks whether a guest has shut down."""
ASK_EVERY = 20
"""Looks after which it is asked again: one that is still booting did not hear it."""


class Life:
    """One task at a time per instance, by who has its turn."""

    def __init__(
        self,
        *,
        clock: Clock,
        virt: VirtDriver,
        images: ImageStore,
        launches: Launches,
        holdings: Holdings,
        reporting: Reporting,
    ) -> None:
        self.clock, self.virt, self.images, self.launches = clock, virt, images, launches
        self.holdings, self.reporting = holdings, reporting
        self.saving = Saving(bus=launches.bus, virt=virt, images=images, holdings=holdings)
        self.tasks: dict[TaskState, Callable[[Launch, float], Awaitable[None]]] = {
            TaskState.STOPPING: self.stop,
            TaskState.STARTING: self.start,
            TaskState.REBOOTING: self.reboot,
            TaskState.PAUSING: self.pause,
            TaskState.UNPAUSING: self.unpause,
            TaskState.SUSPENDING: self.suspend,
            TaskState.RESUMING: self.resume,
            TaskState.REBUILDING: self.rebuild,
            TaskState.RESCUING: self.rescue,
            TaskState.UNRESCUING: self.unrescue,
            TaskState.IMAGE_SNAPSHOT: self.save_image,
        }

    @property
    def routes(self) -> Sequence[Route]:
        return [ChangeInstance.to(self.change_instance)]

    async def change_instance(self, ctx: Context, message: ChangeInstance) -> None:
        """Told twice while at it, it goes on undisturbed."""
        async with self.holdings.turns.take(message.order, message.task) as mine:
            if not mine or message.task not in self.tasks:
                return
            work = Launch(ctx, message.order, task=message.task)
            try:
                await self.reporting.begin(work, message.task)
                if BY_TASK[message.task].end in AT_REST and not BY_TASK[message.task].renews:
                    self.holdings.hold(work.order, running=True)
                await self._do(work, message.task, message.deadline_ms)
                await self.reporting.changed(work, message.task)
            except (StaleGeneration, BusError) as reason:
                log.info("%s: %s left as it is: %s", work.order.name, message.task, reason)
            except StepFailed as failure:
                await self._fail(work, failure)

    async def _do(self, work: Launch, task: TaskState, deadline_ms: float) -> None:
        try:
            async with failpoint(task):
                await self.tasks[task](work, deadline_ms)
        except (StepFailed, StaleGeneration):
            raise
        except Exception as cause:
            raise StepFailed(task, cause) from cause

    async def _fail(self, work: Launch, failure: StepFailed) -> None:
        with contextlib.suppress(StaleGeneration, BusError):
            await self.reporting.fault(work, failure)
            if isinstance(failure.cause, NotFound):  # no machine any more, which is news by itself
                await self.reporting.power(work.order, None, "no domain was found")

    # --- the tasks -------------------------------------------------------------------------------

    async def stop(self, work: Launch, deadline_ms: float) -> None:
        """A suspended one loses its memory, too. Disk, address, taps and filters stay."""
        await self._shut_down(work, deadline_ms)
        await self.virt.forget(work.order, self.images.memory_file(work.order))
        self.holdings.hold(work.order, running=False)

    async def start(self, work: Launch, deadline_ms: float) -> None:
        """One whose rescued machine ended by itself is rescued no more."""
        await self.images.end_rescue(work.order)
        await self.launches.bring_up(work)

    async def reboot(self, work: Launch, deadline_ms: float) -> None:
        """A new machine on the same disk; what runs in this generation already has been rebooted."""
        await self._shut_down(work, deadline_ms)
        await self.launches.bring_up(work)

    async def pause(self, work: Launch, deadline_ms: float) -> None:
        await self.virt.pause(work.order)

    async def unpause(self, work: Launch, deadline_ms: float) -> None:
        await self.virt.unpause(work.order)

    async def suspend(self, work: Launch, deadline_ms: float) -> None:
        await self.virt.suspend(work.order, self.images.memory_file(work.order))
        self.holdings.hold(work.order, running=False)

    async def resume(self, work: Launch, deadline_ms: float) -> None:
        await self.launches.bring_up(work)

    async def rebuild(self, work: Launch, deadline_ms: float) -> None:
        """The image is here before the disks go, which happens once in this generation."""
        await self.launches.fetch_images(work)
        await self._shut_down(work, deadline_ms)
        await self.images.renew(work.order)
        await self.launches.bring_up(work)

    async def rescue(self, work: Launch, deadline_ms: float) -> None:
        """Its order has the other root's images; that root is made once in this generation, too."""
        await self.rebuild(work, deadline_ms)

    async def unrescue(self, work: Launch, deadline_ms: float) -> None:
        await self._shut_down(work, deadline_ms)
        await self.images.end_rescue(work.order)
        await self.launches.bring_up(work)

    async def save_image(self, work: Launch, deadline_ms: float) -> None:
        await self.saving.save(work)

    async def _shut_down(self, work: Launch, deadline_ms: float) -> None:
        """Ask the guest, and wait until it is down or the time is over. One that is paused cannot hear.

        Only then is the new generation held: the end of the old machine must not be reported as the new one's.
        """
        await self._ask_to_shut_down(work, deadline_ms)
        self.holdings.turns.check(work.order)
        found = await self.virt.find_domain(work.order.instance_id)
        if found is None or found.generation < work.order.generation:
            await self.virt.destroy(work.order)

    async def _ask_to_shut_down(self, work: Launch, deadline_ms: float) -> None:
        order, looks = work.order, 0
        while self.clock.now_ms() < deadline_ms:
            self.holdings.turns.check(order)
            found = await self.virt.find_domain(order.instance_id)
            if found is None or found.power is not PowerState.RUNNING or found.generation >= order.generation:
                return
            if looks % ASK_EVERY == 0:
                await self.virt.shut_down(order)
            looks += 1
            await asyncio.sleep(LOOK_EVERY)
