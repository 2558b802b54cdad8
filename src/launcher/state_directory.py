"""The state directory: one launcher at a time, and a name that stays with it."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom

from launcher.errors import Conflict
from launcher.identity import new_span_id


@contextlib.contextmanager
def alone_in(state: Path, *, hint: str = "stop it, or give --state DIR") -> Iterator[None]:
    """One launcher per directory: the state's, and the host's, whose taps and chains bear no launcher's name."""
    state.mkdir(parents=True, exist_ok=True, mode=0o711)
    with (state / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another launcher uses {state}", hint=hint) from None
        yield


def keep_identity(state: Path) -> str:
    """What tells this launcher from others; it stays with the state directory, even when the database is lost."""
    path = state / "launcher-id"
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.write_text(new_span_id(SystemRandom()))
        draft.replace(path)
    return path.read_text()
