"""The vault in a directory (contract: `vault.py`).

<path>/<sha256>           a content that has passed the gate; never changed
<path>/arriving/<name>    what is still to come, or to pass
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from launcher.drivers.images import gate, qemu_img
from launcher.drivers.images.files import in_thread
from launcher.drivers.images.library import sync_directory
from launcher.errors import BadImage
from launcher.failpoints import failpoint
from launcher.images import Received, Stored
from launcher.models import ImageFormat, ImageKind

PIECE = 2**20
"""Bytes that are written and hashed at once: half a millisecond's work for a thread."""


class LocalArrival:
    """Written and hashed in a thread while the next bytes come."""

    def __init__(self, path: Path, *, sha512: bool) -> None:
        self.path, self.size, self._sha512 = path, 0, sha512
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._hashes = self._begin()
        self._waiting = bytearray()
        self._writing: asyncio.Future[None] | None = None

    async def rehash(self) -> None:
        """Take up what an earlier process has written."""
        while piece := await in_thread(self._file.read, 8 * PIECE):
            await in_thread(self._hash, piece)
            self.size += len(piece)

    def _begin(self) -> list[hashlib._Hash]:
        return [hashlib.sha256(), *([hashlib.sha512()] if self._sha512 else [])]

    async def append(self, piece: bytes) -> None:
        self._waiting += piece
        self.size += len(piece)
        if len(self._waiting) >= PIECE:
            await self._flush()

    async def restart(self) -> None:
        await self._settle()
        self._waiting.clear()
        self.size, self._hashes = 0, self._begin()
        await in_thread(self._file.truncate, 0)
        await in_thread(self._file.seek, 0)

    async def finish(self) -> Received:
        await self._flush()
        await self._settle()
        await in_thread(os.fsync, self._file.fileno())
        sha256, *others = (each.hexdigest() for each in self._hashes)
        return Received(size=self.size, sha256=sha256, sha512="".join(others))

    async def close(self) -> None:
        """What has come is kept for the next one that opens it."""
        with contextlib.suppress(OSError):
            await self._flush()
            await self._settle()
        self._file.close()

    async def _flush(self) -> None:
        await self._settle()
        piece, self._waiting = bytes(self._waiting), bytearray()
        self._writing = asyncio.ensure_future(asyncio.to_thread(self._write, piece))

    async def _settle(self) -> None:
        """Wait for the piece that is being written. Raises OSError when it could not be."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await asyncio.shield(writing)

    def _write(self, piece: bytes) -> None:
        view = memoryview(piece)
        with failpoint("image.arrive"):
            while view:
                view = view[os.write(self._file.fileno(), view) :]
        self._hash(piece)

    def _hash(self, piece: bytes) -> None:
        for each in self._hashes:
            each.update(piece)


class LocalVault:
    """Only its owner may look into the directory: an image may be one project's secret."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._arriving = self._path / "arriving"

    async def start(self) -> None:
        for directory in (self._path, self._arriving):
            await in_thread(directory.mkdir, mode=0o700, parents=True, exist_ok=True)

    async def open_arrival(self, name: str, *, resume: bool, sha512: bool = False) -> LocalArrival:
        if not resume:
            await self.discard(name)
        arrival = LocalArrival(self._arriving / name, sha512=sha512)
        await arrival.rehash()
        return arrival

    async def admit(
        self, name: str, received: Received, *, kind: ImageKind, declared: ImageFormat | None, most: int
    ) -> Stored:
        arrival, final = self._arriving / name, self.path(received.sha256)
        path = arrival if await in_thread(arrival.exists) else final
        found = await in_thread(gate.inspect, path, kind, declared=declared, name="the image")
        for size, what in ((found.size, "a file"), (found.virtual_size, "a disk")):
            if size > most:
                raise BadImage(f"the image is {what} of {size} bytes, at most {most} are allowed", hint=_LIMIT)
        if found.format is ImageFormat.QCOW2:
            await qemu_img.confirm(path, found)
        async with failpoint("image.admit"):
            await in_thread(self._name, path, final)
        return Stored(
            format=found.format,
            size=found.size,
            virtual_size=found.virtual_size,
            sha256=received.sha256,
            path=final,
        )

    def _name(self, path: Path, final: Path) -> None:
        path.chmod(0o444)
        with contextlib.suppress(FileExistsError):
            os.link(path, final)
        sync_directory(self._path)

    async def find(self, sha256: str) -> Received | None:
        path = self.path(sha256)
        if not await in_thread(path.exists):
            return None
        return Received(size=(await in_thread(path.stat)).st_size, sha256=sha256)

    async def discard(self, name: str) -> None:
        await in_thread((self._arriving / name).unlink, missing_ok=True)

    async def delete(self, sha256: str) -> None:
        await in_thread(self.path(sha256).unlink, missing_ok=True)

    async def last_change_ms(self, name: str) -> float | None:
        try:
            return (await in_thread((self._arriving / name).stat)).st_mtime * 1000
        except FileNotFoundError:
            return None

    async def list_arrivals(self) -> Sequence[str]:
        return await in_thread(lambda: sorted(each.name for each in self._arriving.iterdir()))

    async def list_contents(self) -> Sequence[str]:
        return await in_thread(lambda: sorted(each.name for each in self._path.iterdir() if len(each.name) == 64))

    def path(self, sha256: str) -> Path:
        return self._path / sha256

    def arrival(self, name: str) -> Path:
        return self._arriving / name


_LIMIT = "see [images] largest_gb"
