"""Which connections end when the rules change: those whose first packet would not pass any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from launcher.drivers.firewall.knowledge import Guest
from launcher.drivers.flows import End, Flow, Flows
from launcher.errors import FirewallFailed
from launcher.explaining import Kind, Packet, Settings, explain
from launcher.policy import Direction
from launcher.ports import Port

log = logging.getLogger(__name__)

_KINDS = {1: Kind.ICMP, 6: Kind.TCP, 17: Kind.UDP, 58: Kind.ICMP}


class Cutting:
    """Ends connections. Each time the kernel's table is walked as a whole, which takes milliseconds.

    So it is remembered which addresses may have connections: those that had some at the first look, and those that an
    instance has had since. A launch waits for a walk, also for one under way, only when it gets one of these.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._flows = Flows()
        self._used: set[End] = set()
        self._complete = self._looking = False
        self._left: set[End] = set()
        self._lock = asyncio.Lock()
        self._walks: set[asyncio.Task[None]] = set()

    async def begin(self, ports: Sequence[Port], new: Sequence[Port]) -> None:
        """An instance has these ports; the addresses of `new` had another owner until now, whose connections end.

        To be waited for before the instance starts: it would lose its own first connections. Raises FirewallFailed.
        """
        if not self._complete or self._looking or _ends(new) & self._used:
            async with self._lock:
                await self._end_last_owners(new)
        self._used |= _ends(ports)
        self._left -= _ends(ports)

    async def _end_last_owners(self, new: Sequence[Port]) -> None:
        if not self._complete:
            self._complete = True  # at once: who leaves during the look may have been overlooked
            self._used |= await self._look()
        if stale := _ends(new) & self._used:
            await asyncio.to_thread(self._flows.cut_where, stale)

    def end(self, guest: Guest | None) -> None:
        """An instance's filters are gone: its connections end now, or when its addresses are given to the next."""
        if guest is None:  # of which this process has heard nothing
            self._complete = False
            return
        self._left |= _ends(guest.ports)
        walk = asyncio.ensure_future(self._end_left())
        self._walks.add(walk)
        walk.add_done_callback(self._walks.discard)

    async def _end_left(self) -> None:
        async with self._lock:
            taken, self._left = self._left, set()
            try:
                if taken:
                    await asyncio.to_thread(self._flows.cut_where, taken)
                self._used -= taken
            except FirewallFailed as error:
                log.warning("left to the next owner: %s", error)

    async def _look(self) -> set[End]:
        self._looking = True
        try:
            return await asyncio.to_thread(self._flows.ends)
        except BaseException:
            self._complete = False
            raise
        finally:
            self._looking = False

    async def end_forbidden(self, guests: Sequence[Guest]) -> None:
        """Between these instances and anybody, what the rules of now do not let begin. Raises FirewallFailed."""
        nics = [(guest, nic, port) for guest in guests for nic, port in enumerate(guest.ports)]
        owners = {(port.zone, address): (guest, nic) for guest, nic, port in nics for address in port.addresses}

        def unwanted(flow: Flow) -> bool:
            ends = ((flow.target, Direction.INGRESS), (flow.source, Direction.EGRESS))
            return any(
                not _passes(flow, *owners[flow.zone, address], self._settings, direction)
                for address, direction in ends
                if (flow.zone, address) in owners
            )

        if owners:
            await asyncio.to_thread(self._flows.cut_where, owners, unwanted)

    async def stop(self) -> None:
        await asyncio.gather(*self._walks)
        self._flows.close()


def _ends(ports: Sequence[Port]) -> set[End]:
    return {(port.zone, address) for port in ports for address in port.addresses}


def _passes(flow: Flow, guest: Guest, nic: int, settings: Settings, direction: Direction) -> bool:
    packet = Packet(
        kind=_KINDS.get(flow.protocol, Kind.OTHER),
        source=flow.source,
        destination=flow.target,
        source_port=flow.source_port,
        port=flow.target_port,
        icmp_type=flow.icmp_type,
        icmp_code=flow.icmp_code,
        nic=nic,
    )
    return explain(packet, guest.ports, guest.policy, settings, direction=direction).passes
