"""Fifty machines, and packets all the while that the launcher is ended and started: none is lost, none gets through.

What must pass and what must not are new flows all the time (another source port, another identifier), because a flow
that is known passes whatever the filters say; and a TCP connection and answers to a guest, which must stay known.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network

import pytest

from tests.host.test_packets import icmp, namespace
from tests.host.wires import WiredGuest, wired
from tests.serving import Json, Server
from tests.waiting import eventually, until

pytestmark = pytest.mark.host

GUESTS = 50
CIDR = IPv4Network("10.92.0.0/24")
GATEWAY = str(CIDR[1])
SETTINGS = [
    "virt.driver=fake",
    f"network.cidr={CIDR}",
    "network.bridge=br-fifty",
    "metadata.port=0",
    "firewall.allow_project_net_traffic=false",
    "quotas.instances=100",
    "quotas.cores=100",
    "quotas.memory_mb=100000",
]
OPEN, CLOSED, STREAM = 7000, 7001, 7002
EVERY = 0.01
LINE = b"x" * 200


FIGURES: pytest.StashKey[list[str]] = pytest.StashKey()


@dataclass
class Flow:
    """What was sent and what came, by number, and when."""

    name: str
    under_way: dict[int, float] = field(default_factory=dict)
    sent: int = 0
    came: int = 0
    slowest: float = 0.0
    longest_pause: float = 0.0
    last: float = 0.0

    def leave(self, number: int) -> None:
        now = time.monotonic()
        if self.last:
            self.longest_pause = max(self.longest_pause, now - self.last)
        self.under_way[number] = self.last = now
        self.sent += 1

    def arrive(self, number: int) -> None:
        left = self.under_way.pop(number, None)
        if left is not None:
            self.came += 1
            self.slowest = max(self.slowest, time.monotonic() - left)

    @property
    def lost(self) -> int:
        return self.sent - self.came

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.sent} sent, {self.came} came, the slowest after {self.slowest * 1000:.0f} ms;"
            f" longest pause between two {self.longest_pause * 1000:.0f} ms"
        )


class Traffic:
    """All flows at once, a step every 10 ms: from the host to each guest in turn, from the second to the first."""

    def __init__(self, guests: list[WiredGuest]) -> None:
        self.guests = guests
        self.pings = Flow("pings, host to guest")
        self.allowed = Flow("open port, host to each guest in turn")
        self.between = Flow("open port, guest to guest, and the answer, which only its flow lets in")
        self.stream = Flow("TCP, lines there and back")
        self.forbidden = Flow("closed port, host to each guest in turn")
        self.forbidden_between = Flow("closed port, guest to guest")
        self.forbidden_host = Flow("closed port, guest to host")
        self.pinger = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.pinger.setblocking(False)
        self.at_host = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.at_host.setblocking(False)
        self.at_host.bind((GATEWAY, CLOSED))
        self.identifiers: dict[int, int] = {}
        self.asker = guests[1].open(socket.SOCK_DGRAM, 0)

    @property
    def must_pass(self) -> list[Flow]:
        return [self.pings, self.allowed, self.between, self.stream]

    @property
    def must_not(self) -> list[Flow]:
        return [self.forbidden, self.forbidden_between, self.forbidden_host]

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Everything listens, then everything sends."""
        loop = asyncio.get_running_loop()
        for guest in self.guests:
            opened, closed = guest.open(socket.SOCK_DGRAM, OPEN), guest.open(socket.SOCK_DGRAM, CLOSED)
            loop.add_reader(opened, functools.partial(self._drain, opened, [self.allowed, None]))
            loop.add_reader(closed, functools.partial(self._drain, closed, [self.forbidden, self.forbidden_between]))
        loop.add_reader(self.asker, functools.partial(self._drain, self.asker, [None, self.between]))
        loop.add_reader(self.at_host, functools.partial(self._drain, self.at_host, [self.forbidden_host]))
        loop.add_reader(self.pinger, self._pings_came)
        tasks = [asyncio.create_task(self._send()), await self._start_stream()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for guest in self.guests:
                for made in guest.sockets:
                    loop.remove_reader(made)
            loop.remove_reader(self.at_host)
            loop.remove_reader(self.pinger)
            self.at_host.close()
            self.pinger.close()

    def _drain(self, listener: socket.socket, flows: Sequence[Flow | None]) -> None:
        """What arrives counts for its flow; where it has none here, it is answered."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, sender = listener.recvfrom(100)
                which, number = struct.unpack("!II", data)
                if flow := flows[which]:
                    flow.arrive(number)
                else:
                    listener.sendto(data, sender)

    def _pings_came(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = self.pinger.recv(2048)
                number = self.identifiers.pop(int.from_bytes(packet[24:26], "big"), None)
                if packet[20] == 0 and number is not None:
                    self.pings.arrive(number)

    async def _send(self) -> None:
        first, second = self.guests[:2]
        for number in range(1_000_000):
            turn = self.guests[number % len(self.guests)]
            ping = icmp(8, 0)
            self.identifiers[int.from_bytes(ping[4:6], "big")] = number
            self.pings.leave(number)
            self.pinger.sendto(ping, (str(first.address), 0))
            self._tell(self.allowed, 0, number, str(turn.address), OPEN)
            self._tell(self.forbidden, 0, number, str(turn.address), CLOSED)
            self.between.leave(number)
            self.asker.sendto(struct.pack("!II", 1, number), (str(first.address), OPEN))
            with namespace(second.descriptor):
                self._tell(self.forbidden_between, 1, number, str(first.address), CLOSED)
                self._tell(self.forbidden_host, 0, number, GATEWAY, CLOSED)
            await asyncio.sleep(EVERY)

    def _tell(self, flow: Flow, which: int, number: int, address: str, port: int) -> None:
        """A datagram from a port of its own. The host is told when its own filter has dropped one."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, contextlib.suppress(PermissionError):
            flow.leave(number)
            sender.sendto(struct.pack("!II", which, number), (address, port))

    async def _start_stream(self) -> asyncio.Task[None]:
        loop, guest = asyncio.get_running_loop(), self.guests[0]
        listener = guest.open(socket.SOCK_STREAM, STREAM)
        listener.listen()
        client = socket.socket()
        client.setblocking(False)
        async with asyncio.timeout(10):
            await loop.sock_connect(client, (str(guest.address), STREAM))
            accepted, _ = await loop.sock_accept(listener)
        guest.sockets.append(accepted)

        async def answer() -> None:
            while line := await loop.sock_recv(accepted, 4096):
                await loop.sock_sendall(accepted, line)

        async def talk() -> None:
            answering = asyncio.create_task(answer())
            try:
                for number in range(1_000_000):
                    self.stream.leave(number)
                    await loop.sock_sendall(client, LINE)
                    missing = len(LINE)
                    while missing:
                        missing -= len(await loop.sock_recv(client, missing))
                    self.stream.arrive(number)
                    await asyncio.sleep(EVERY)
            finally:
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)
                client.close()

        return asyncio.create_task(talk())


