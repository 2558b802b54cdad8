"""The compute role: turns a launch order into a running machine, and back. The steps are the table in `__init__`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from launcher.auditing import NOBODY, ArtefactKind, ListArtefacts, Look, RemoveArtefacts
from launcher.bus import Bus
from launcher.clock import Clock
from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.images.store import ImageStore
from launcher.drivers.network.driver import NetworkDriver
from launcher.drivers.virt.driver import Disks, Domain, VirtDriver
from launcher.errors import BusError, Conflict, LauncherError, StaleGeneration
from launcher.explaining import Settings
from launcher.failpoints import failpoint
from launcher.identity import new_span_id
from launcher.messages.compute import GetConsoleLog, GetDiagnostics, RunInstance, TerminateInstance, VerifyInstance
from launcher.messages.network import AllocateFixedIp, ReleaseFixedIp
from launcher.messages.notices import HostHeartbeat
from launcher.messages.reports import ReportActive, ReportFault, ReportGone, ReportPower, ReportStep, ReportVerified
from launcher.messaging import Context, Route
from launcher.models import Diagnostics, HostState, InstanceId, LaunchOrder, PowerState, Span, TaskState
from launcher.networks import FixedIp
from launcher.services.artefacts import Artefacts
from launcher.services.filters import Filters
from launcher.services.injecting import Injecting
from launcher.services.numbers import Numbers
from launcher.services.role import Role
from launcher.services.saga import Saga, Step, StepFailed
from launcher.services.turns import Turns

log = logging.getLogger(__name__)


@dataclass
class Launch:
    """One run of the saga. What a step found is here for the steps after it; undo needs none of it.

    `keep_address` is for an undo after which the launch goes on at another host.
    """

    ctx: Context
    order: LaunchOrder
    keep_address: bool = False
    nics: Sequence[FixedIp] = ()
    disks: Disks | None = None
    injection: str = "none"
    step: TaskState | None = None
    step_span: str = ""
    step_since_ms: float = 0.0

    def within_step(self) -> Context:
        """The context for calls made on behalf of the present step."""
        return self.ctx.within(self.step_span) if self.step_span else self.ctx


class Compute(Role):
    """Keeps no table: every artefact is named from the order, and the rows belong to the controller.

    A machine that is not found is looked for again after `second_look` seconds.
    """

    topic = "compute"

    def __init__(
        self,
        *,
        host: str,
        bus: Bus,
        clock: Clock,
        rng: Random,
        availability_zone: str,
        heartbeat: float,
        virt: VirtDriver,
        firewall: FirewallDriver,
        network: NetworkDriver,
        images: ImageStore,
        settings: Settings | None = None,
        launcher: str = "",
        second_look: float = 3.0,
    ) -> None:
        super().__init__(host=host, bus=bus, clock=clock, rng=rng)
        self.availability_zone, self.heartbeat, self.boot_id = availability_zone, heartbeat, new_span_id(rng)
        self.virt, self.firewall, self.network, self.images = virt, firewall, network, images
        self.artefacts = Artefacts(virt=virt, firewall=firewall, network=network, images=images, launcher=launcher)
        self.injecting = Injecting(bus=bus, images=images)
        self.numbers, self.found_at_start = Numbers(), Look(host=host, kinds=frozenset(), artefacts=())
        self.held: dict[InstanceId, LaunchOrder] = {}
        self.turns, self.second_look = Turns(), second_look
        self.filters = Filters(host=host, bus=bus, firewall=firewall, settings=settings or Settings())
        self.reports: set[asyncio.Task[None]] = set()
        self.launch: Saga[Launch] = Saga(
            Step(TaskState.NETWORKING, self.allocate_address, self.release_address),
            Step(TaskState.BRIDGING, self.plug, self.unplug),
            Step(TaskState.IMAGING, self.create_disks, self.delete_disks),
            Step(TaskState.INJECTING, self.inject),
            Step(TaskState.FILTERING, self.apply_firewall, self.remove_firewall),
            Step(TaskState.SPAWNING, self.start_domain, self.destroy_domain, needs_earlier=True),
            report=self.report_step,
        )

    @property
    def routes(self) -> Sequence[Route]:
        return [
            RunInstance.to(self.run_instance),
            TerminateInstance.to(self.terminate_instance),
            VerifyInstance.to(self.verify_instance),
            *self.filters.routes,
            GetConsoleLog.to(self.get_console_log),
            GetDiagnostics.to(self.get_diagnostics),
            ListArtefacts.to(self.list_artefacts),
            RemoveArtefacts.to(self.remove_artefacts),
        ]

    @property
    def recurring(self) -> Sequence[tuple[float, Callable[[], Awaitable[None]]]]:
        return [(self.heartbeat, self.beat)]

    async def start(self) -> None:
        await self.images.start()
        await self.network.start()
        await self.firewall.start()
        await self.virt.start(self.see_power)
        resources = await self.virt.host_resources()
        log.info("virtualization: %s: %s", resources.virt_type, resources.virt_reason)
        self.found_at_start = await self.artefacts.look(self.host)
        self.numbers.see(self.found_at_start)

    async def recover(self) -> None:
        await self.beat()

    async def stop(self) -> None:
        await self.virt.stop()
        await self.images.stop()

    # --- what the messages ask for ---------------------------------------------------------------

    async def run_instance(self, ctx: Context, message: RunInstance) -> None:
        """Launch, or go on with a launch that was begun. Told twice while at it, it goes on undisturbed."""
        async with self.turns.take(message.order) as mine:
            if mine:
                await self._launch(Launch(ctx, message.order))

    async def terminate_instance(self, ctx: Context, message: TerminateInstance) -> None:
        """Undo everything. A launch under way stops at its next step and gives way."""
        async with self.turns.take(message.order) as mine:
            if mine:
                await self._unwind(Launch(ctx, message.order, message.keep_address))

    async def verify_instance(self, ctx: Context, message: VerifyInstance) -> None:
        """After a restart: filters and links of a running machine are put back, a missing one is reported."""
        order = message.order
        async with self.turns.take(order, "verify") as mine:
            if not mine:
                return
            found = await self._find_domain(order)
            if found is None:
                await self._report_power(order, None, "no domain was found")
            if found is None or found.generation != order.generation:
                return
            self.held[order.instance_id] = order
            work = Launch(ctx, order)
            for step in (self.allocate_address, self.plug, self.apply_firewall):
                await step(work)
            mended = self.found_at_start.lacks(order.number, {ArtefactKind.TAP, ArtefactKind.CHAIN})
            await self.bus.cast(ctx, ReportVerified(instance_id=order.instance_id, mended=mended))

    async def _find_domain(self, order: LaunchOrder) -> Domain | None:
        """None when it runs in neither of two looks: a hypervisor that starts may still be finding its guests again."""
        for pause in (0.0, self.second_look):
            await asyncio.sleep(pause)
            found = await self.virt.find_domain(order.instance_id)
            if found is not None and found.power is not PowerState.STOPPED:
                return found
        return None

    async def get_console_log(self, ctx: Context, message: GetConsoleLog) -> str:
        return (await self.images.read_console(message.order, message.max_bytes)).decode(errors="replace")

    async def get_diagnostics(self, ctx: Context, message: GetDiagnostics) -> Diagnostics:
        return await self.virt.get_diagnostics(message.order)

    async def list_artefacts(self, ctx: Context, message: ListArtefacts) -> Look:
        return await self.artefacts.look(self.host)

    async def remove_artefacts(self, ctx: Context, message: RemoveArtefacts) -> None:
        """Undo without a report. What is being worked on is left to that work, and to the next look."""
        ref = message.ref
        if ref is None:
            await self.images.remove_exports()
            return
        others = {order.number for order in self.held.values() if order.instance_id != ref.instance_id}
        async with self.turns.take_idle(ref.name if ref.instance_id == NOBODY else ref.instance_id) as mine:
            if not mine or ref.number in others:
                raise Conflict(f"{ref.name}: somebody is at work for it")
            await self.artefacts.remove(ref, message.kinds)

    # --- the steps, in order ---------------------------------------------------------------------

    async def allocate_address(self, work: Launch) -> None:
        order = work.order
        self.numbers.take(order)
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
        if self.numbers.has(work.order):
            await self.network.unplug(work.order)

    async def create_disks(self, work: Launch) -> None:
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
        if self.numbers.has(work.order):
            await self.filters.remove(work.order)

    async def start_domain(self, work: Launch) -> None:
        assert work.disks
        await self.virt.spawn(work.order, work.disks)

    async def destroy_domain(self, work: Launch) -> None:
        await self.virt.destroy(work.order)

    # --- what it tells the controller ----------------------------------------------------------------

    async def _launch(self, work: Launch) -> None:
        try:
            await self.launch.run(work)
            await self._report_active(work)
        except (StaleGeneration, BusError) as reason:
            log.info("%s: left as it is: %s", work.order.name, reason)
        except StepFailed as failure:
            await self._fail(work, failure)

    async def report_step(self, work: Launch, step: TaskState) -> None:
        """The journal: nothing is done that the controller has not agreed to for this generation."""
        self._end_step(work)
        order = work.order
        self.turns.check(order)
        await self._report(work, step)
        self.held[order.instance_id] = order  # agreed to, so it is this host's
        work.step, work.step_span, work.step_since_ms = step, new_span_id(self.rng), self.clock.now_ms()

    async def _report(self, work: Launch, step: TaskState) -> None:
        order = work.order
        report = ReportStep(instance_id=order.instance_id, generation=order.generation, host=self.host, step=step)
        async with failpoint("report.step"):
            await self.bus.call(work.ctx, report)

    def _end_step(self, work: Launch, failure: Exception | None = None) -> None:
        """Keep the span of the step that was under way, if one was."""
        if work.step is None:
            return
        self.keep(
            Span(
                trace_id=work.ctx.trace_id,
                span_id=work.step_span,
                parent_id=work.ctx.span_id,
                role=self.topic,
                host=self.host,
                name=work.step,
                kind="step",
                queued_ms=None,
                start_ms=work.step_since_ms,
                end_ms=self.clock.now_ms(),
                instance_id=work.order.instance_id,
                error=getattr(failure, "code", type(failure).__name__) if failure else None,
            )
        )
        work.step = None

    async def _report_active(self, work: Launch) -> None:
        self._end_step(work)
        report = ReportActive(
            instance_id=work.order.instance_id,
            generation=work.order.generation,
            host=self.host,
            nics=tuple(lease.as_nic() for lease in work.nics),
            injection=work.injection,
        )
        async with failpoint("report.active"):
            await self.bus.call(work.ctx, report)

    async def _fail(self, work: Launch, failure: StepFailed) -> None:
        """Tell why; the controller says whether to leave it for another try or to undo it all."""
        self._end_step(work, failure.cause)
        order, cause = work.order, failure.cause
        named = LauncherError.named(cause)
        if named is None:
            log.error("%s: %s failed", order.name, failure.step, exc_info=cause)
        report = ReportFault(
            instance_id=order.instance_id,
            generation=order.generation,
            host=self.host,
            step=failure.step,
            code=named.code if named else LauncherError.code,
            message=named.message if named else f"unexpected {type(cause).__name__}; see the server's log",
            hint=named.hint if named else "",
            retriable=named.retriable if named else False,
        )
        with contextlib.suppress(StaleGeneration, BusError):
            async with failpoint("report.fault"):
                move = await self.bus.call(work.ctx, report)
            if move.order is not None:
                await self._unwind(Launch(work.ctx, move.order, move.keep_address))

    async def _unwind(self, work: Launch) -> None:
        """Undo all; only when nothing is left is the controller told. Otherwise it will ask again."""
        order = work.order
        self.turns.fence(order)
        try:
            if work.keep_address:
                await self._report(work, TaskState.RESCHEDULING)
            await self.launch.unwind(work)
            self.held.pop(order.instance_id, None)
            self.numbers.release(order)
            async with failpoint("report.gone"):
                await self.bus.call(work.ctx, ReportGone(instance_id=order.instance_id, generation=order.generation))
        except (StepFailed, StaleGeneration, BusError) as reason:
            log.warning("%s: not all gone yet: %s", order.name, reason)

    async def beat(self) -> None:
        """Say that this host lives and what it has."""
        resources = await self.virt.host_resources()
        state = HostState(
            name=self.host,
            availability_zone=self.availability_zone,
            boot_id=self.boot_id,
            vcpus=resources.vcpus,
            memory_mb=resources.memory_mb,
            disk_free_mb=await self.images.free_mb(),
            vcpus_used=sum(order.flavor.vcpus for order in self.held.values()),
            memory_used_mb=sum(order.flavor.memory_mb for order in self.held.values()),
            instances=len(self.held),
            highest_number=self.numbers.highest,
            virt_type=resources.virt_type,
            virt_reason=resources.virt_reason,
            policy_version=self.filters.version,
            seen_ms=int(self.clock.now_ms()),
        )
        await self.bus.notify(self.own_context(), HostHeartbeat(host=state))

    def see_power(self, instance_id: InstanceId, power: PowerState, cause: str) -> None:
        """The hypervisor's watcher; runs on the loop. What is not held yet after a restart will be verified."""
        order = self.held.get(instance_id)
        if order is None:
            return
        if power is PowerState.STOPPED:
            del self.held[instance_id]
        task = asyncio.ensure_future(self._report_power(order, power, cause))
        self.reports.add(task)
        task.add_done_callback(self.reports.discard)

    async def _report_power(self, order: LaunchOrder, power: PowerState | None, cause: str) -> None:
        report = ReportPower(
            instance_id=order.instance_id, generation=order.generation, host=self.host, power=power, cause=cause
        )
        with contextlib.suppress(BusError):
            await self.bus.cast(self.own_context(), report)
