"""Messages that nobody could read, where an operator can see them: /healthz and /metrics have their number."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

from launcher.errors import BadMessage

KEPT, LENGTH = 100, 65536

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeadLetter:
    """A poison message and what is wrong with it; of a long one the beginning."""

    routing_key: str
    reason: str
    body: bytes


class DeadLetters:
    """All are counted, the newest are kept."""

    def __init__(self) -> None:
        self.count = 0
        self.newest: deque[DeadLetter] = deque(maxlen=KEPT)

    def bury(self, key: str, error: BadMessage, body: bytes) -> None:
        log.warning("dead letter on %s: %s", key, error)
        self.count += 1
        self.newest.append(DeadLetter(key, error.message, body[:LENGTH]))
