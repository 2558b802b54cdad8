"""Who guesses is stopped: failures in a row lock a name for a while."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.clock import Clock


@dataclass
class _Record:
    failures: int = 0
    until_ms: float = 0.0


class Lockout:
    """After `limit` failures in a row a name is locked for `seconds`, whatever is shown then; 0 locks nobody.

    Kept in memory, for names that exist only, so nobody can fill it: a restart forgets.
    """

    def __init__(self, *, clock: Clock, limit: int, seconds: float) -> None:
        self.clock, self.limit, self.seconds = clock, limit, seconds
        self.records: dict[str, _Record] = {}

    def is_locked(self, name: str) -> bool:
        record = self.records.get(name)
        return record is not None and record.until_ms > self.clock.now_ms()

    def note(self, name: str, *, passed: bool) -> bool:
        """Whether this failure has locked the name."""
        if passed or not self.limit:
            self.records.pop(name, None)
            return False
        record = self.records.setdefault(name, _Record())
        record.failures += 1
        if record.failures < self.limit:
            return False
        self.records[name] = _Record(until_ms=self.clock.now_ms() + self.seconds * 1000)
        return True
