"""The same key into the same disk, done once.

A fresh overlay differs from another of its image and size in nothing, so what came out of it with one key is copied for
the next launch with that key. Only public keys are remembered, in files of this run
of the launcher; passwords, files and addresses are their guest's own and are written each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from launcher.drivers.images.files import MIB, in_thread
from launcher.drivers.images.inject.injector import Injector, Payload, Place
from launcher.drivers.images.store import Injection
from launcher.models import ImageFormat

LARGEST = 4 * MIB
"""Bytes of a disk that is remembered; fresh overlays have a few hundred thousand."""


class Remembering:
    """An injector (contract: `injector.py`) in front of another one. `path` is an own directory, emptied at start, so
    that what a power cut may have torn is never used; `limit` disks are kept.
    """

    def __init__(self, injector: Injector, path: Path, *, limit: int = 16) -> None:
        self.injector, self.path, self.limit = injector, path, limit
        self.known: OrderedDict[str, Path] = OrderedDict()

    @property
    def name(self) -> Injection:
        return self.injector.name

    async def start(self) -> None:
        self.known.clear()
        await in_thread(_make_empty, self.path)
        await self.injector.start()

    async def stop(self) -> None:
        await self.injector.stop()

    async def inject(self, place: Place, payload: Payload) -> None:
        if payload != Payload(payload.public_key) or place.format is not ImageFormat.QCOW2:
            await self.injector.inject(place, payload)
            return
        before = await in_thread(_fingerprint, place, payload)
        if before is not None and before in self.known and await in_thread(_replace, place.disk, self.known[before]):
            self.known.move_to_end(before)
            return
        await self.injector.inject(place, payload)
        if before is not None:
            await self._remember(before, place.disk)

    async def _remember(self, before: str, disk: Path) -> None:
        made = self.path / before
        if await in_thread(_replace, made, disk):
            self.known[before] = made
        while len(self.known) > self.limit:
            _, oldest = self.known.popitem(last=False)
            await in_thread(oldest.unlink, missing_ok=True)

    async def list_leftovers(self) -> Sequence[str]:
        return await self.injector.list_leftovers()

    async def remove_leftovers(self) -> None:
        await self.injector.remove_leftovers()


def _make_empty(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700, parents=True)


def _fingerprint(place: Place, payload: Payload) -> str | None:
    """Of all that the outcome depends on; an overlay names its base by its checksum. None for what is too large."""
    with contextlib.suppress(OSError):
        if place.disk.stat().st_size <= LARGEST:
            words = f"{place.partition} {payload.public_key}\0".encode()
            return hashlib.sha256(words + place.disk.read_bytes()).hexdigest()
    return None


def _replace(disk: Path, by: Path) -> bool:
    """All of it or nothing: a copy aside that takes the name. False when it cannot be made: no space, or it is gone."""
    draft = disk.with_name(f"{disk.name}.draft")
    try:
        shutil.copy(by, draft)
        draft.replace(disk)
    except OSError:
        draft.unlink(missing_ok=True)
        return False
    return True
