"""Per instance one thing happens at a time, and never for a generation that is past."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from launcher.errors import StaleGeneration
from launcher.models import InstanceId, LaunchOrder


class _Turn:
    """One instance's: who is at work, who waits, and the newest generation heard of."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.newest = 0
        self.asked: set[tuple[int, str]] = set()


class Turns:
    """Kept while somebody is at work for an instance; after that the controller's answers fence what is late."""

    def __init__(self) -> None:
        self._turns: dict[InstanceId, _Turn] = {}

    @contextlib.asynccontextmanager
    async def take(self, order: LaunchOrder, errand: str = "launch") -> AsyncIterator[bool]:
        """Wait for the instance and hold it; False when this generation is past or has this errand under way."""
        turn, asked = self._turns.setdefault(order.instance_id, _Turn()), (order.generation, errand)
        if order.generation < turn.newest or asked in turn.asked:
            yield False
            return
        self.fence(order)
        async with self._hold(order.instance_id, turn, asked):
            yield order.generation >= turn.newest

    @contextlib.asynccontextmanager
    async def take_idle(self, instance_id: InstanceId) -> AsyncIterator[bool]:
        """Hold the instance, of whatever generation; False, at once, when somebody is at work for it."""
        if instance_id in self._turns:
            yield False
            return
        turn = self._turns[instance_id] = _Turn()
        async with self._hold(instance_id, turn, (0, "idle")):
            yield True

    @contextlib.asynccontextmanager
    async def _hold(self, instance_id: InstanceId, turn: _Turn, asked: tuple[int, str]) -> AsyncIterator[None]:
        turn.asked.add(asked)
        try:
            async with turn.lock:
                yield
        finally:
            turn.asked.discard(asked)
            if not turn.asked:
                self._turns.pop(instance_id, None)

    def fence(self, order: LaunchOrder) -> None:
        """From now on older generations of the instance are stale."""
        turn = self._turns.setdefault(order.instance_id, _Turn())
        turn.newest = max(turn.newest, order.generation)

    def check(self, order: LaunchOrder) -> None:
        """Raises StaleGeneration when a newer generation was heard of while this one is at work."""
        turn = self._turns.get(order.instance_id)
        if turn is not None and order.generation < turn.newest:
            raise StaleGeneration(f"{order.name}: generation {order.generation} was overtaken by {turn.newest}")
