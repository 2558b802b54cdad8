"""Images by HTTP: taken up where they stopped, tried again with growing pauses, from public addresses only.

Where a connection leads is decided when it is made, by the address itself: no name, redirect or odd way to write a
number leads past that (CVE-2026-34881).
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from random import Random
from typing import Any
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from launcher.clock import Clock
from launcher.drivers.images import checksums
from launcher.drivers.images.vault import Arrival, Tell
from launcher.errors import BadImage, BadRequest, DownloadFailed, Forbidden
from launcher.images import Progress, check_url

Net = IPv4Network | IPv6Network
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds before the next try; after as many in which nothing came, it is given up."""
WINDOW = 10.0
TELL_EVERY = 0.2
REDIRECTS = 8
LONGEST_SUMS = 2**20
PIECE = 2**18
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)|bytes \*/(\d+)")
_PASSING = {408, 425, 429, 500, 502, 503, 504}


class _Unallowed(OSError):
    """An address that may not be asked."""


class _TryAgain(Exception):
    """This try has failed, another may not."""


@dataclass
class Meter:
    """How fast it goes, over the last ten seconds."""

    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def look(self, now: float, done: int) -> int:
        """Bytes a second."""
        self.seen.append((now, done))
        while self.seen[0][0] < now - WINDOW:
            self.seen.popleft()
        (since, before), seconds = self.seen[0], now - self.seen[0][0]
        return int((done - before) / seconds) if seconds > 0 and since < now else 0


