"""An event loop with a clock of its own and a seed: a day passes in a second, and the same way twice.

Time moves only when nothing else is left to do, and then straight to the next timer. Whatever is ready at one moment
runs in an order that the seed chooses, so other seeds try other races. There are no file descriptors: code under
simulation touches the world through the ports in `life.py` only.

`_ready` and `_run_once` are asyncio's own; `test_loop.py` notices when a Python release changes what they mean.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from random import Random
from typing import Any

EPOCH = 1_700_000_000.0
"""When every simulation begins, in seconds since the epoch."""


class Stillness(selectors.BaseSelector):
    """Nothing ever arrives; to wait is to move the loop's clock."""

    loop: SeededLoop

    def __init__(self) -> None:
        self.keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self.keys[fileobj] = key = selectors.SelectorKey(fileobj, 0, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self.keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self.keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits for somebody else: no timer is left")
        self.loop.now += max(timeout, 0.0)
        return []


class SeededLoop(asyncio.SelectorEventLoop):
    """`now` is the virtual time in seconds since its start."""

    _ready: Any

    def __init__(self, rng: Random) -> None:
        self.now, self.rng = 0.0, rng
        stillness = Stillness()
        stillness.loop = self
        super().__init__(stillness)

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if len(self._ready) > 1:
            ready = list(self._ready)
            self.rng.shuffle(ready)
            self._ready.clear()
            self._ready.extend(ready)
        super()._run_once()  # type: ignore[misc]

    def bury(self) -> None:
        """Cancel what is left until nothing is, then close."""
        while left := asyncio.all_tasks(self):
            for task in left:
                task.cancel()
            self.run_until_complete(asyncio.wait(left, timeout=100.0))
        self.close()


class LoopClock:
    """The product's clock, read from the loop."""

    def __init__(self, loop: SeededLoop) -> None:
        self.loop = loop

    def now_ms(self) -> float:
        return (EPOCH + self.loop.now) * 1000
