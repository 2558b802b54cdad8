"""A network for each project: its own bridge, which an uplink may join with the same project's on other hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from launcher.drivers.network import links
from launcher.drivers.network.apart import Apart
from launcher.drivers.network.flat_dhcp import FlatDhcpNetwork
from launcher.networks import Network


class Uplink(Protocol):
    """How a project's bridge reaches other hosts. The verbs may be repeated; they raise NetworkFailed."""

    async def check(self) -> None:
        """Raises HostResourceMissing where the kernel or the interface is not there, saying what else can be set."""

    async def attach(self, network: Network) -> None:
        """The network's segment on its bridge, up."""

    async def detach(self, network: Network) -> None: ...

    def mtu(self) -> int | None:
        """The most bytes that a packet of a guest may have; None where it is what guests assume."""


class VlanNetwork(FlatDhcpNetwork):
    """See NetworkDriver. Without an uplink the projects of this host are apart, and the hosts are."""

    def __init__(
        self,
        state_dir: Path,
        *,
        uplink: Uplink | None,
        apart: Apart | None = None,
        lease_seconds: int = 3600,
        tap_owner: int | None = None,
    ) -> None:
        super().__init__(state_dir, apart=apart, lease_seconds=lease_seconds, tap_owner=tap_owner)
        self._uplink = uplink

    async def start(self) -> None:
        if self._uplink is not None:
            await self._uplink.check()

    async def ensure_bridge(self, network: Network) -> None:
        links.check_ours(network.bridge)
        await super().ensure_bridge(network)
        if self._uplink is not None:
            async with self._looking:
                await self._uplink.attach(network)

    async def remove_network(self, network: Network) -> None:
        if self._uplink is not None:
            await self._uplink.detach(network)
        await super().remove_network(network)

    def _mtu(self) -> int | None:
        return self._uplink.mtu() if self._uplink is not None else None
