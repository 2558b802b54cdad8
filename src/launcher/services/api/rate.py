"""How often one credential may ask."""

from __future__ import annotations

from collections import OrderedDict

from launcher.clock import Clock
from launcher.errors import TooManyRequests

KEPT = 10_000


class Rate:
    """A bucket for each credential: `per_second` run in, a second's worth is the most it holds. 0: no limit."""

    def __init__(self, *, clock: Clock, per_second: float) -> None:
        self.clock, self.per_second = clock, per_second
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, credential: str) -> None:
        """Raises TooManyRequests."""
        if not self.per_second:
            return
        now, most = self.clock.now_ms(), max(1.0, self.per_second)
        left, since = self.buckets.pop(credential, (most, now))
        left = min(most, left + (now - since) / 1000 * self.per_second)
        self.buckets[credential] = (left - 1 if left >= 1 else left, now)
        if len(self.buckets) > KEPT:
            self.buckets.popitem(last=False)
        if left < 1:
            raise TooManyRequests(
                f"more than {self.per_second:g} requests a second by one credential", hint="ask again in a second"
            )
