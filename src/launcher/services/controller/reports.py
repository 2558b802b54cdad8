"""What the working roles report, turned into moves of the rows."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Sequence

from launcher.clock import Clock
from launcher.db import events, instances, moves
from launcher.db import life as life_moves
from launcher.db.database import Database
from launcher.db.moves import Due
from launcher.errors import BusUnavailable, NoHostYet, NoRoute, RpcTimeout, StaleGeneration
from launcher.life import AWAKE, BY_TASK, RUNNING
from launcher.messages.reports import (
    NextMove,
    RecordSpans,
    ReportActive,
    ReportFault,
    ReportGone,
    ReportPower,
    ReportStep,
    ReportStuck,
    ReportVerified,
)
from launcher.messaging import Context, Route
from launcher.models import POWERED_OFF, Fault, Instance, PowerState, ShutdownBehaviour, TaskState, VmState
from launcher.services.controller.journal import Journal
from launcher.services.controller.life import Life
from launcher.services.controller.reconcile import LaunchRules, Reconcile

log = logging.getLogger(__name__)

SHORT_LIFE = 60.0
STUCK = "paused: a disk could not be written, no space left; it goes on by itself when there is some"
UNSTUCK = "it goes on: its disks can be written again"
WAITING = {kind.code for kind in (NoHostYet, NoRoute, BusUnavailable, RpcTimeout)}
"""A role that is away for a while costs time and not the launch; the deadline of the whole launch is the limit."""


class Reports:
    """A report for a generation that is past raises StaleGeneration, which tells its sender to drop the work."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        journal: Journal,
        reconcile: Reconcile,
        rules: LaunchRules,
        life: Life,
        live_hosts: Callable[[], Iterable[str]],
    ) -> None:
        self.db, self.clock, self.journal, self.reconcile = db, clock, journal, reconcile
        self.live_hosts, self.life = live_hosts, life
        self.rules = rules

    @property
    def routes(self) -> Sequence[Route]:
        return [
            ReportStep.to(self.report_step),
            ReportActive.to(self.report_active),
            ReportFault.to(self.report_fault),
            ReportGone.to(self.report_gone),
            ReportPower.to(self.report_power),
            ReportStuck.to(self.report_stuck),
            ReportVerified.to(self.report_verified),
            RecordSpans.to(self.record_spans),
        ]

    async def report_step(self, ctx: Context, report: ReportStep) -> None:
        if report.step in BY_TASK:
            await self.life.report_step(report)
            return
        now = self.clock.now_ms()
        await self.journal.record(
            ctx,
            lambda db: moves.begin_step(
                db,
                report.instance_id,
                report.generation,
                host=report.host,
                step=report.step,
                now_ms=now,
                next_check_ms=self.reconcile.first_look(report.step),
            ),
        )

    async def report_active(self, ctx: Context, report: ReportActive) -> None:
        await self.journal.record(
            ctx,
            lambda db: moves.become_active(
                db,
                report.instance_id,
                report.generation,
                host=report.host,
                nics=report.nics,
                injection=report.injection,
                now_ms=self.clock.now_ms(),
            ),
            message=f"running on {report.host} at {', '.join(str(nic.address) for nic in report.nics)}",
        )

    async def report_fault(self, ctx: Context, report: ReportFault) -> NextMove:
        """A retriable fault is tried again up to `max_attempts` times, on another host where one lives that has not
        failed yet; waiting for somebody costs no attempt and no move.
        """
        due = await self.db.read(lambda db: moves.get_due(db, report.instance_id))
        if due.instance.generation != report.generation:
            raise StaleGeneration(f"instance {report.instance_id} has moved on from generation {report.generation}")
        attempts = due.attempts + (report.code not in WAITING)
        if due.instance.task_state in BY_TASK:
            await self._task_failed(ctx, due, report, attempts)
            return NextMove(order=None)
        if report.retriable and attempts < self.rules.max_attempts and self.clock.now_ms() < due.deadline_ms:
            if await self._may_succeed_elsewhere(due.instance, report):
                return await self._try_elsewhere(ctx, due.instance, report, attempts)
            await self._try_again(ctx, due.instance, report, attempts, due.nudges)
            return NextMove(order=None)
        failed = await self.reconcile.fail(ctx, due.instance, self._fault(ctx, report))
        order = await self.db.read(lambda db: instances.get_order(db, failed.id))
        return NextMove(order=order if failed.host else None)

    async def _task_failed(self, ctx: Context, due: Due, report: ReportFault, attempts: int) -> None:
        """A stop is tried for ever: the machine is ours to end."""
        ending = due.instance.task_state is TaskState.STOPPING
        if ending or (report.retriable and attempts < self.rules.max_attempts):
            await self.life.try_again(ctx, due.instance, report, attempts=attempts)
        else:
            await self.life.give_up(ctx, due.instance, self._fault(ctx, report))

    async def report_gone(self, ctx: Context, report: ReportGone) -> None:
        await self.reconcile.gone(ctx, report.instance_id, report.generation)

    async def report_power(self, ctx: Context, report: ReportPower) -> None:
        """A guest that powered itself off is stopped; what becomes of others that are gone, the policy says."""
        instance = await self.db.read(lambda db: instances.get(db, report.instance_id))
        if instance.vm_state not in RUNNING or instance.task_state or instance.host != report.host:
            return
        if report.generation != instance.generation:
            return  # said of a machine that has been started anew since
        ctx = await self.reconcile.context_of(instance.id)
        self.reconcile.start_report.missed(instance.id)
        ends = report.power is PowerState.STOPPED and report.cause == POWERED_OFF
        try:
            if ends and instance.shutdown_behaviour is ShutdownBehaviour.TERMINATE:
                await self._terminate(ctx, instance)
            elif self._starts_again(instance, report):
                await self._restart(ctx, instance, report.cause)
            elif report.power in (None, PowerState.STOPPED):
                await self._stopped(ctx, instance, report.cause)
        except StaleGeneration:
            return

    def _starts_again(self, instance: Instance, report: ReportPower) -> bool:
        """One that was seen to end right after its start would do so again."""
        if not self.rules.restart_missing or instance.vm_state is not VmState.ACTIVE:
            return False
        ran = (self.clock.now_ms() - instance.state_since_ms) / 1000
        return report.power is None or (
            report.power is PowerState.STOPPED and report.cause != POWERED_OFF and ran >= SHORT_LIFE
        )

    async def report_stuck(self, ctx: Context, report: ReportStuck) -> bool:
        def look(db: sqlite3.Connection) -> Instance:
            found = instances.get(db, report.instance_id)
            if (found.generation, found.host) != (report.generation, report.host):
                raise StaleGeneration(f"instance {found.id} has moved on from generation {report.generation}")
            return found

        instance = await self.db.read(look)
        if report.news and instance.task_state is None:
            event = await self.db.write(
                lambda db: self.journal.note(db, look(db), message=STUCK if report.stuck else UNSTUCK)
            )
            await self.journal.publish(ctx, event)
        return instance.vm_state in AWAKE and instance.task_state is None

    async def report_verified(self, ctx: Context, report: ReportVerified) -> None:
        self.reconcile.start_report.verified(report.instance_id, report.mended)

    async def record_spans(self, ctx: Context, report: RecordSpans) -> None:
        await self.db.write(lambda db: events.add_spans(db, report.spans))

    async def _try_again(
        self, ctx: Context, instance: Instance, report: ReportFault, attempts: int, nudges: int
    ) -> None:
        later = self.clock.now_ms() + self.reconcile.wait(min(nudges, attempts)) * 1000
        await self.journal.record(
            ctx,
            lambda db: moves.try_again(db, instance.id, report.generation, attempts=attempts, next_check_ms=later),
            message=f"{report.step}: {report.message}; trying again",
        )

    async def _may_succeed_elsewhere(self, instance: Instance, report: ReportFault) -> bool:
        if report.host is None or report.code in WAITING or instance.launched_ms is not None:
            return False
        order = await self.db.read(lambda db: instances.get_order(db, instance.id))
        return bool(set(self.live_hosts()) - {report.host, *order.tried_hosts})

    async def _try_elsewhere(self, ctx: Context, instance: Instance, report: ReportFault, attempts: int) -> NextMove:
        """The host that failed undoes its part; when it has, a host is chosen anew."""
        now, host = self.clock.now_ms(), report.host
        assert host is not None
        await self.journal.record(
            ctx,
            lambda db: moves.begin_rescheduling(
                db,
                instance.id,
                report.generation,
                host=host,
                attempts=attempts,
                now_ms=now,
                next_check_ms=self.reconcile.first_look(TaskState.RESCHEDULING),
            ),
            message=f"{report.step}: {report.message}; trying another host than {host}",
        )
        order = await self.db.read(lambda db: instances.get_order(db, instance.id))
        return NextMove(order=order, keep_address=True)

    async def _restart(self, ctx: Context, instance: Instance, cause: str) -> None:
        now = self.clock.now_ms()
        restarted = await self.journal.record(
            ctx,
            lambda db: moves.begin_restart(
                db, instance.id, instance.generation, now_ms=now, deadline_ms=now + self.rules.build_timeout * 1000
            ),
            message=f"starting it again: {cause}",
        )
        await self.reconcile.nudge(restarted)

    async def _terminate(self, ctx: Context, instance: Instance) -> None:
        """As its owner wished for when its guest powers off; protection is against others' deletes."""
        now = self.clock.now_ms()
        later = now + self.reconcile.wait(1) * 1000

        def move(db: sqlite3.Connection) -> Instance:
            return moves.begin_deleting(db, instance, trace_id=ctx.trace_id, now_ms=now, next_check_ms=later)

        deleting = await self.journal.record(ctx, move, message="its guest powered off")
        await self.reconcile.nudge(deleting, ctx)

    async def _stopped(self, ctx: Context, instance: Instance, cause: str) -> None:
        def move(db: sqlite3.Connection) -> Instance:
            return life_moves.become_stopped(db, instance.id, instance.generation, now_ms=self.clock.now_ms())

        await self.journal.record(ctx, move, message=f"stopped: {cause}")

    def _fault(self, ctx: Context, report: ReportFault) -> Fault:
        return Fault(
            code=report.code,
            step=report.step,
            message=report.message,
            hint=report.hint,
            request_id=ctx.request_id,
            at_ms=int(self.clock.now_ms()),
        )
