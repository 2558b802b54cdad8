"""A distributor's web server that a test makes behave badly, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

PIECE = 64 * 1024


@dataclass
class Mirror:
    """Files by path, and its misdeeds. A raw server: aiohttp's would not send a wrong length."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and Range of every request."""
    drop_after: list[int] = field(default_factory=list)
    """The next answers of images end after so many bytes."""
    say_length: int | None = None
    """What it says instead of the true length."""
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    """The next answers, before any file is looked at."""
    redirects: dict[str, str] = field(default_factory=dict)
    hold: asyncio.Event | None = None
    """With it, the second half of an image is sent when it is set."""
    half_sent: asyncio.Event = field(default_factory=asyncio.Event)
    etag: str = '"1"'
    sent: Counter[str] = field(default_factory=Counter)
    url: str = ""
    open: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    def add(self, name: str, content: bytes, *, sums: str | None = "SHA256SUMS") -> str:
        """A file and, unless None, the file of checksums that has it; returns its URL."""
        self.files[f"/{name}"] = content
        if sums:
            digest = (hashlib.sha512 if "512" in sums else hashlib.sha256)(content).hexdigest()
            self.files[f"/{sums}"] = self.files.get(f"/{sums}", b"") + f"{digest}  {name}\n".encode()
        return f"{self.url}/{name}"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Mirror]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            await self.cut()
            await server.wait_closed()

    async def cut(self) -> None:
        """End every answer where it is."""
        tasks = list(self.open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def times(self, name: str) -> int:
        return [path for path, _ in self.asked].count(f"/{name}")

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.open[task] = writer
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            del self.open[task]
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1]
        wanted = re.search(r"^Range: (\S+)", head, re.MULTILINE | re.IGNORECASE)
        mark = re.search(r"^If-Range: (\S+)", head, re.MULTILINE | re.IGNORECASE)
        changed = bool(mark) and mark[1] != self.etag  # type: ignore[index]
        self.asked.append((path, wanted[1] if wanted else ""))
        begin = int(wanted[1].removeprefix("bytes=").rstrip("-")) if wanted and not changed else 0
        await self._send(writer, path, begin if self.ranges else 0)

    async def _send(self, writer: asyncio.StreamWriter, path: str, begin: int) -> None:
        content = self.files.get(path)
        if path in self.redirects:
            await _say(writer, 302, [f"Location: {self.redirects[path]}"])
        elif self.statuses:
            await _say(writer, self.statuses.pop(0))
        elif content is None:
            await _say(writer, 404)
        elif begin and begin >= len(content):
            await _say(writer, 416, [f"Content-Range: bytes */{len(content)}"])
        else:
            await self._send_file(writer, path, content, begin)

    async def _send_file(self, writer: asyncio.StreamWriter, path: str, content: bytes, begin: int) -> None:
        length = len(content) - begin if self.say_length is None else self.say_length
        headers = [f"ETag: {self.etag}", *([f"Content-Length: {length}"] if length >= 0 else [])]
        headers += [f"Content-Range: bytes {begin}-{len(content) - 1}/{len(content)}"] if begin else []
        await _say(writer, 206 if begin else 200, headers, length=False)
        await self._stream(writer, path, content[begin:])

    async def _stream(self, writer: asyncio.StreamWriter, path: str, content: bytes) -> None:
        big = len(content) > PIECE
        if big and self.drop_after:
            content = content[: self.drop_after.pop(0)]
        for at in range(0, len(content), PIECE):
            if big and self.hold and at >= len(content) // 2:
                self.half_sent.set()
                await self.hold.wait()
            writer.write(content[at : at + PIECE])
            await writer.drain()
            self.sent[path] += len(content[at : at + PIECE])


async def _say(
    writer: asyncio.StreamWriter, status: int, headers: list[str] | None = None, *, length: bool = True
) -> None:
    lines = [f"HTTP/1.1 {status} X", "Connection: close", *(headers or []), *(["Content-Length: 0"] if length else [])]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await writer.drain()
