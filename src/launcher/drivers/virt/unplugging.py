"""Who waits for a guest to let go of a disk, and the event that says it did. Lives on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from launcher.models import InstanceId


class Unplugging:
    """One waits at a time per disk; an event that nobody waits for is no news."""

    def __init__(self) -> None:
        self.waiting: dict[tuple[InstanceId, str], asyncio.Event] = {}

    @contextlib.contextmanager
    def expected(self, instance_id: InstanceId, alias: str) -> Iterator[asyncio.Event]:
        """Before the guest is asked, so that no answer comes too early."""
        event = self.waiting[instance_id, alias] = asyncio.Event()
        try:
            yield event
        finally:
            self.waiting.pop((instance_id, alias), None)

    def observe(self, instance_id: InstanceId, alias: str) -> None:
        if event := self.waiting.get((instance_id, alias)):
            event.set()
