"""A TCP connection to a guest, through the API: a WebSocket (RFC 6455) of binary frames, on the standard library.

`python -m launcher.cli.websocket INSTANCE/PORT` joins it to stdin and stdout, which is what OpenSSH wants of a
ProxyCommand. It reaches the guest from anywhere the API can be reached, also into the sandbox.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote

from launcher.cli.client import Api, Exit, Failure, find_endpoint

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

_KEY_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PIECE = 32768


class Frames:
    """Cuts what a server sends into frames; a server does not mask (RFC 6455, section 5.1)."""

    def __init__(self, begun: bytes = b"") -> None:
        self.buffer = bytearray(begun)

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The whole frames that have arrived, as (opcode, payload); a continuation has opcode 0."""
        self.buffer += data
        while (size := self._size()) is not None and len(self.buffer) >= sum(size):
            head, length = size
            yield self.buffer[0] & 0x0F, bytes(self.buffer[head : head + length])
            del self.buffer[: head + length]

    def _size(self) -> tuple[int, int] | None:
        """Bytes of the head and of the payload of the frame in front, if its head is complete."""
        if len(self.buffer) < 2:
            return None
        short = self.buffer[1] & 0x7F
        extra = {126: 2, 127: 8}.get(short, 0)
        if len(self.buffer) < 2 + extra:
            return None
        return 2 + extra, int.from_bytes(self.buffer[2 : 2 + extra], "big") if extra else short


def frame(opcode: int, payload: bytes) -> bytes:
    """One final frame as a client sends it: masked with fresh random bytes (section 5.3)."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 1 << 16:
        head = bytes([0x80 | opcode, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + size.to_bytes(8, "big")
    mask = os.urandom(4)
    stretched = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(stretched, "big")).to_bytes(size, "big")
    return head + mask + masked


class Tunnel:
    """An open connection to a guest's port. `open` raises Failure when the guest cannot be reached."""

    def __init__(self, sock: socket.socket, begun: bytes) -> None:
        self.sock = sock
        self.frames = Frames(begun)
        self.closed = False

    @classmethod
    @contextmanager
    def open(cls, api: Api, instance_id: str, port: int, *, timeout: float = 30.0) -> Iterator[Tunnel]:
        """Upgrade a connection (section 4.1), and close it in the end."""
        key = base64.b64encode(os.urandom(16)).decode()
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
        }
        path = f"/instances/{quote(instance_id, safe='')}/tcp/{port}"
        with api.open("GET", path, headers, timeout=timeout) as answer:
            if answer.status != 101 or answer.headers.get("sec-websocket-accept") != accept_key(key):
                raise Failure("the tunnel was not opened", detail="the server's answer is not of RFC 6455")
            tunnel = cls(answer.sock, bytes(answer.buffer))
            yield tunnel
            tunnel.say_goodbye()

    def send(self, data: bytes) -> None:
        self.sock.sendall(frame(BINARY, data))

    def receive(self) -> bytes:
        """What arrives next; nothing if it was only control frames or the end. Raises the socket's TimeoutError."""
        data = self.sock.recv(_PIECE)
        while getattr(self.sock, "pending", int)():  # TLS has read ahead; select would not tell
            data += self.sock.recv(_PIECE)
        self.closed = not data
        return self.payload(data)

    def payload(self, data: bytes = b"") -> bytes:
        """The bytes for us among what arrived, the rest of the handshake included; answers pings on the way."""
        received = b""
        for opcode, payload in self.frames.feed(data):
            if opcode == PING:
                self.sock.sendall(frame(PONG, payload))
            elif opcode == CLOSE:
                self.closed = True
            elif opcode != PONG:
                received += payload
        return received

    def say_goodbye(self) -> None:
        with suppress(OSError):
            self.sock.sendall(frame(CLOSE, (1000).to_bytes(2, "big")))


def accept_key(key: str) -> str:
    """What a server that speaks the protocol answers to `key`."""
    import hashlib  # noqa: PLC0415 - it loads OpenSSL, and most commands open no tunnel

    return base64.b64encode(hashlib.sha1((key + _KEY_SUFFIX).encode(), usedforsecurity=False).digest()).decode()


def join(tunnel: Tunnel, stdin: int, stdout: int) -> None:
    """Carry bytes both ways until either side ends."""
    tunnel.sock.settimeout(None)
    _write_all(stdout, tunnel.payload())
    while not tunnel.closed:
        readable, _, _ = select.select([stdin, tunnel.sock.fileno()], [], [])
        if stdin in readable:
            data = os.read(stdin, _PIECE)
            if not data:
                return
            tunnel.send(data)
        if tunnel.sock.fileno() in readable:
            _write_all(stdout, tunnel.receive())


def _write_all(target: int, data: bytes) -> None:
    while data:
        data = data[os.write(target, data) :]


def main(words: list[str]) -> int:
    instance_id, _, port = words[0].partition("/")
    try:
        with Tunnel.open(Api(find_endpoint(None)), instance_id, int(port)) as tunnel, suppress(ConnectionError):
            join(tunnel, 0, 1)
    except Failure as failure:
        print(f"launcher: {failure.title}: {failure.detail}", file=sys.stderr)
        return failure.exit_code
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
