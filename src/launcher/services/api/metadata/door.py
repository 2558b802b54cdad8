"""The way in for guests: who a connection is from, and that no guest takes more than its part of the server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address
from pathlib import Path

from launcher.clock import Clock
from launcher.services.api.metadata.guests import Source

DEVICES = Path("/sys/class/net")
IP_PKTINFO, IP_PKTOPTIONS = 8, 9
_CONTROL = struct.Struct("@Nii")
_PKTINFO = struct.Struct("@i4s4s")

LIFETIME = 15.0
PER_GUEST = 16
AT_ONCE = 256
"""A connection lasts so many seconds at most, whatever it does; a guest has so many, all guests together so many."""

RATE = 50.0
BURST = 200
"""Requests, and connections as well: as many at once, then as many a second. A crawl by cloud-init is about 60."""

PAUSE = 1.0

log = logging.getLogger(__name__)


def source_of(connection: socket.socket) -> Source:
    """The bridge that its packets came in by and the address they came from, both by the kernel's word.

    The listener must have IP_PKTINFO set. Raises OSError when the bridge or the connection is gone.
    """
    control = connection.getsockopt(socket.SOL_IP, IP_PKTOPTIONS, 128)
    if len(control) < _CONTROL.size + _PKTINFO.size:
        raise OSError("the kernel does not say where the connection came in")
    index, _, _ = _PKTINFO.unpack_from(control, _CONTROL.size)
    return Source(socket.if_indextoname(index), IPv4Address(connection.getpeername()[0]))


def on(bridge: str) -> Callable[[socket.socket], Source]:
    """For a listener that only guests on this bridge can reach."""
    return lambda connection: Source(bridge, IPv4Address(connection.getpeername()[0]))


def by_a_bridge(source: Source) -> bool:
    """Whether it may be a guest at all; nobody else takes a place from them."""
    return (DEVICES / source.bridge / "bridge").is_dir()


class Allowance:
    """A bucket for each source: it holds `burst`, and `rate` flow in a second."""

    def __init__(self, *, clock: Clock, rate: float = RATE, burst: int = BURST) -> None:
        self.clock, self.rate, self.burst = clock, rate, burst
        self.taken: dict[Source, tuple[float, float]] = {}

    def take(self, source: Source) -> bool:
        now = self.clock.now_ms()
        taken = self._taken(source, now)
        allowed = taken + 1 <= self.burst
        self.taken[source] = (taken + allowed, now)
        if len(self.taken) > AT_ONCE:
            self.taken = {each: entry for each, entry in self.taken.items() if self._taken(each, now) > 0}
        return allowed

    def _taken(self, source: Source, now: float) -> float:
        """How much is missing from the bucket at this moment; nothing is what an unknown source lacks."""
        taken, at = self.taken.get(source, (0.0, now))
        return max(0.0, taken - (now - at) / 1000 * self.rate)


class Door:
    """Hands each connection to a protocol, if its guest may have one more, and ends it when its time is over."""

    def __init__(
        self,
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        allowance: Allowance,
        who: Callable[[socket.socket], Source] = source_of,
        admits: Callable[[Source], bool] = by_a_bridge,
        lifetime: float = LIFETIME,
    ) -> None:
        self.factory, self.allowance, self.lifetime = factory, allowance, lifetime
        self.who, self.admits = who, admits
        self.inside: dict[asyncio.BaseTransport, Source] = {}

    @contextlib.asynccontextmanager
    async def open(self, listener: socket.socket) -> AsyncIterator[None]:
        listener.setsockopt(socket.SOL_IP, IP_PKTINFO, 1)
        listener.setblocking(False)
        listener.listen(AT_ONCE)
        task = asyncio.ensure_future(self._accept(listener))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("no connection of a guest can be accepted: %s", error)
                await asyncio.sleep(PAUSE)
                continue
            await self._let_in(connection)

    async def _let_in(self, connection: socket.socket) -> None:
        self.inside = {each: source for each, source in self.inside.items() if not each.is_closing()}
        try:
            source = self.who(connection)
            if not (self.admits(source) and self._has_room(source)):
                raise OSError(f"{source.address} on {source.bridge} is no guest, or has too many connections")
            loop = asyncio.get_running_loop()
            transport, _ = await loop.connect_accepted_socket(self.factory, connection)
        except OSError as error:
            log.debug("a guest's connection was refused: %s", error)
            connection.close()
            return
        self.inside[transport] = source
        loop.call_later(self.lifetime, transport.abort)

    def _has_room(self, source: Source) -> bool:
        own = list(self.inside.values()).count(source)
        return len(self.inside) < AT_ONCE and own < PER_GUEST and self.allowance.take(source)
