"""What an owner has done to an instance between its launch and its end: accepted, brought on, ended, given up.

The table of what leads where stands in `launcher/life.py`, the moves in `db/life.py`.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence

from launcher.clock import Clock
from launcher.db import attributes, instances, life
from launcher.db.database import Database
from launcher.errors import BadRequest, StaleGeneration
from launcher.failpoints import failpoint
from launcher.life import BY_TASK, Action
from launcher.messages.life import ActOnInstance, ReportChanged
from launcher.messages.reports import ReportFault, ReportStep
from launcher.messaging import Context, Route
from launcher.models import Fault, Instance
from launcher.services.controller.inventory import resolve
from launcher.services.controller.journal import Journal
from launcher.services.controller.reconcile import STEP_PATIENCE, LaunchRules, Reconcile

log = logging.getLogger(__name__)


def _nothing(db: sqlite3.Connection, instance: Instance) -> None:
    """Most verbs move the row and nothing else."""


class Life:
    """Moves the row first, then tells the host; the reconcile loop tells it again."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        journal: Journal,
        reconcile: Reconcile,
        rules: LaunchRules,
    ) -> None:
        self.db, self.clock, self.journal, self.reconcile = db, clock, journal, reconcile
        self.rules = rules

    @property
    def routes(self) -> Sequence[Route]:
        return [ActOnInstance.to(self.act_on_instance), ReportChanged.to(self.report_changed)]

    async def act_on_instance(self, ctx: Context, message: ActOnInstance) -> Instance:
        """A guest has the settings' time to shut down where nothing else is asked for."""
        return await self.act(
            ctx, message.instance_id, message.action, force=message.force, timeout_s=message.timeout_s
        )

    async def act(
        self,
        ctx: Context,
        wanted: str,
        action: Action,
        *,
        force: bool = False,
        timeout_s: float | None = None,
        also: Callable[[sqlite3.Connection, Instance], None] = _nothing,
    ) -> Instance:
        """Begin it; `also` is done in the same transaction, after the move, and may refuse."""
        found = await resolve(self.db, ctx, wanted)
        attributes.refuse_locked(found, by_admin=ctx.is_admin)
        now = self.clock.now_ms()
        patience = 0.0 if force else self.rules.shutdown_timeout if timeout_s is None else timeout_s

        def begin(db: sqlite3.Connection) -> Instance:
            begun = life.begin(
                db,
                found.id,
                action,
                hasten=force,
                request_id=ctx.request_id,
                trace_id=ctx.trace_id,
                now_ms=now,
                next_check_ms=now + self.reconcile.wait(1) * 1000,
                deadline_ms=now + patience * 1000,
            )
            also(db, begun)
            return instances.get(db, found.id)

        async with failpoint("act"):
            message = f"{action} was asked for" + (", by force" if force else "")
            begun = await self.journal.record(ctx, begin, message=message)
        with contextlib.suppress(StaleGeneration):  # the reconcile loop was here first
            await self.reconcile.nudge(begun, ctx)
        return await self.db.read(lambda db: instances.get(db, found.id))

    async def report_step(self, report: ReportStep) -> None:
        """The host is about to do it, or still at it. No event: nothing has moved."""
        later = self.clock.now_ms() + STEP_PATIENCE * 1000
        await self.db.write(
            lambda db: life.go_on(
                db, report.instance_id, report.generation, report.step, host=report.host, next_check_ms=later
            )
        )

    async def report_changed(self, ctx: Context, report: ReportChanged) -> None:
        if report.task not in BY_TASK:
            raise BadRequest(f"{report.task} is no task that ends so", field="task")
        await self.journal.record(
            ctx,
            lambda db: life.end(
                db,
                report.instance_id,
                report.generation,
                report.task,
                host=report.host,
                now_ms=self.clock.now_ms(),
            ),
            message=f"{report.task} is done",
        )

    async def try_again(self, ctx: Context, instance: Instance, report: ReportFault, *, attempts: int) -> None:
        later = self.clock.now_ms() + self.reconcile.wait(attempts) * 1000
        await self.journal.record(
            ctx,
            lambda db: life.try_again(db, instance, attempts=attempts, next_check_ms=later),
            message=f"{report.step}: {report.message}; trying again",
        )

    async def give_up(self, ctx: Context, instance: Instance, fault: Fault) -> None:
        now = self.clock.now_ms()
        later = now + self.reconcile.wait(1) * 1000
        failed = await self.journal.record(
            ctx,
            lambda db: life.fail(db, instance, fault, now_ms=now, next_check_ms=later),
            message=f"{fault.step} failed: {fault.message}",
        )
        if failed.task_state is not None:
            await self.reconcile.nudge(failed, ctx)
