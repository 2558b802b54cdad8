"""The product's `MemoryBus` in bad weather: messages are lost, doubled, late, out of order, or sent again long after.

Every process has a bus of its own; what they share is the `Broker`. Roles in one process lose it with the process.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable
from random import Random
from typing import TypeVar

from launcher.bus import CALL_TIMEOUT, Dispatcher, MemoryBus, _Delivery, _Queue
from launcher.errors import BusUnavailable, NoRoute
from launcher.messages.reports import RecordSpans
from launcher.messaging import Call, Cast, Context, Message, Notice
from tests.simulation.life import Life
from tests.simulation.loop import LoopClock

R = TypeVar("R")
Arriving = list[tuple[float, _Delivery]]


class Broker:
    """Queues and listeners that outlive the processes around them."""

    def __init__(self) -> None:
        self.queues: dict[str, _Queue] = {}
        self.listeners: dict[str, list[Dispatcher]] = {}


class SimBus(MemoryBus):
    """A side effect at every cast and every call. Spans are lost: they move nothing, and there are many."""

    def __init__(self, life: Life, broker: Broker, rng: Random) -> None:
        super().__init__(clock=LoopClock(life.world.loop), rng=rng)
        self.life, self.ends_life = life, False
        self.queues, self.listeners = broker.queues, broker.listeners

    async def cast(self, ctx: Context, message: Cast, *, host: str | None = None) -> None:
        if isinstance(message, RecordSpans):
            return
        await self._begin(message)
        await super().cast(ctx, message, host=host)
        await self.life.look()

    async def call(
        self, ctx: Context, message: Call[R], *, host: str | None = None, timeout: float = CALL_TIMEOUT
    ) -> R:
        await self._begin(message)
        self.life.calls += 1
        try:
            return await super().call(ctx, message, host=host, timeout=timeout)
        finally:
            self.life.calls -= 1
            await self.life.look()

    async def notify(self, ctx: Context, message: Notice) -> None:
        await self.life.look()
        if self.life.world.weather() == "lossy" and self._chance(0.25):
            return
        await super().notify(ctx, message)

    async def _begin(self, message: Message) -> None:
        self.ends_life = await self.life.begin(f"send.{message.method}")

    async def _consume(self, key: str, queue: _Queue, dispatcher: Dispatcher) -> None:
        task = asyncio.current_task()
        assert task
        self.life.consumers.append(task)
        await self.life.look()  # killed before it began, it must not take a message from the living
        await super()._consume(key, queue, dispatcher)

    def _put(self, key: str, delivery: _Delivery) -> None:
        """Give the message to the weather; a process that was to die after sending it does."""
        try:
            if key not in self.queues:
                raise NoRoute(f"nobody is bound to {key}")
            self._blow(key, delivery)
        finally:
            if self.ends_life:
                self.life.die("after")

    def _blow(self, key: str, delivery: _Delivery) -> None:
        """What arrives, after how many seconds; the first may be refused at once."""
        arriving = self._fate(delivery)
        for seconds, each in arriving:
            if seconds:
                self.life.world.later(functools.partial(super()._put, key, each), after=seconds)
            else:
                super()._put(key, each)
        if self.life.world.weather() == "failing" and self._chance(0.125 if arriving else 1.0):
            raise BusUnavailable("the connection was lost; sent or not, who knows")

    def _fate(self, delivery: _Delivery) -> Arriving:
        fates: dict[str, tuple[float, Callable[[], Arriving]]] = {
            "lossy": (0.25, lambda: []),
            "failing": (0.125, lambda: []),
            "doubling": (0.5, lambda: [(0.0, delivery), (self._seconds(3), delivery)]),
            "delaying": (0.5, lambda: [(self._seconds(60), delivery)]),
            "reordering": (1.0, lambda: [(self._seconds(2), delivery)]),
            "deaf": (0.2, lambda: [(0.0, _unanswered(delivery, delivery.expires_ms))]),
            "replaying": (
                1.0,
                lambda: [(0.0, delivery), (self._seconds(self._choice(5, 60, 150)), _unanswered(delivery, math.inf))],
            ),
        }
        probability, fate = fates.get(self.life.world.weather(), (0.0, list))
        return fate() if self._chance(probability) else [(0.0, delivery)]

    def _seconds(self, most: float) -> float:
        return self.life.world.rng.uniform(0.001, most)

    def _choice(self, *most: float) -> float:
        return self.life.world.rng.choice(most)

    def _chance(self, probability: float) -> bool:
        return self.life.world.rng.random() < probability


def _unanswered(delivery: _Delivery, expires_ms: float) -> _Delivery:
    """The same message; what is answered to it gets lost."""
    return _Delivery(delivery.body, expires_ms, delivery.reply and _nobody)


async def _nobody(_: bytes) -> None:
    """Where a lost answer goes."""
