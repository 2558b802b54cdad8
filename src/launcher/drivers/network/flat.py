"""A bridge and nothing more: the guest's address is written into its image."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from launcher.drivers.network import links
from launcher.drivers.network.apart import Apart, seal, unseal
from launcher.drivers.network.driver import Tap
from launcher.errors import NetworkFailed
from launcher.models import DhcpEvidence, InstanceRef, MacAddress
from launcher.networks import FixedIp, Network


class FlatNetwork:
    """See NetworkDriver. `tap_owner` is the user id that QEMU runs as: our own, unless a libvirtd opens the taps.

    `apart` makes the gateways of networks whose addresses another one has, too.
    """

    def __init__(self, *, apart: Apart | None = None, tap_owner: int | None = None) -> None:
        self._apart = apart
        self._tap_owner = os.geteuid() if tap_owner is None else tap_owner
        self._looking = asyncio.Lock()

    async def start(self) -> None:
        pass

    async def ensure_network(self, network: Network) -> None:
        await self.ensure_bridge(network)
        if network.apart is not None:
            await self._gateways(network).ensure(network)
            return
        await links.ensure_address(network.bridge, network.gateway_interface)
        if network.gateway6_interface is not None:
            await links.ensure_address6(network.bridge, network.gateway6_interface)

    async def remove_network(self, network: Network) -> None:
        """A bridge that somebody else made stays, without our addresses."""
        if network.apart is not None:
            await self._gateways(network).remove(network)
            await unseal(network.bridge)
        await links.remove_ours(network.bridge)
        await links.remove_address(network.bridge, network.gateway_interface)
        if network.gateway6_interface is not None:
            await links.remove_address(network.bridge, network.gateway6_interface)

    async def revive(self, network: Network) -> None:
        pass

    async def set_leases(self, network: Network, leases: Sequence[FixedIp]) -> None:
        pass

    async def list_leases(self, network: Network) -> Sequence[MacAddress] | None:
        return None

    async def get_evidence(self, lease: FixedIp) -> DhcpEvidence:
        return DhcpEvidence(instance_id=lease.instance_id, last_words="this network has no DHCP server")

    async def ensure_bridge(self, network: Network) -> None:
        # Two launches at once must not both find the bridge missing.
        async with self._looking:
            await links.ensure_bridge(network.bridge)
            if network.apart is not None:
                await seal(network)

    async def plug(self, order: InstanceRef, network: Network, nic: int = 0) -> None:
        """A guest hears its own broadcasts by a hairpin, which some take for a duplicate of their IPv6 address."""
        hairpin = network.cidr6 is None
        await links.plug(order.tap_of(nic), network.bridge, owner=self._tap_owner, hairpin=hairpin)

    async def unplug(self, order: InstanceRef) -> None:
        for nic in await asyncio.to_thread(links.list_nics, order.tap):
            await links.remove(order.tap_of(nic))

    async def list_taps(self) -> Sequence[Tap]:
        return await asyncio.to_thread(links.list_taps)

    async def stop(self) -> None:
        pass

    def _gateways(self, network: Network) -> Apart:
        if self._apart is None:
            raise NetworkFailed(f"{network.bridge}: this host makes no gateways for networks apart")
        return self._apart
