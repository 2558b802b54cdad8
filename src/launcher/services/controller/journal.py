"""The one way an instance moves: the row, a line in the event log, then a notice to whoever watches."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable

from launcher.bus import Bus
from launcher.clock import Clock
from launcher.db import events, instances, members, versions
from launcher.db.database import Database
from launcher.errors import BusError
from launcher.failpoints import failpoint
from launcher.messages.notices import InstanceChanged
from launcher.messaging import Context
from launcher.models import Event, Instance
from launcher.services.controller.refresh import Refresh


class Journal:
    """Commits moves together with their events and publishes them afterwards.

    What a move changes for the other members of the instance's groups is part of it, and `refresh` hears of that.
    """

    def __init__(self, *, db: Database, bus: Bus, clock: Clock, refresh: Refresh) -> None:
        self.db, self.bus, self.clock, self.refresh = db, bus, clock, refresh

    async def record(
        self, ctx: Context, move: Callable[[sqlite3.Connection], Instance], *, message: str = ""
    ) -> Instance:
        """Raises what `move` raises; then nothing was changed and nobody is told."""

        def work(db: sqlite3.Connection) -> tuple[Instance, Event, int]:
            instance = move(db)
            members.settle(db, instance)
            return instance, self.note(db, instance, message=message), versions.get(db)

        async with failpoint("move"):
            instance, event, version = await self.db.write(work)
        self.refresh.hear_of(version)
        await self.publish(ctx, event)
        return instance

    def note(self, db: sqlite3.Connection, instance: Instance, *, message: str = "") -> Event:
        """The event's row, within the caller's transaction."""
        return events.add(
            db,
            instance,
            request_id=instances.get_request_id(db, instance.id),
            trace_id=instances.get_traces(db, instance.id)[-1],
            at_ms=self.clock.now_ms(),
            message=message,
        )

    async def publish(self, ctx: Context, *published: Event) -> None:
        """Watchers that miss a notice find the event in the log."""
        with contextlib.suppress(BusError):
            for event in published:
                await self.bus.notify(ctx, InstanceChanged(event=event))
