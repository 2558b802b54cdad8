"""Address translation that touches no host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address

from launcher.errors import NetworkFailed
from launcher.floating import Translation

Fault = Callable[[Translation], Awaitable[None]]
"""Called with what is asked for, before it is done; what it raises is what the caller gets."""


class FakeNat:
    """The contract is `NatDriver`'s; `applied` is what holds, `strays` are addresses that somebody left behind,
    `own` those that this host has itself.
    """

    def __init__(self, *, fault: Fault | None = None) -> None:
        self.fault = fault
        self.applied = Translation(masquerade=False)
        self.strays: set[IPv4Address] = set()
        self.own: set[IPv4Address] = set()

    async def apply(self, wanted: Translation) -> Mapping[IPv4Address, NetworkFailed]:
        if self.fault is not None:
            await self.fault(wanted)
        self.applied = wanted
        return {
            address: NetworkFailed(f"{address} is this host's own address")
            for address in wanted.leads
            if address in self.own
        }

    async def check(self) -> None:
        self.strays.clear()

    async def stop(self) -> None:
        pass

    async def look(self) -> Mapping[IPv4Address, bool]:
        return dict.fromkeys(self.strays, False) | dict.fromkeys(self.applied.leads, True)
