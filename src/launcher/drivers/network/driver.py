"""The contract of the host's networking: bridges, taps, DHCP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from launcher.models import DhcpEvidence, InstanceRef, MacAddress
from launcher.networks import FixedIp, Network


class Tap(NamedTuple):
    """An instance's number, and the NIC's place."""

    number: int
    nic: int = 0


class NetworkDriver(Protocol):
    """Every `ensure_…` leaves the host as asked, whatever it found. Raises NetworkFailed, naming the device."""

    async def start(self) -> None:
        """Raises HostResourceMissing where this host lacks what the mode of the settings needs."""

    async def ensure_network(self, network: Network) -> None:
        """On the network role's host: the bridge with its gateway address, and what serves addresses on it."""

    async def remove_network(self, network: Network) -> None:
        """Undo `ensure_network`; absent is success. Nobody has an address of it any more."""

    async def revive(self, network: Network) -> None:
        """Start again what serves addresses on it, if it has died; a look else."""

    async def set_leases(self, network: Network, leases: Sequence[FixedIp]) -> None:
        """Make exactly these leases known to the DHCP server; a mode without one does nothing."""

    async def list_leases(self, network: Network) -> Sequence[MacAddress] | None:
        """The NICs that the DHCP server knows; None where there is none."""

    async def get_evidence(self, lease: FixedIp) -> DhcpEvidence: ...

    async def ensure_bridge(self, network: Network) -> None:
        """On a compute host: the bridge, up."""

    async def plug(self, order: InstanceRef, network: Network, nic: int = 0) -> None:
        """The tap `order.tap_of(nic)`, enslaved to the bridge and up; repeating it is success."""

    async def unplug(self, order: InstanceRef) -> None:
        """Remove all taps of the instance; none is success."""

    async def list_taps(self) -> Sequence[Tap]:
        """Whose taps are here."""

    async def stop(self) -> None:
        """End the programs that this process started and nobody else needs; guests keep their links."""
