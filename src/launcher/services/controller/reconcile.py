"""The reconcile loop: what is not at rest and not confirmed in time is asked for again; what is late is given up.

Rows are the truth and messages are nudges, so a lost, doubled or late message costs time, never an instance.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from launcher.accounts import UserRole
from launcher.bus import Bus
from launcher.clock import Clock
from launcher.db import instances, life, moves
from launcher.db.database import Database
from launcher.db.moves import Due
from launcher.errors import BadRequest, BusError, StaleGeneration
from launcher.failpoints import failpoint
from launcher.life import BY_TASK
from launcher.messages.compute import RunInstance, TerminateInstance, VerifyInstance
from launcher.messages.life import ChangeInstance
from launcher.messages.network import ReleaseFixedIp
from launcher.messages.scheduler import ScheduleInstance
from launcher.messaging import Context
from launcher.models import Fault, HostState, Instance, InstanceId, LaunchOrder, TaskState, VmState
from launcher.services.controller.journal import Journal
from launcher.services.controller.start_report import StartReport

log = logging.getLogger(__name__)

BATCH = 100
RELEASE_TIMEOUT = 5.0
UNDOING = (TaskState.CLEANING, TaskState.DELETING)
LONGEST_WAIT, STEP_PATIENCE = 60.0, 10.0


@dataclass(frozen=True)
class LaunchRules:
    """Seconds that a whole launch may last and each of its states, how often it is tried, and whether a machine that is
    gone for another reason than its own is started again. `shutdown_timeout`: seconds that a guest may take to stop.
    """

    build_timeout: float
    state_timeouts: Mapping[TaskState, float]
    max_attempts: int
    restart_missing: bool
    shutdown_timeout: float = 60.0


class Reconcile:
    """Looks at the rows that are due and casts what moves them on."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        rng: Random,
        journal: Journal,
        start_report: StartReport,
        rules: LaunchRules,
    ) -> None:
        self.db, self.bus, self.clock, self.rng, self.journal = db, bus, clock, rng, journal
        self.start_report, self.rules, self.started_ms = start_report, rules, clock.now_ms()

    async def recover(self) -> None:
        """At the start of this process: everything unfinished is due at once."""
        now = self.clock.now_ms()
        self.start_report.resume(await self.db.write(lambda db: moves.look_at_unfinished(db, now)))
        await self.tick()

    async def host_started(self, host: HostState) -> None:
        """A compute process is new: go on with what its predecessor had begun, verify what it had finished. What began
        after its first word is its own work.
        """
        now = self.clock.now_ms()
        await self.db.write(lambda db: moves.look_at_unfinished(db, now, host=host.name, until_ms=host.seen_ms))
        held = await self.db.read(lambda db: life.list_held(db, host.name))
        self.start_report.expect({each.order.instance_id: each.order.name for each in held})
        await self.verify(host.name, held)
        await self.tick()

    async def recount(self, host: HostState) -> None:
        """A host that counts less than the rows do has not heard of some of its own since its start."""
        held, running = await self.db.read(lambda db: life.count_held(db, host.name))
        if host.instances < held or host.running < running:
            await self.verify(host.name, await self.db.read(lambda db: life.list_held(db, host.name)))

    async def verify(self, host: str, held: Sequence[life.Held]) -> None:
        """Have the host look after these; what it does not hear it is told another time."""
        for each in held:
            ctx = await self.context_of(each.order.instance_id)
            with contextlib.suppress(BusError):
                await self.bus.cast(ctx, VerifyInstance(order=each.order, running=each.running), host=host)

    async def tick(self) -> None:
        """Look at everything that is due."""
        now = self.clock.now_ms()
        for due in await self.db.read(lambda db: moves.list_due(db, now, BATCH)):
            try:
                await self._look_at(due)
            except StaleGeneration:
                continue

    async def _look_at(self, due: Due) -> None:
        instance = due.instance
        if setting := self._overdue(due):
            await self._give_up(instance, setting)
            return
        later = self.clock.now_ms() + self.wait(due.nudges) * 1000
        await self.db.write(lambda db: moves.nudged(db, due, next_check_ms=later))
        await self.nudge(instance)

    async def nudge(self, instance: Instance, ctx: Context | None = None) -> None:
        """Cast what moves this instance on; nothing is lost when it does not arrive."""
        ctx = ctx or await self.context_of(instance.id)
        order = await self.db.read(lambda db: instances.get_order(db, instance.id))
        try:
            async with failpoint("nudge"):
                await self._cast(ctx, instance, order)
        except BusError as error:
            log.info("%s: %s not sent, will be repeated: %s", order.name, instance.task_state, error)

    async def _cast(self, ctx: Context, instance: Instance, order: LaunchOrder) -> None:
        undoing, leaving = instance.task_state in UNDOING, instance.task_state is TaskState.RESCHEDULING
        if undoing and instance.host is None:
            await self._end_hostless(ctx, instance, order)
        elif undoing or leaving:
            await self.bus.cast(ctx, TerminateInstance(order=order, keep_address=leaving), host=instance.host)
        elif instance.host is None:
            await self.bus.cast(ctx, ScheduleInstance(order=order))
        elif instance.task_state in BY_TASK:
            due = await self.db.read(lambda db: moves.get_due(db, instance.id))
            change = ChangeInstance(order=order, task=instance.task_state, deadline_ms=due.deadline_ms)
            await self.bus.cast(ctx, change, host=instance.host)
        else:
            await self.bus.cast(ctx, RunInstance(order=order), host=instance.host)

    async def gone(self, ctx: Context, instance_id: InstanceId, generation: int) -> None:
        """The end of a failed launch or of a deletion, or of a launch's time on one host."""
        now = self.clock.now_ms()
        later = now + self.wait(1) * 1000
        found = await self.journal.record(
            ctx, lambda db: moves.become_gone(db, instance_id, generation, now_ms=now, next_check_ms=later)
        )
        if found.task_state is TaskState.SCHEDULING:
            await self.nudge(found, ctx)

    async def _end_hostless(self, ctx: Context, instance: Instance, order: LaunchOrder) -> None:
        """There is nothing to undo but the address that it kept on its way from a host to the next."""
        if order.tried_hosts:
            release = ReleaseFixedIp(instance_id=instance.id)
            await self.bus.call(ctx, release, timeout=RELEASE_TIMEOUT)
        await self.gone(ctx, instance.id, instance.generation)

    async def fail(self, ctx: Context, instance: Instance, fault: Fault) -> Instance:
        """Keep the fault and begin to undo; ERROR is written when nothing is left."""
        now = self.clock.now_ms()
        later = now + self.wait(1) * 1000
        failed = await self.journal.record(
            ctx,
            lambda db: moves.begin_cleaning(
                db, instance.id, instance.generation, fault, now_ms=now, next_check_ms=later
            ),
            message=f"{fault.step} failed: {fault.message}",
        )
        if failed.host is None:
            await self.nudge(failed, ctx)
        return failed

    def _overdue(self, due: Due) -> str | None:
        """The setting whose time a launch has taken."""
        instance, now = due.instance, self.clock.now_ms()
        state = instance.task_state
        if instance.vm_state is not VmState.BUILDING or state is None or state in UNDOING:
            return None
        if now > due.deadline_ms:
            return "[controller] build_timeout_s"
        since = max(instance.state_since_ms, self.started_ms)
        return f"[timeouts] {state}_s" if now > since + self.rules.state_timeouts[state] * 1000 else None

    async def _give_up(self, instance: Instance, setting: str) -> None:
        ctx = await self.context_of(instance.id)
        waited = (self.clock.now_ms() - instance.created_ms) / 1000
        fault = Fault(
            code="build_timeout",
            step=instance.task_state or "",
            message=f"the launch was still {instance.task_state} after {waited:.0f} s",
            hint=f"`launcher trace` shows what it waited for; {setting} is the limit",
            request_id=ctx.request_id,
            at_ms=int(self.clock.now_ms()),
        )
        failed = await self.fail(ctx, instance, fault)
        if failed.host is not None:
            await self.nudge(failed)

    def first_look(self, state: TaskState) -> float:
        """When to look at an instance that comes to this state now, if nothing is heard of it before, in ms.

        Raises BadRequest for one that no host begins.
        """
        if state not in self.rules.state_timeouts:
            raise BadRequest(f"{state} is no step that a host begins")
        return self.clock.now_ms() + min(STEP_PATIENCE, self.rules.state_timeouts[state]) * 1000

    def wait(self, nudges: int) -> float:
        """Seconds until the next look: 1, 2, 4 … 60, give or take a fifth."""
        return float(min(LONGEST_WAIT, 2.0 ** min(nudges, 6)) * self.rng.uniform(0.8, 1.2))

    async def context_of(self, instance_id: InstanceId) -> Context:
        """The request that the instance came from, so that what follows stands in its trace."""
        return await self.db.read(lambda db: _context(db, instance_id))


def _context(db: sqlite3.Connection, instance_id: InstanceId) -> Context:
    instance = instances.get(db, instance_id)
    return Context(
        request_id=instances.get_request_id(db, instance_id),
        project_id=instance.project_id,
        user_id=instance.user_id,
        role=UserRole.MEMBER,
        trace_id=instances.get_traces(db, instance_id)[-1],
    )
