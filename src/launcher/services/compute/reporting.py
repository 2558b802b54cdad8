"""What compute tells the controller: each step before it is done, how it ended, and what the hypervisor saw."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from random import Random

from launcher.bus import Bus
from launcher.clock import Clock
from launcher.errors import BusError, LauncherError
from launcher.failpoints import failpoint
from launcher.identity import new_span_id
from launcher.messages.life import ReportChanged
from launcher.messages.reports import NextMove, ReportActive, ReportFault, ReportGone, ReportPower, ReportStep
from launcher.messaging import Context
from launcher.models import LaunchOrder, PowerState, Span, TaskState
from launcher.services.compute.work import Launch
from launcher.services.saga import StepFailed

log = logging.getLogger(__name__)


class Reporting:
    """`keep` takes finished spans, `own_context` is for what no request asked for.

    Each call raises StaleGeneration when the instance has moved on, and BusError when nobody answers.
    """

    def __init__(
        self,
        *,
        host: str,
        bus: Bus,
        clock: Clock,
        rng: Random,
        keep: Callable[[Span], None],
        own_context: Callable[[], Context],
    ) -> None:
        self.host, self.bus, self.clock, self.rng = host, bus, clock, rng
        self.keep, self.own_context = keep, own_context

    async def begin(self, work: Launch, step: TaskState) -> None:
        """The journal: what is done now. Its span begins with the question."""
        work.step, work.step_span, work.step_since_ms = step, new_span_id(self.rng), self.clock.now_ms()
        await self.agree(work, work.task or step)

    async def agree(self, work: Launch, step: TaskState) -> None:
        order = work.order
        report = ReportStep(instance_id=order.instance_id, generation=order.generation, host=self.host, step=step)
        async with failpoint("report.step"):
            await self.bus.call(work.ctx, report)

    def end_step(self, work: Launch, failure: Exception | None = None) -> None:
        """Keep the span of the step that was under way, if one was."""
        if work.step is None:
            return
        self.keep(
            Span(
                trace_id=work.ctx.trace_id,
                span_id=work.step_span,
                parent_id=work.ctx.span_id,
                role="compute",
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

    async def active(self, work: Launch) -> None:
        self.end_step(work)
        report = ReportActive(
            instance_id=work.order.instance_id,
            generation=work.order.generation,
            host=self.host,
            nics=tuple(lease.as_nic() for lease in work.nics),
            injection=work.injection,
        )
        async with failpoint("report.active"):
            await self.bus.call(work.ctx, report)

    async def changed(self, work: Launch, task: TaskState) -> None:
        self.end_step(work)
        order = work.order
        report = ReportChanged(instance_id=order.instance_id, generation=order.generation, host=self.host, task=task)
        async with failpoint("report.changed"):
            await self.bus.call(work.ctx, report)

    async def fault(self, work: Launch, failure: StepFailed) -> NextMove:
        """Tell why; the controller says whether to leave it for another try or to undo it all."""
        self.end_step(work, failure.cause)
        order, cause = work.order, failure.cause
        told = LauncherError.told(cause)
        if LauncherError.named(cause) is None:
            log.error("%s: %s failed", order.name, failure.step, exc_info=cause)
        report = ReportFault(
            instance_id=order.instance_id,
            generation=order.generation,
            host=self.host,
            step=failure.step,
            code=told.code,
            message=told.message,
            hint=told.hint,
            retriable=told.retriable,
        )
        async with failpoint("report.fault"):
            return await self.bus.call(work.ctx, report)

    async def gone(self, work: Launch) -> None:
        order = work.order
        async with failpoint("report.gone"):
            await self.bus.call(work.ctx, ReportGone(instance_id=order.instance_id, generation=order.generation))

    async def missed(self, order: LaunchOrder, cause: str) -> None:
        """The machine was ended here, and its owner did not ask for that."""
        await self.power(order, None, cause)

    async def power(self, order: LaunchOrder, power: PowerState | None, cause: str) -> None:
        report = ReportPower(
            instance_id=order.instance_id, generation=order.generation, host=self.host, power=power, cause=cause
        )
        with contextlib.suppress(BusError):
            await self.bus.cast(self.own_context(), report)
