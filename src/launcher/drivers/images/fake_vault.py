"""A vault and a network in memory: the product's stand-ins for trying the flow, and the tests'."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.drivers.images.vault import Arrival, Tell
from launcher.errors import BadImage, DownloadFailed
from launcher.images import Progress, Received, Stored
from launcher.models import ImageFormat, ImageKind


class FakeArrival:
    """What has come stands in the vault's own table, so that the next one finds it."""

    def __init__(self, content: bytearray) -> None:
        self.content = content

    @property
    def size(self) -> int:
        return len(self.content)

    async def append(self, piece: bytes) -> None:
        self.content += piece

    async def restart(self) -> None:
        self.content.clear()

    async def finish(self) -> Received:
        return _received(bytes(self.content))

    async def close(self) -> None: ...


class FakeVault:
    """Keeps the contract of `vault.py` in memory. Every content is raw; the paths it names do not exist."""

    def __init__(self) -> None:
        self.arrivals: dict[str, bytearray] = {}
        self.contents: dict[str, bytes] = {}

    async def start(self) -> None: ...

    async def open_arrival(self, name: str, *, resume: bool, sha512: bool = False) -> FakeArrival:
        if not resume:
            self.arrivals.pop(name, None)
        return FakeArrival(self.arrivals.setdefault(name, bytearray()))

    async def admit(
        self, name: str, received: Received, *, kind: ImageKind, declared: ImageFormat | None, most: int
    ) -> Stored:
        content = bytes(self.arrivals.get(name, b"")) or self.contents.get(received.sha256, b"")
        if not 0 < len(content) <= most or declared not in (None, ImageFormat.RAW):
            raise BadImage(f"the image has {len(content)} bytes and is raw; 1 to {most} bytes are allowed")
        self.contents[received.sha256] = content
        return Stored(
            format=ImageFormat.RAW,
            size=len(content),
            virtual_size=len(content),
            sha256=received.sha256,
            path=self.path(received.sha256),
        )

    async def find(self, sha256: str) -> Received | None:
        return _received(self.contents[sha256]) if sha256 in self.contents else None

    async def discard(self, name: str) -> None:
        self.arrivals.pop(name, None)

    async def delete(self, sha256: str) -> None:
        self.contents.pop(sha256, None)

    async def last_change_ms(self, name: str) -> float | None:
        return time.time() * 1000 if name in self.arrivals else None

    async def list_arrivals(self) -> Sequence[str]:
        return sorted(self.arrivals)

    async def list_contents(self) -> Sequence[str]:
        return sorted(self.contents)

    def path(self, sha256: str) -> Path:
        return Path("/fake/vault") / sha256

    def arrival(self, name: str) -> Path:
        return Path("/fake/vault/arriving") / name


class FakeDownloads:
    """Has what it is given: contents by URL, and each one's checksum beside it."""

    def __init__(self, contents: Mapping[str, bytes] | None = None) -> None:
        self.contents = dict(contents or {})

    async def fetch(self, url: str, into: Arrival, *, most: int, tell: Tell, token: str = "") -> None:
        if url not in self.contents:
            raise DownloadFailed(f"HTTP 404 from {url}")
        await into.append(self.contents[url][into.size :])
        tell(Progress(done=into.size, total=into.size))

    async def find_checksum(self, url: str, source: str = "") -> tuple[str, str] | None:
        if url not in self.contents:
            return None
        return _received(self.contents[url]).like("sha256"), f"{url}.sha256"


def _received(content: bytes) -> Received:
    sha256, sha512 = hashlib.sha256(content).hexdigest(), hashlib.sha512(content).hexdigest()
    return Received(size=len(content), sha256=sha256, sha512=sha512)
