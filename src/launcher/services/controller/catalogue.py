"""Flavors and hosts: what a launch can be made of, beside images (`images.py`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from launcher.clock import Clock
from launcher.messages.catalogue import ListFlavors, ListHosts
from launcher.messages.notices import HostHeartbeat
from launcher.messaging import Context, Route
from launcher.models import Flavor, HostState


class Catalogue:
    """Sizes come from the settings, hosts from what they say of themselves."""

    def __init__(self, *, clock: Clock, flavors: Mapping[str, Flavor]) -> None:
        self.clock, self.flavors = clock, flavors
        self.hosts: dict[str, HostState] = {}

    @property
    def routes(self) -> Sequence[Route]:
        return [ListFlavors.to(self.list_flavors), ListHosts.to(self.list_hosts)]

    def hear_host(self, message: HostHeartbeat) -> bool:
        """Whether this is the first word of a new process on that host."""
        known = self.hosts.get(message.host.name)
        self.hosts[message.host.name] = message.host
        return known is None or known.boot_id != message.host.boot_id

    def live_hosts(self, timeout: float) -> Sequence[str]:
        """Those heard of within `timeout` seconds."""
        oldest_ms = self.clock.now_ms() - timeout * 1000
        return [host.name for host in self.hosts.values() if host.seen_ms >= oldest_ms]

    async def list_flavors(self, ctx: Context, message: ListFlavors) -> list[Flavor]:
        return list(self.flavors.values())

    async def list_hosts(self, ctx: Context, message: ListHosts) -> list[HostState]:
        return sorted(self.hosts.values(), key=lambda host: host.name)
