"""The contract of the packet filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from launcher.models import FixedIp, InstanceRef, LaunchOrder, Network


class FirewallDriver(Protocol):
    """Keeps unwanted packets from instances. `apply` and `remove` may be repeated.

    Default deny: what no rule of the instance's security groups, its DHCP server or (by setting) its own
    network lets in is dropped. Foreign rules on the host are never touched. Raises FirewallFailed.
    """

    async def start(self) -> None:
        """Put the base chains and their jumps in place, whatever was found."""

    async def ensure_base(self, network: Network) -> None:
        """What `start` does, and this network's way to the metadata service; called by the network role."""

    async def apply(self, order: LaunchOrder, address: FixedIp) -> None:
        """Replace one instance's rules as a whole, in one transaction; called before its domain starts."""

    async def remove(self, order: InstanceRef) -> None:
        """Leave nothing of one instance; absent is success. Groups nobody uses any more go with it."""

    async def list_instances(self) -> Mapping[int, bool]:
        """The numbers of the instances that have rules here, and whether packets still come by them.

        False where somebody has flushed a chain or taken away a jump to it.
        """