@pytest.fixture
async def fifty(server: Server) -> AsyncIterator[list[WiredGuest]]:
    """Running instances of a server that runs, and a guest at each one's tap."""
    server.program, server.settings = "tests.host.machineless", SETTINGS
    await server.start()
    async with server.http() as http:
        rules = [
            {"protocol": protocol, "from_port": low, "to_port": high, "cidr": "0.0.0.0/0"}
            for protocol, low, high in (("udp", OPEN, OPEN), ("tcp", STREAM, STREAM), ("icmp", 8, 0))
        ]
        async with http.post("/security-groups", json={"name": "open", "rules": rules}) as answer:
            assert answer.status == 201, await answer.text()
        body = {"image": "ami-tiny", "flavor": "m1.tiny", "count": GUESTS, "security_groups": ["open"]}
        async with http.post("/instances", json=body) as answer:
            assert answer.status == 202, await answer.text()

    async def all_active() -> list[Json] | None:
        found = (await server.get("/instances?limit=100"))["instances"]
        return found if all(each["status"] == "ACTIVE" for each in found) else None

    found = await eventually(all_active, within=120, what="fifty active instances")
    assert len(found) == GUESTS
    guests = [WiredGuest(each["number"], each["nics"][0]["mac"], each["addresses"][0], CIDR) for each in found]
    async with wired(guests):
        yield guests
    await server.stop()


def said(server: Server, words: str) -> bool:
    return words in server.said


async def verified(server: Server) -> None:
    await until(lambda: f"start: {GUESTS} adopted" in server.said, within=60)
    line = next(line for line in server.said.splitlines() if "start: " in line)
    assert "0 repaired; 0 missing; 0 removed; 0 not heard of" in line


async def test_a_restart_opens_nothing_and_cuts_nothing(
    server: Server, fifty: list[WiredGuest], request: pytest.FixtureRequest
) -> None:
    traffic = Traffic(fifty)
    async with traffic.flowing():
        await until(lambda: traffic.stream.sent > 50)
        for end in (server.stop, server.kill, server.kill, server.stop):
            await end()
            await server.start()
            await verified(server)
        for moment in ("role controller is up", "role network is up", "role compute is up"):
            await server.kill()
            await server.spawn()
            await until(functools.partial(said, server, moment))
        await server.kill()
        await server.start()
        await verified(server)
        assert [str(flow) for flow in traffic.must_not if flow.came] == []
        await until(lambda: not any(flow.lost for flow in traffic.must_pass), within=5)  # but for what is under way
        figures = list(map(str, (*traffic.must_pass, *traffic.must_not)))
        subprocess.run(["iptables", "-F", "nova-fallback"], check=True)  # the eyes are open: this would be seen
        await until(lambda: traffic.forbidden.came > 0 and traffic.forbidden_between.came > 0, within=10)
    request.config.stash.setdefault(FIGURES, []).extend(figures)
    assert min(flow.sent for flow in (*traffic.must_pass, *traffic.must_not)) > 500
