"""Time is passed in, so that a test can move it. Sleeping belongs to the event loop, which a test can replace."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> float:
        """Milliseconds since the epoch (UTC), with fractions."""


class SystemClock:
    """Wall time at start, moved on by the monotonic clock, so that a jump of the wall clock breaks no deadline."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now_ms(self) -> float:
        return (self._offset + time.monotonic()) * 1000
