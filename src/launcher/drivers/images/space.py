"""What launches may still fill of the host's disk."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from launcher.drivers.images.files import MIB, amount
from launcher.errors import InsufficientSpace, ProgramFailed


@contextlib.contextmanager
def named_when_full(path: Path) -> Iterator[None]:
    """A program that ran out of space says so in its own words only. Raises InsufficientSpace for these."""
    try:
        yield
    except ProgramFailed as error:
        if "No space left" not in error.message:
            raise
        raise InsufficientSpace(f"no space left for {path}", hint="free space there") from error


class Space:
    """What the file system of `path` has free, less `reserve_mb` for what guests still write, less what was promised
    to launches under way: two that begin at once do not count on the same bytes. Used from any thread.
    """

    def __init__(self, path: Path, *, reserve_mb: int) -> None:
        self.path, self.reserve_mb = path, reserve_mb
        self._promised, self._lock = 0, threading.Lock()

    def left(self) -> int:
        """Bytes; never less than 0."""
        return max(0, self._free() - self.reserve_mb * MIB)

    @contextlib.contextmanager
    def promised(self, name: str, size: int) -> Iterator[None]:
        """`size` bytes for the block. What of them is written by then counts twice until its end, on the safe side.

        Raises InsufficientSpace with the numbers.
        """
        with self._lock:
            free, needed = self._free(), size + self.reserve_mb * MIB
            if free < needed:
                raise InsufficientSpace(
                    f"{name}: {amount(needed)} needed, {amount(free)} free in {self.path}",
                    hint="free space there: `launcher image prune` removes copies of images that no instance uses",
                )
            self._promised += size
        try:
            yield
        finally:
            with self._lock:
                self._promised -= size

    def _free(self) -> int:
        return shutil.disk_usage(self.path).free - self._promised
