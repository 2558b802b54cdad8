"""The contract of the host's address translation: masquerading, floating IPs, and routing as far as they need it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Protocol

from launcher.errors import NetworkFailed
from launcher.floating import Translation


class NatDriver(Protocol):
    """Security groups filter by the fixed address and the client's own: only what would not come back is changed."""

    async def apply(self, wanted: Translation) -> Mapping[IPv4Address, NetworkFailed]:
        """Leave the host so, whatever it found; what others have there is not touched.

        Repeating it costs nothing while nothing changes. Flows that came by an address which leads elsewhere now are
        cut. Answers which floating IPs the host cannot take, and why. Raises FirewallFailed, NetworkFailed,
        HostResourceMissing when nothing was done.
        """

    async def check(self) -> None:
        """Put back what somebody else has removed of the last `apply`."""

    async def stop(self) -> None:
        """Let go of what this process has open; the translation stays."""

    async def look(self) -> Mapping[IPv4Address, bool]:
        """The floating IPs that this host has rules or an address for, and whether it has both, leading somewhere."""
