"""The contract of the packet filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from launcher.models import InstanceRef, LaunchOrder
from launcher.networks import FixedIp, Network
from launcher.policy import Policy


class FirewallDriver(Protocol):
    """Keeps unwanted packets from instances. `apply`, `update` and `remove` may be repeated.

    To an instance, default deny: what no rule of its security groups, its DHCP server or (by setting) its own network
    or the host lets in is dropped. From an instance to the host: answers, DHCP, DNS and metadata only, as `ensure_base`
    opens them. From an instance: nothing in another's name (MAC, ARP, IP, DHCP server, router
    advertisements); the rest goes out unless each of its groups has egress rules and none of them lets it.
    Foreign rules on the host are never touched. Raises FirewallFailed.
    """

    async def start(self) -> None:
        """Put the base chains and their jumps in place, whatever was found."""

    async def stop(self) -> None:
        """Finish what is under way and end the programs that this process started; the filters stay."""

    async def ensure_base(self, network: Network) -> None:
        """What `start` does, and this network's way to the metadata service; called by the network role."""

    async def apply(self, order: LaunchOrder, nics: Sequence[FixedIp], policy: Policy) -> None:
        """Replace one instance's rules as a whole, in one transaction; called before its domain starts.

        When this returns, an address that was not this instance's until now has no flow of its last owner's any more,
        and those of this instance that the rules do not let begin any more are cut.

        `policy` has the instance's own groups; what it says of a group holds for all who are in it.
        """

    async def update(self, policy: Policy) -> None:
        """Replace the rules and members of groups; groups that nobody here is in are ignored.

        What the rules do not let begin any more is cut. A group that is refused holds up no other one: it keeps the
        rules it had, and the first refusal is raised when all have been tried.
        """

    async def remove(self, order: InstanceRef) -> None:
        """Leave nothing of one instance; absent is success. Groups nobody uses any more go with it."""

    async def list_instances(self) -> Mapping[int, bool]:
        """The numbers of the instances that have rules here, and whether packets still come by them.

        False where somebody has flushed a chain or taken away a jump to it.
        """
