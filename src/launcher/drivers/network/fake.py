"""Networking that touches no device: for the demo without a network, for benchmarks and for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from launcher.drivers.network.driver import Tap
from launcher.errors import NetworkFailed
from launcher.models import DhcpEvidence, InstanceId, InstanceRef, MacAddress
from launcher.networks import FixedIp, Network

Fault = Callable[[str, str], Awaitable[None]]
"""Called with a point and an instance's id or a network's name: `plug`, `unplug`, `set_leases` before the effect,
`plugged`, `unplugged` after it, `ensure_network`, `ensure_bridge`, `remove_network`.

What it raises is what the caller gets, so an error at `plugged` is "done, but the answer was lost".
"""


class FakeNetwork:
    """The contract is `NetworkDriver`'s; `delay` is the seconds one plug or unplug takes.

    `taps` is each tap's bridge, `leases` each network's by its bridge.
    """

    def __init__(self, *, delay: float = 0.0, fault: Fault | None = None) -> None:
        self.delay = delay
        self.fault = fault
        self.bridges: dict[str, Network] = {}
        self.taps: dict[Tap, str] = {}
        self.leases: dict[str, tuple[FixedIp, ...]] = {}
        self.evidence: dict[InstanceId, DhcpEvidence] = {}

    async def start(self) -> None:
        pass

    async def ensure_network(self, network: Network) -> None:
        await self._reach("ensure_network", network.name)
        self.bridges[network.bridge] = network

    async def remove_network(self, network: Network) -> None:
        await self._reach("remove_network", network.name)
        self.bridges.pop(network.bridge, None)
        self.leases.pop(network.bridge, None)

    async def revive(self, network: Network) -> None:
        pass

    async def set_leases(self, network: Network, leases: Sequence[FixedIp]) -> None:
        await self._reach("set_leases", network.name)
        self.leases[network.bridge] = tuple(leases)

    async def list_leases(self, network: Network) -> Sequence[MacAddress] | None:
        return [lease.mac for lease in self.leases.get(network.bridge, ())]

    async def get_evidence(self, lease: FixedIp) -> DhcpEvidence:
        return self.evidence.get(lease.instance_id, DhcpEvidence(instance_id=lease.instance_id))

    async def ensure_bridge(self, network: Network) -> None:
        await self._reach("ensure_bridge", network.name)
        self.bridges.setdefault(network.bridge, network)

    async def plug(self, order: InstanceRef, network: Network, nic: int = 0) -> None:
        await self._reach("plug", order.instance_id)
        if network.bridge not in self.bridges:
            raise NetworkFailed(f"{order.tap_of(nic)}: there is no bridge {network.bridge}")
        await asyncio.sleep(self.delay)
        self.taps[Tap(order.number, nic)] = network.bridge
        await self._reach("plugged", order.instance_id)

    async def unplug(self, order: InstanceRef) -> None:
        await self._reach("unplug", order.instance_id)
        await asyncio.sleep(self.delay)
        self.taps = {tap: bridge for tap, bridge in self.taps.items() if tap.number != order.number}
        await self._reach("unplugged", order.instance_id)

    async def list_taps(self) -> Sequence[Tap]:
        return sorted(self.taps)

    async def stop(self) -> None:
        pass

    async def _reach(self, point: str, subject: str) -> None:
        if self.fault is not None:
            await self.fault(point, subject)