class HttpDownloads:
    """`allowed` are networks beside the public ones that may be asked. `quiet` seconds without a byte end a try."""

    def __init__(
        self,
        *,
        clock: Clock,
        rng: Random,
        allowed: Sequence[Net] = (),
        pauses: Sequence[float] = PAUSES,
        quiet: float = 30.0,
    ) -> None:
        self.clock, self.rng, self.allowed, self.pauses, self.quiet = clock, rng, allowed, pauses, quiet

    async def fetch(self, url: str, into: Arrival, *, most: int, tell: Tell, token: str = "") -> None:
        transfer = _Transfer(self, url, into, most, tell, token)
        await self._persist(transfer.attempt, lambda: into.size, transfer.wait)

    async def find_checksum(self, url: str, source: str = "") -> tuple[str, str] | None:
        name = checksums.file_name(url)
        for place in checksums.candidates(url, check_url(urljoin(url, source)) if source else ""):
            text = await self._persist(lambda place=place: self._read(place), lambda: 0, lambda *_: None)  # type: ignore[misc]
            if text is None:
                continue
            alone = checksums.file_name(place).startswith(name)
            if found := checksums.find(text, name, alone=alone):
                return found, place
        return None

    async def _persist(
        self, attempt: Callable[[], Any], size: Callable[[], int], wait: Callable[[int, float, str], None]
    ) -> Any:
        """Try until it is done; only tries in which nothing came are counted."""
        number, idle = 1, 0
        while True:
            before = size()
            try:
                return await attempt()
            except (_TryAgain, aiohttp.ClientError, TimeoutError) as error:
                why = _words(error)
            idle = 0 if size() > before else idle + 1
            if idle >= len(self.pauses):
                raise DownloadFailed(f"given up after {number} attempts: {why}", hint="is the source reachable?")
            number += 1
            pause = self.pauses[idle] * (0.75 + self.rng.random() / 2)
            wait(number, pause, why)
            await asyncio.sleep(pause)

    async def _read(self, url: str) -> str | None:
        """A small text; None when it is not there."""
        async with self.ask(url, {}) as response:
            if response.status in _PASSING:
                raise _TryAgain(f"{url}: HTTP {response.status}")
            if response.status != 200 or (response.content_length or 0) > LONGEST_SUMS:
                return None
            text = await response.content.read(LONGEST_SUMS)
            while len(text) < LONGEST_SUMS and (more := await response.content.read(LONGEST_SUMS)):
                text += more
            return text.decode(errors="replace")

    @asynccontextmanager
    async def ask(self, url: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer after all redirects. Raises Forbidden, and what aiohttp raises."""
        timeout = aiohttp.ClientTimeout(total=None, connect=self.quiet, sock_read=self.quiet)
        connector = aiohttp.TCPConnector(socket_factory=self._socket, force_close=True)
        wanted = {"Accept-Encoding": "identity", "User-Agent": "launcher", **headers}
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=wanted, auto_decompress=False, read_bufsize=2 * PIECE
        ) as session:
            try:
                for _ in range(REDIRECTS):
                    async with session.get(URL(url, encoded=True), allow_redirects=False) as response:
                        if response.status not in (301, 302, 303, 307, 308):
                            yield response
                            return
                        url = _redirected(url, response.headers.get("Location", ""))
                raise DownloadFailed(f"more than {REDIRECTS} redirects")
            except aiohttp.ClientConnectorError as error:
                if isinstance(error.os_error, _Unallowed):
                    raise Forbidden(str(error.os_error), hint="[images] fetch_from allows other networks") from None
                raise

    def _socket(self, info: Any) -> socket.socket:
        """Made for this address and no other; the last word on where a connection may lead."""
        family, kind, protocol, _, place = info
        address = ip_address(place[0].partition("%")[0])
        address = getattr(address, "ipv4_mapped", None) or address
        public = address.is_global and not address.is_multicast
        if not public and not any(address in net for net in self.allowed if net.version == address.version):
            raise _Unallowed(f"images are not fetched from {address}, which is no public address")
        return socket.socket(family, kind, protocol)


class _Transfer:
    """One download: what it is told by the source, and what it tells of itself."""

    def __init__(
        self, downloads: HttpDownloads, url: str, into: Arrival, most: int, tell: Tell, token: str = ""
    ) -> None:
        self.downloads, self.url, self.into, self.most, self.tell = downloads, url, into, most, tell
        self.own = {"Authorization": f"Bearer {token}"} if token else {}
        self.total: int | None = None
        self.mark = ""
        self.meter, self.number, self.told = Meter(), 1, 0.0

    async def attempt(self) -> None:
        headers = {"Range": f"bytes={self.into.size}-"} if self.into.size else {}
        if headers and self.mark:
            headers["If-Range"] = self.mark
        async with self.downloads.ask(self.url, {**headers, **self.own}) as response:
            if await self._begin(response):
                return
            async for piece in response.content.iter_chunked(PIECE):
                await self.into.append(piece)
                self._check_size(self.into.size)
                self._tell()
        if self.total is not None and self.into.size != self.total:
            raise _TryAgain(f"it ended at {self.into.size} of {self.total} bytes")
        self._tell(at_once=True)

    async def _begin(self, response: aiohttp.ClientResponse) -> bool:
        """Whether nothing is left to come. An answer that does not go on where we are begins anew."""
        status, found = response.status, _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if status == 416:
            if found and found[3] == str(self.into.size):
                return True
            await self.into.restart()
            raise _TryAgain("the source has another length now")
        if status in _PASSING:
            raise _TryAgain(f"HTTP {status}")
        if status not in (200, 206):
            raise DownloadFailed(f"HTTP {status} from {self.url}", hint="is the URL right?")
        if status == 206 and not (found and found[1] == str(self.into.size)):
            await self.into.restart()
            raise _TryAgain("the source sent another part than was asked for")
        if status == 200 and self.into.size:
            await self.into.restart()
        self.mark = response.headers.get("ETag", "") or response.headers.get("Last-Modified", "")
        self.mark = "" if self.mark.startswith("W/") else self.mark
        self._learn_total(response, found)
        return False

    def _learn_total(self, response: aiohttp.ClientResponse, found: re.Match[str] | None) -> None:
        if found and found[2] not in (None, "*"):
            self.total = int(found[2])
        elif response.content_length is not None:
            self.total = self.into.size + response.content_length
        else:
            self.total = None
        self._check_size(self.total or 0)

    def _check_size(self, size: int) -> None:
        if size > self.most:
            raise BadImage(f"the image has {size} bytes or more, at most {self.most} are allowed", hint=_LIMIT)

    def _tell(self, *, at_once: bool = False) -> None:
        now = self.downloads.clock.now_ms() / 1000
        if at_once or now >= self.told + TELL_EVERY:
            self.told, speed = now, self.meter.look(now, self.into.size)
            left = None if self.total is None or not speed else (self.total - self.into.size) // speed
            self.tell(
                Progress(done=self.into.size, total=self.total, per_second=speed, eta_s=left, attempt=self.number)
            )

    def wait(self, number: int, pause: float, why: str) -> None:
        self.number = number
        remark = f"trying again in {pause:.1f} s: {why}"
        self.tell(Progress(done=self.into.size, total=self.total, attempt=number, remark=remark))


_LIMIT = "see [images] largest_gb"


def _redirected(url: str, location: str) -> str:
    """Raises DownloadFailed for one that leads to another kind of address, or out of TLS."""
    target = urljoin(url, location)
    try:
        check_url(target)
    except BadRequest as error:
        raise DownloadFailed(f"redirected from {url}: {error.message}") from None
    if url.startswith("https:") and not target.startswith("https:"):
        raise DownloadFailed(f"redirected from {url} to {target}, out of TLS")
    return target


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
