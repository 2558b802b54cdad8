"""What brings volumes on: their hosts' words turned into moves, and what is not confirmed in time asked for again."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from launcher.bus import Bus
from launcher.clock import Clock
from launcher.db import instances, volume_moves, volumes
from launcher.db.database import Database
from launcher.db.volume_moves import DueVolume
from launcher.errors import BusError, StaleGeneration
from launcher.failpoints import failpoint
from launcher.messages.volumes import (
    ClaimVolume,
    GetAttachments,
    ReportVolumeDone,
    ReportVolumeFault,
    ScheduleVolume,
    WorkOnVolume,
)
from launcher.messaging import Context, Route
from launcher.models import Event, Fault, HostState
from launcher.services.controller.journal import Journal
from launcher.services.controller.reports import WAITING
from launcher.volumes import ENDINGS, TRIED_FOR_EVER, VolumeDisk, VolumeId, VolumeOrder, VolumeStatus

log = logging.getLogger(__name__)

BATCH = 100
FIRST_LOOK, PATIENCE = 5.0, 60.0
"""Seconds until an order that nobody took is sent again, and until one that a host is at is."""
LONGEST_WAIT = 60.0
SAID = {VolumeStatus.ATTACHING: "attached", VolumeStatus.DETACHING: "detached"}


class VolumeWork:
    """A report for a generation that is past raises StaleGeneration, which tells its sender to drop the work.

    `timeout` seconds is how long a volume may wait for being made.
    """

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        rng: Random,
        journal: Journal,
        context: Callable[[], Context],
        max_attempts: int,
        timeout: float,
    ) -> None:
        self.db, self.bus, self.clock, self.rng, self.journal = db, bus, clock, rng, journal
        self.context, self.max_attempts, self.timeout = context, max_attempts, timeout

    @property
    def routes(self) -> Sequence[Route]:
        return [
            ClaimVolume.to(self.claim_volume),
            ReportVolumeDone.to(self.report_done),
            ReportVolumeFault.to(self.report_fault),
            GetAttachments.to(self.get_attachments),
        ]

    def accepted(self, ctx: Context) -> dict[str, Any]:
        """What the row of everything new has."""
        return {
            "project_id": ctx.project_id,
            "user_id": ctx.user_id,
            "request_id": ctx.request_id,
            "trace_id": ctx.trace_id,
            "next_check_ms": self.later(),
        }

    def later(self, seconds: float = FIRST_LOOK) -> float:
        return self.clock.now_ms() + seconds * 1000

    # --- what the hosts say --------------------------------------------------------------------------

    async def claim_volume(self, ctx: Context, message: ClaimVolume) -> None:
        later = self.later(PATIENCE)
        await self.db.write(
            lambda db: volume_moves.claim(
                db, message.volume_id, message.generation, message.status, host=message.host, next_check_ms=later
            )
        )

    async def report_done(self, ctx: Context, report: ReportVolumeDone) -> None:
        """An instance's own log has what it got and lost."""
        now = self.clock.now_ms()

        def work(db: sqlite3.Connection) -> Event | None:
            before = volumes.get_order(db, report.volume_id)
            volume_moves.end(db, report.volume_id, report.generation, report.status, host=report.host, now_ms=now)
            if report.status not in SAID or before.machine is None:
                return None
            name = volumes.get(db, report.volume_id).name
            machine = instances.get(db, before.machine.instance_id)
            message = f"volume {name} {SAID[report.status]}: /dev/{before.device}"
            return self.journal.note(db, machine, message=message)

        async with failpoint("volume.end"):
            event = await self.db.write(work)
        if event is not None:
            await self.journal.publish(ctx, event)

    async def report_fault(self, ctx: Context, report: ReportVolumeFault) -> None:
        """What may pass is tried again, at most `max_attempts` times; an end or a detachment for ever."""
        due = await self.db.read(lambda db: volume_moves.get_due(db, report.volume_id))
        attempts = due.attempts + (report.code not in WAITING)
        again = report.status in TRIED_FOR_EVER or (report.retriable and attempts < self.max_attempts)
        fault = self._fault(ctx, report)

        def work(db: sqlite3.Connection) -> None:
            generation, status, now = report.generation, report.status, self.clock.now_ms()
            if again:
                later = now + self._wait(attempts) * 1000
                volume_moves.try_again(
                    db, report.volume_id, generation, status, fault, attempts=attempts, next_check_ms=later
                )
            else:
                volume_moves.fail(db, report.volume_id, generation, status, fault, host=report.host, now_ms=now)

        async with failpoint("volume.end"):
            await self.db.write(work)

    async def get_attachments(self, ctx: Context, message: GetAttachments) -> list[VolumeDisk]:
        def read(db: sqlite3.Connection) -> list[VolumeDisk]:
            found = instances.find_live(db, message.instance_id)
            if found is None or found.generation != message.generation:
                raise StaleGeneration(f"instance {message.instance_id} has moved on")
            return volumes.list_disks(db, message.instance_id)

        return await self.db.read(read)

    # --- the reconcile loop --------------------------------------------------------------------------

    async def recover(self) -> None:
        """At the start of this process: everything unfinished is due at once."""
        now = self.clock.now_ms()
        await self.db.write(lambda db: volume_moves.look_at_unfinished(db, now))
        await self.tick()

    async def hear_of(self, host: HostState) -> None:
        """A compute process is new: go on with what its predecessor had begun. What it has bears numbers that a lost
        database may have given; they are not given again.
        """
        now = self.clock.now_ms()
        if host.highest_volume:
            await self.db.write(lambda db: volumes.skip_numbers(db, host.highest_volume))
        await self.db.write(lambda db: volume_moves.look_at_unfinished(db, now, host=host.name))
        await self.tick()

    async def tick(self) -> None:
        """Look at everything that is due."""
        now = self.clock.now_ms()
        for due in await self.db.read(lambda db: volume_moves.list_due(db, now, BATCH)):
            try:
                await self._look_at(due)
            except StaleGeneration:
                continue

    async def _look_at(self, due: DueVolume) -> None:
        waited = (self.clock.now_ms() - due.created_ms) / 1000
        if due.status is VolumeStatus.CREATING and waited > self.timeout:
            await self._give_up(due, waited)
            return
        later = self.later(self._wait(due.nudges))
        await self.db.write(lambda db: volume_moves.nudged(db, due, next_check_ms=later))
        await self.nudge(self.context(), due.ref.volume_id)

    async def accept(self, ctx: Context, work: Callable[[sqlite3.Connection], VolumeId]) -> VolumeId:
        """Keep the new row that `work` makes, and have it made."""
        async with failpoint("volume.accept"):
            volume_id = await self.db.write(work)
        await self.nudge(ctx, volume_id)
        return volume_id

    async def move(self, ctx: Context, work: Callable[[sqlite3.Connection], tuple[VolumeId, bool]]) -> VolumeId:
        """`work` moves a row, or says that there is nothing to do."""
        async with failpoint("volume.move"):
            volume_id, moved = await self.db.write(work)
        if moved:
            await self.nudge(ctx, volume_id)
        return volume_id

    async def nudge(self, ctx: Context, volume_id: VolumeId) -> None:
        """Cast what moves it on, if anything does; nothing is lost when that does not arrive."""
        order, host = await self.db.read(lambda db: _order(db, volume_id))
        if order.status not in ENDINGS:
            return
        try:
            async with failpoint("volume.nudge"):
                await self._cast(ctx, order, host)
        except BusError as error:
            log.info("%s: %s not sent, will be repeated: %s", order.name, order.status, error)

    async def _cast(self, ctx: Context, order: VolumeOrder, host: str | None) -> None:
        if host is not None:
            await self.bus.cast(ctx, WorkOnVolume(order=order), host=host)
        elif order.status is VolumeStatus.CREATING:
            await self.bus.cast(ctx, ScheduleVolume(order=order))
        elif order.status is VolumeStatus.DELETING:  # no host ever had it
            now = self.clock.now_ms()
            await self.db.write(lambda db: volume_moves.end_hostless(db, order.volume_id, order.generation, now_ms=now))

    async def _give_up(self, due: DueVolume, waited: float) -> None:
        fault = Fault(
            code="volume_timeout",
            step=due.status,
            message=f"{due.ref.name} was still {due.status} after {waited:.0f} s",
            hint="is its host alive? [controller] build_timeout_s is the limit",
            request_id=self.context().request_id,
            at_ms=int(self.clock.now_ms()),
        )
        now = self.clock.now_ms()
        await self.db.write(
            lambda db: volume_moves.fail(
                db, due.ref.volume_id, due.generation, due.status, fault, host=due.host, now_ms=now
            )
        )

    def _wait(self, nudges: int) -> float:
        """Seconds until the next look: 1, 2, 4 … 60, give or take a fifth."""
        return float(min(LONGEST_WAIT, 2.0 ** min(nudges, 6)) * self.rng.uniform(0.8, 1.2))

    def _fault(self, ctx: Context, report: ReportVolumeFault) -> Fault:
        return Fault(
            code=report.code,
            step=report.status,
            message=report.message,
            hint=report.hint,
            request_id=ctx.request_id,
            at_ms=int(self.clock.now_ms()),
        )


def _order(db: sqlite3.Connection, volume_id: VolumeId) -> tuple[VolumeOrder, str | None]:
    return volumes.get_order(db, volume_id), volume_moves.get_due(db, volume_id).host
