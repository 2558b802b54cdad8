"""A bridge on which dnsmasq gives each guest its address."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from launcher.drivers.network.apart import Apart
from launcher.drivers.network.dnsmasq import Dnsmasq
from launcher.drivers.network.flat import FlatNetwork
from launcher.models import DhcpEvidence, MacAddress
from launcher.networks import FixedIp, Network


class FlatDhcpNetwork(FlatNetwork):
    """See NetworkDriver. A dnsmasq that has died is started again by the next `revive`, or by whoever needs it."""

    def __init__(
        self,
        state_dir: Path,
        *,
        apart: Apart | None = None,
        lease_seconds: int = 3600,
        tap_owner: int | None = None,
    ) -> None:
        super().__init__(apart=apart, tap_owner=tap_owner)
        self._directory = state_dir / "networks"
        self._lease_seconds = lease_seconds
        self._servers: dict[str, Dnsmasq] = {}
        self._serving = asyncio.Lock()

    async def ensure_network(self, network: Network) -> None:
        await super().ensure_network(network)
        async with self._serving:
            await self._server(network).ensure()

    async def remove_network(self, network: Network) -> None:
        async with self._serving:
            await self._server(network).remove()
            del self._servers[network.bridge]
        await super().remove_network(network)

    async def revive(self, network: Network) -> None:
        async with self._serving:
            await self._server(network).revive()

    async def set_leases(self, network: Network, leases: Sequence[FixedIp]) -> None:
        async with self._serving:
            await self._server(network).publish(leases)

    async def list_leases(self, network: Network) -> Sequence[MacAddress] | None:
        return await asyncio.to_thread(self._server(network).list_leases)

    async def get_evidence(self, lease: FixedIp) -> DhcpEvidence:
        return await asyncio.to_thread(self._server(lease.network).get_evidence, lease)

    async def stop(self) -> None:
        async with self._serving:
            for server in self._servers.values():
                await server.stop()

    def _mtu(self) -> int | None:
        """What guests are told; None is nothing."""
        return None

    def _server(self, network: Network) -> Dnsmasq:
        """By the bridge, which is one network's only: two projects may give theirs the same name."""
        if network.bridge not in self._servers:
            directory = self._directory / network.bridge
            self._servers[network.bridge] = Dnsmasq(
                network,
                directory,
                lease_seconds=self._lease_seconds,
                mtu=self._mtu(),
                namespaces=self._gateways(network).namespaces if network.apart else None,
            )
        return self._servers[network.bridge]
