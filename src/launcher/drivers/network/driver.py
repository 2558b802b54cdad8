"""The contract of the host's networking: bridges, taps, DHCP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from launcher.models import DhcpEvidence, InstanceRef, LaunchOrder, MacAddress
from launcher.networks import FixedIp, Network


class NetworkDriver(Protocol):
    """Every `ensure_…` leaves the host as asked, whatever it found. Raises NetworkFailed, naming the device."""

    async def ensure_network(self, network: Network) -> None:
        """On the network role's host: the bridge with its gateway address, and what serves addresses on it."""

    async def set_leases(self, network: Network, leases: Sequence[FixedIp]) -> None:
        """Make exactly these leases known to the DHCP server; a mode without one does nothing."""

    async def list_leases(self, network: Network) -> Sequence[MacAddress] | None:
        """The NICs that the DHCP server knows; None where there is none."""

    async def get_evidence(self, lease: FixedIp) -> DhcpEvidence: ...

    async def ensure_bridge(self, network: Network) -> None:
        """On a compute host: the bridge, up."""

    async def plug(self, order: LaunchOrder, network: Network) -> None:
        """The tap `order.tap`, enslaved to the bridge and up; repeating it is success."""

    async def unplug(self, order: InstanceRef) -> None:
        """Remove the tap; absent is success."""

    async def list_taps(self) -> Sequence[int]:
        """The numbers of the instances that have a tap here."""

    async def stop(self) -> None:
        """End the programs that this process started and nobody else needs; guests keep their links."""
