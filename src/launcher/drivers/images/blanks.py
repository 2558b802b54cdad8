"""Empty disks, ready for use: made once for each size, sparse, and never written to again; kept until they are pruned.

    <path>/_blank/ephemeral-<gb>g    ext4, labelled ephemeral0
    <path>/_blank/swap-<mb>m         swap space

An instance's own lies on top of it as an overlay, or is a copy of its few written bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from launcher.drivers import process
from launcher.drivers.images.files import GIB, MIB, in_thread, sync_file
from launcher.drivers.images.space import named_when_full
from launcher.models import Flavor

_EXT4 = ("-t", "ext4", "-L", "ephemeral0", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0")


class Blank(NamedTuple):
    """`size` in bytes; `name` is what an instance calls its own."""

    name: str
    file: str
    size: int
    command: tuple[str, ...]


def blanks_of(flavor: Flavor) -> Sequence[Blank]:
    """In the order in which the guest sees them."""
    ephemeral, swap = flavor.ephemeral_gb, flavor.swap_mb
    found = []
    if ephemeral:
        found.append(Blank("ephemeral", f"ephemeral-{ephemeral}g", ephemeral * GIB, ("mke2fs", "-q", *_EXT4)))
    if swap:
        found.append(Blank("swap", f"swap-{swap}m", swap * MIB, ("mkswap", "-q", "-L", "swap0")))
    return found


class Blanks:
    def __init__(self, path: Path, *, work: Path) -> None:
        self.path, self.work = path, work
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._wanted: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def holding(self, blanks: Sequence[Blank]) -> AsyncIterator[None]:
        """These are here until the block ends. Raises InsufficientSpace, ProgramFailed, HostResourceMissing."""
        self._wanted.update(blank.file for blank in blanks)
        try:
            for blank in blanks:
                async with self._locks[blank.file]:
                    if not await in_thread((self.path / blank.file).exists):
                        await self._make(blank)
            yield
        finally:
            self._wanted.subtract(blank.file for blank in blanks)

    async def prune(self, used: Callable[[], Collection[str]]) -> int:
        """Remove those that no disk stands on and no launch is about to use. Returns bytes freed."""
        freed = 0
        for file in await in_thread(lambda: sorted(self.path.glob("*"))):
            async with self._locks[file.name]:
                if not self._wanted[file.name] and file.name not in await in_thread(used):
                    freed += (await in_thread(file.stat)).st_blocks * 512
                    await in_thread(file.unlink)
        return freed

    async def _make(self, blank: Blank) -> None:
        draft = Path(await in_thread(tempfile.mkdtemp, dir=self.work))
        try:
            await in_thread(_reserve, draft / "disk", blank.size)
            with named_when_full(self.path / blank.file):
                await process.run([*blank.command, draft / "disk"], timeout=120)
            await in_thread(sync_file, draft / "disk")
            await in_thread(self.path.mkdir, exist_ok=True)
            await in_thread((draft / "disk").replace, self.path / blank.file)
        finally:
            await in_thread(shutil.rmtree, draft)


def _reserve(path: Path, size: int) -> None:
    """A file of that size without a byte in it."""
    with path.open("xb") as file:
        os.fchmod(file.fileno(), 0o644)
        file.truncate(size)
