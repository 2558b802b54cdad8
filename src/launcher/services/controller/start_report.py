"""What a start found and did, in one line of the log: adopted, resumed, repaired, started again, removed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from launcher.auditing import ArtefactKind, Finding
from launcher.clock import Clock
from launcher.models import InstanceId

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds that the hosts' word on their machines is waited for."""
LOOKS, BETWEEN_LOOKS = 2, 5.0
"""After that the sweep looks, with so many seconds before each, so that what a crash left behind goes soon."""
SHOWN = 10


class StartReport:
    """Opened by a compute host that is new; told when all its machines are accounted for. Counts, it moves nothing.

    `sweep` looks once and says what it removed; without one nothing is removed.
    """

    def __init__(self, *, clock: Clock, sweep: Callable[[], Awaitable[Sequence[Finding]]] | None) -> None:
        self.clock, self.sweep = clock, sweep
        self._begin()

    def _begin(self) -> None:
        self.resumed: list[str] = []
        self.adopted: list[str] = []
        self.repaired: list[str] = []
        self.started_again: list[str] = []
        self.removed: list[str] = []
        self.waiting: dict[InstanceId, str] = {}
        self.looks, self.due_ms, self.limit_ms = 0, 0.0, 0.0

    def resume(self, names: Collection[str]) -> None:
        """These were under way and are gone on with."""
        self.resumed.extend(names)

    def expect(self, machines: dict[InstanceId, str]) -> None:
        """A host will say what became of these, by their names."""
        now = self.clock.now_ms()
        self.waiting |= machines
        self.limit_ms = now + PATIENCE * 1000
        self.due_ms = now + BETWEEN_LOOKS * 1000 if self.sweep is not None else now

    def verified(self, instance_id: InstanceId, mended: Collection[ArtefactKind]) -> None:
        """It runs; what it lacked is back."""
        name = self.waiting.pop(instance_id, None)
        if name is not None:
            self.adopted.append(name)
            if mended:
                self.repaired.append(f"{name}: {', '.join(sorted(mended))}")

    def missed(self, instance_id: InstanceId) -> None:
        """Its machine was gone."""
        name = self.waiting.pop(instance_id, None)
        if name is not None:
            self.started_again.append(name)

    async def tick(self) -> None:
        now = self.clock.now_ms()
        if not self.limit_ms or now < self.due_ms or (self.waiting and now < self.limit_ms):
            return
        if self.sweep is not None and self.looks < LOOKS:
            self.looks, self.due_ms = self.looks + 1, now + BETWEEN_LOOKS * 1000
            self.removed.extend(finding.name for finding in await self.sweep())
        if self.sweep is None or self.looks == LOOKS:
            log.info("%s", str(self))
            self._begin()

    def __str__(self) -> str:
        parts = {
            "adopted": self.adopted,
            "resumed": self.resumed,
            "repaired": self.repaired,
            "missing": self.started_again,
            "removed": self.removed,
            "not heard of": list(self.waiting.values()),
        }
        return "start: " + "; ".join(_counted(what, names) for what, names in parts.items())


def _counted(what: str, names: Sequence[str]) -> str:
    shown = [*names[:SHOWN], *([f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else [])]
    return f"{len(names)} {what}" + (f" ({', '.join(shown)})" if shown else "")
