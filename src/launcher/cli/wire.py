"""One HTTP/1.1 request over one connection, on a plain socket.

http.client would do it, too, but loading it (with email and ssl behind it) takes longer than everything else
that `launcher list` does, 30 of 80 ms; and the WebSocket of `launcher ssh` starts with the same head anyway.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator, Mapping

_PIECE, _HEAD_LIMIT, _LARGE = 65536, 65536, 2**20
_STATUS = re.compile(rb"[1-5][0-9][0-9]")


class WireError(Exception):
    """What came back is not HTTP, or ended too early."""


def connect(host: str, port: int, *, secure: bool, timeout: float) -> socket.socket:
    """Raises OSError."""
    sock = socket.create_connection((host, port), timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not secure:
        return sock
    import ssl  # noqa: PLC0415 - most servers are on this machine, and ssl is slow to load

    return ssl.create_default_context().wrap_socket(sock, server_hostname=host)


def send(
    sock: socket.socket,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes | Iterable[bytes] = b"",
) -> None:
    """Write one request; of a body in pieces the headers tell the length. Raises OSError."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    whole = body if isinstance(body, bytes) else b""
    if whole or method == "POST":
        lines.append(f"Content-Length: {len(whole)}")
    sock.sendall("\r\n".join((*lines, "", "")).encode("latin-1") + whole)
    for piece in body if not isinstance(body, bytes) else ():
        sock.sendall(piece)


class Answer:
    """Status, headers (names in lower case) and the body as it comes. Reading raises OSError or WireError."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        words = self._line().split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not _STATUS.fullmatch(words[1]):
            raise WireError("the answer is not HTTP")
        self.status = int(words[1])
        self.headers: dict[str, str] = {}
        while line := self._line():
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.strip().lower()] = value.strip()

    def body(self) -> bytes:
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """The body in the pieces it was sent in (RFC 9112, section 6)."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
        elif "content-length" in self.headers:
            yield from self._counted(_number(self.headers["content-length"], 10))
        elif self.status not in (204, 304):
            yield bytes(self.buffer)
            while data := self.sock.recv(_PIECE):
                yield data

    def lines(self) -> Iterator[str]:
        """The body line by line, without line ends."""
        begun = b""
        for piece in self.pieces():
            *whole, begun = (begun + piece).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace").rstrip("\r")

    def _chunks(self) -> Iterator[bytes]:
        while size := _number(self._line().partition(b";")[0].decode("latin-1"), 16):
            yield self._exactly(size)
            self._line()

    def _counted(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self._exactly(min(left, _LARGE))
            left -= len(piece)
            yield piece

    def _line(self) -> bytes:
        """Up to the next line end, which is taken and not returned."""
        while (at := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > _HEAD_LIMIT:
                raise WireError("the answer's head is too long")
            self._receive()
        line = bytes(self.buffer[:at]).rstrip(b"\r")
        del self.buffer[: at + 1]
        return line

    def _exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self._receive()
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def _receive(self) -> None:
        data = self.sock.recv(_PIECE)
        if not data:
            raise WireError("the server closed the connection early")
        self.buffer += data


def _number(text: str, radix: int) -> int:
    try:
        number = int(text, radix)
    except ValueError:
        number = -1
    if number < 0:
        raise WireError(f"{text[:20]!r} is no length")
    return number
