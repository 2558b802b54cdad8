"""/events: the event log as server-sent events, first what was missed, then live."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

from aiohttp import web
from pydantic import Field

from launcher.bus import Bus
from launcher.errors import BadRequest
from launcher.messages.instances import GetInstance, ListEvents
from launcher.messages.notices import InstanceChanged
from launcher.messaging import Context
from launcher.models import LARGEST, Event, Model
from launcher.services.api.endpoint import Ask

QUIET = 10.0
LAST_EVENT_ID = r"^[0-9]{1,19}$"


class EventsQuery(Model):
    after: int = Field(default=0, ge=0, le=LARGEST)
    instance_id: str | None = None
    follow: bool = True


class Watch:
    """A notice only wakes the watchers; what they send they read from the log, in order and without a gap."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus
        self.changed = asyncio.Event()
        self.closing = False

    async def hear_event(self, ctx: Context, message: InstanceChanged) -> None:
        self._wake()

    def close(self) -> None:
        """Let every watcher's answer end."""
        self.closing = True
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def stream(self, ask: Ask) -> web.StreamResponse:
        query: EventsQuery = ask.query
        after = max(query.after, _last_seen(ask))
        if query.instance_id is not None:  # while a refusal can still be told
            await self.bus.call(ask.ctx, GetInstance(instance_id=query.instance_id))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(ask.request)
        with contextlib.suppress(ConnectionError):
            async for event in self._events(ask.ctx, after, query):
                await response.write(_frame(event) if event else b": nothing new\n\n")
            await response.write_eof()
        return response

    async def _events(self, ctx: Context, after: int, query: EventsQuery) -> AsyncIterator[Event | None]:
        """Events as they come; None now and then, so that a client that has left is noticed."""
        while True:
            changed = self.changed
            found = await self.bus.call(ctx, ListEvents(after=after, instance_id=query.instance_id))
            for event in found:
                after = event.seq
                yield event
            if self.closing or (not query.follow and not found):
                return
            if found:
                continue
            try:
                async with asyncio.timeout(QUIET):
                    await changed.wait()
            except TimeoutError:
                yield None


def _last_seen(ask: Ask) -> int:
    """What a browser that lost its connection had seen (HTML standard, section 9.2.4)."""
    text = ask.headers.get("Last-Event-ID") or "0"
    if not re.fullmatch(LAST_EVENT_ID, text) or int(text) > LARGEST:
        raise BadRequest("Last-Event-ID is not the id of an event", field="Last-Event-ID")
    return int(text)


def _frame(event: Event) -> bytes:
    return f"id: {event.seq}\nevent: instance\ndata: {event.model_dump_json()}\n\n".encode()
