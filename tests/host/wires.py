"""Guests without machines: each a network namespace whose NIC is wired to the tap that launcher plugged, as by QEMU.

The wires are one process of their own, `python -m tests.host.wires FD:FD…`, so that no test keeps a frame waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.host.test_packets import namespace, new_namespace

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x2, 0x1000


def open_tap(name: str) -> int:
    """The end of a tap that a machine holds; where there is no such tap it is made."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


class WiredGuest:
    """What a machine is to the network. It opens its tap once, as QEMU does, and never again."""

    def __init__(self, number: int, mac: str, address: str, cidr: IPv4Network) -> None:
        self.number, self.address = number, IPv4Address(address)
        self.descriptor = new_namespace()
        self.at_host = open_tap(f"tap{number:08x}")
        with namespace(self.descriptor):
            self.at_guest = open_tap("eth0")
        words = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.descriptor}", "ip", "-batch", "-"]
        lines = (
            f"link set eth0 address {mac} up",
            "link set lo up",
            f"address add {address}/{cidr.prefixlen} dev eth0",
            f"route add default via {cidr[1]}",
        )
        subprocess.run(words, input="\n".join(lines), text=True, check=True)
        self.sockets: list[socket.socket] = []

    def open(self, kind: socket.SocketKind, port: int) -> socket.socket:
        """Bound to the guest's address."""
        with namespace(self.descriptor):
            made = socket.socket(socket.AF_INET, kind)
        made.setblocking(False)
        made.bind((str(self.address), port))
        self.sockets.append(made)
        return made

    def close(self) -> None:
        for made in self.sockets:
            made.close()
        for descriptor in (self.at_host, self.at_guest, self.descriptor):
            os.close(descriptor)


@contextlib.asynccontextmanager
async def wired(guests: Sequence[WiredGuest]) -> AsyncIterator[None]:
    pairs = [f"{guest.at_host}:{guest.at_guest}" for guest in guests]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.host.wires", *pairs),
        stdout=asyncio.subprocess.PIPE,
        pass_fds=[end for guest in guests for end in (guest.at_host, guest.at_guest)],
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"wired\n"
        yield
    finally:
        process.kill()
        await process.wait()
        for guest in guests:
            guest.close()


def carry(ends: dict[int, int]) -> None:
    """Frames from each end to its other, for ever."""
    poll = select.epoll()
    for end in ends:
        poll.register(end, select.EPOLLIN)
    sys.stdout.write("wired\n")
    sys.stdout.flush()
    while True:
        for end, _ in poll.poll():
            with contextlib.suppress(BlockingIOError):
                while frame := os.read(end, 65536):
                    with contextlib.suppress(OSError):  # a NIC that is down takes nothing
                        os.write(ends[end], frame)


if __name__ == "__main__":
    pairs = [word.split(":") for word in sys.argv[1:]]
    carry({int(a): int(b) for a, b in pairs} | {int(b): int(a) for a, b in pairs})
