"""Networking that touches no device: for the demo without a network, for benchmarks and for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from launcher.errors import NetworkFailed
from launcher.models import DhcpEvidence, InstanceId, InstanceRef, LaunchOrder, MacAddress
from launcher.networks import FixedIp, Network

Fault = Callable[[str, str], Awaitable[None]]
"""Called with a point and an instance's id or a network's name: `plug`, `unplug`, `set_leases` before the effect,
`plugged`, `unplugged` after it, `ensure_network`, `ensure_bridge`.

What it raises is what the caller gets, so an error at `plugged` is "done, but the answer was lost".
"""


class FakeNetwork:
    """The contract is `NetworkDriver`'s; `delay` is the seconds one plug or unplug takes.

    `taps` is each tap's bridge by the instance's number, `leases` each network's by its name.
    """

    def __init__(self, *, delay: float = 0.0, fault: Fault | None = None) -> None:
        self.delay = delay
        self.fault = fault
        self.bridges: dict[str, Network] = {}
        self.taps: dict[int, str] = {}
        self.leases: dict[str, tuple[FixedIp, ...]] = {}
        self.evidence: dict[InstanceId, DhcpEvidence] = {}

    async def ensure_network(self, network: Network) -> None:
        await self._reach("ensure_network", network.name)
        self.bridges[network.bridge] = network

    async def set_leases(self, network: Network, leases: Sequence[FixedIp]) -> None:
        await self._reach("set_leases", network.name)
        self.leases[network.name] = tuple(leases)

    async def list_leases(self, network: Network) -> Sequence[MacAddress] | None:
        return [lease.mac for lease in self.leases.get(network.name, ())]

    async def get_evidence(self, lease: FixedIp) -> DhcpEvidence:
        return self.evidence.get(lease.instance_id, DhcpEvidence(instance_id=lease.instance_id))

    async def ensure_bridge(self, network: Network) -> None:
        await self._reach("ensure_bridge", network.name)
        self.bridges.setdefault(network.bridge, network)

    async def plug(self, order: LaunchOrder, network: Network) -> None:
        await self._reach("plug", order.instance_id)
        if network.bridge not in self.bridges:
            raise NetworkFailed(f"{order.tap}: there is no bridge {network.bridge}")
        await asyncio.sleep(self.delay)
        self.taps[order.number] = network.bridge
        await self._reach("plugged", order.instance_id)

    async def unplug(self, order: InstanceRef) -> None:
        await self._reach("unplug", order.instance_id)
        await asyncio.sleep(self.delay)
        self.taps.pop(order.number, None)
        await self._reach("unplugged", order.instance_id)

    async def list_taps(self) -> Sequence[int]:
        return sorted(self.taps)

    async def stop(self) -> None:
        pass

    async def _reach(self, point: str, subject: str) -> None:
        if self.fault is not None:
            await self.fault(point, subject)
