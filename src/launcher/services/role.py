"""What every role is: a topic, a table of routes, work that recurs, and spans that find their way to the controller."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import Random
from typing import ClassVar

from launcher.accounts import UserRole
from launcher.bus import Bus
from launcher.clock import Clock
from launcher.errors import BusError, LauncherError
from launcher.identity import new_request_id, new_trace_id
from launcher.messages.reports import RecordSpans
from launcher.messaging import Context, Route
from launcher.models import Span

log = logging.getLogger(__name__)

SPAN_INTERVAL = 0.05
SPANS_KEPT = 10_000


class Role:
    """One of the five. Roles meet on the bus only; `serving()` is their whole life."""

    topic: ClassVar[str]

    def __init__(self, *, host: str, bus: Bus, clock: Clock, rng: Random) -> None:
        self.host, self.bus, self.clock, self.rng = host, bus, clock, rng
        self.spans: list[Span] = []
        self.kept = asyncio.Event()

    @property
    def routes(self) -> Sequence[Route]:
        """The messages it answers."""
        return ()

    @property
    def notices(self) -> Sequence[Route]:
        """The notices it listens to."""
        return ()

    @property
    def recurring(self) -> Sequence[tuple[float, Callable[[], Awaitable[object]]]]:
        """What it does again and again: seconds between, and what."""
        return ()

    async def start(self) -> None:
        """Make ready to serve; called before the first message can arrive."""

    async def recover(self) -> None:
        """Take up what an earlier process left; called when messages can arrive and leave."""

    async def stop(self) -> None:
        """Let go of what `start` took; called after the last message was handled."""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Start, answer the topic inside the block, finish the work under way, stop."""
        await self.start()
        try:
            async with (
                self.bus.listen(self.notices),
                self.bus.serve(self.topic, self.host, self.routes, self.keep),
                self._recurring(),
            ):
                await self.recover()
                yield
        finally:
            await self.stop()

    def keep(self, span: Span) -> None:
        """Remember a finished piece of work for the next batch; when nobody takes them, the oldest are lost."""
        self.spans.append(span)
        del self.spans[:-SPANS_KEPT]
        self.kept.set()

    def own_context(self) -> Context:
        """For work that no request asked for."""
        return Context(
            request_id=new_request_id(self.rng),
            project_id="",
            user_id=self.topic,
            role=UserRole.ADMIN,
            trace_id=new_trace_id(self.rng),
        )

    @contextlib.asynccontextmanager
    async def _recurring(self) -> AsyncIterator[None]:
        works = [(SPAN_INTERVAL, self._send_next_spans), *self.recurring]
        tasks = [asyncio.ensure_future(_forever(seconds, work)) for seconds, work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(LauncherError):
                await self._send_spans()

    async def _send_next_spans(self) -> None:
        """An idle role sleeps here."""
        await self.kept.wait()
        await asyncio.sleep(SPAN_INTERVAL)
        await self._send_spans()

    async def _send_spans(self) -> None:
        self.kept.clear()
        if not self.spans:
            return
        batch, self.spans = self.spans, []
        try:
            await self.bus.cast(self.own_context(), RecordSpans(spans=tuple(batch)))
        except BusError:
            self.spans = (batch + self.spans)[-SPANS_KEPT:]
            self.kept.set()


async def _forever(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    """Run `work` every `seconds`; a failure is logged and the next turn comes all the same."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except LauncherError as error:
            log.warning("%s: %s", getattr(work, "__qualname__", work), error)
        except Exception:
            log.exception("%s failed", getattr(work, "__qualname__", work))
