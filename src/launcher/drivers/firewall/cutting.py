"""Which connections end when the rules change: those whose first packet would not pass any more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from launcher.drivers.firewall.knowledge import Guest
from launcher.drivers.flows import Flow, Flows
from launcher.explaining import Kind, Packet, Settings, explain
from launcher.policy import Direction
from launcher.ports import Port

_KINDS = {1: Kind.ICMP, 6: Kind.TCP, 17: Kind.UDP, 58: Kind.ICMP}


async def cut_all(flows: Flows, ports: Sequence[Port]) -> None:
    """Of addresses that had another owner until now."""
    if ports:
        await asyncio.to_thread(flows.cut, *(address for port in ports for address in port.addresses))


async def cut_forbidden(flows: Flows, guests: Sequence[Guest], settings: Settings) -> None:
    """Between these instances and anybody, what the rules of now do not let begin. Raises FirewallFailed."""
    owners = {
        address: (guest, nic) for guest in guests for nic, port in enumerate(guest.ports) for address in port.addresses
    }

    def unwanted(flow: Flow) -> bool:
        ends = ((flow.target, Direction.INGRESS), (flow.source, Direction.EGRESS))
        return any(
            not _passes(flow, *owners[address], settings, direction) for address, direction in ends if address in owners
        )

    if owners:
        await asyncio.to_thread(flows.cut_where, owners, unwanted)


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
