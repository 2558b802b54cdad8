"""Which connections end when the rules change: those whose first packet would not pass any more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from launcher.drivers.firewall.knowledge import Guest
from launcher.drivers.flows import Address, Flow, Flows
from launcher.explaining import Kind, Packet, Settings, explain
from launcher.policy import Direction
from launcher.ports import Port

_KINDS = {1: Kind.ICMP, 6: Kind.TCP, 17: Kind.UDP, 58: Kind.ICMP}


class Cutting:
    """Ends connections. The kernel's table is walked as a whole each time; those that come together share a walk."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._flows = Flows()
        self._pending: set[Address] = set()
        self._walk = asyncio.Lock()

    async def end_all(self, ports: Sequence[Port]) -> None:
        """Of addresses that had another owner until now. Raises FirewallFailed.

        To be waited for before the new owner starts: it would lose its own first connections.
        """
        mine = {address for port in ports for address in port.addresses}
        if not mine:
            return
        self._pending |= mine
        async with self._walk:
            if self._pending.isdisjoint(mine):
                return  # another walk took them along
            taken = set(self._pending)
            await asyncio.to_thread(self._flows.cut, *taken)
            self._pending -= taken

    async def end_forbidden(self, guests: Sequence[Guest]) -> None:
        """Between these instances and anybody, what the rules of now do not let begin. Raises FirewallFailed."""
        nics = [(guest, nic, port) for guest in guests for nic, port in enumerate(guest.ports)]
        owners = {address: (guest, nic) for guest, nic, port in nics for address in port.addresses}

        def unwanted(flow: Flow) -> bool:
            ends = ((flow.target, Direction.INGRESS), (flow.source, Direction.EGRESS))
            return any(
                not _passes(flow, *owners[address], self._settings, direction)
                for address, direction in ends
                if address in owners
            )

        if owners:
            await asyncio.to_thread(self._flows.cut_where, owners, unwanted)

    def stop(self) -> None:
        self._flows.close()


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
