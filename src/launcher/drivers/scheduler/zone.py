"""Zone: chance within the availability zone that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from launcher.drivers.scheduler.driver import fitting
from launcher.errors import NoValidHost
from launcher.models import HostState, LaunchOrder


class ZoneScheduler:
    def __init__(self, *, rng: Random) -> None:
        self.rng = rng

    def select(self, order: LaunchOrder, hosts: Sequence[HostState]) -> HostState:
        return self.rng.choice(fitting(order, in_zone(order, hosts)))


def in_zone(order: LaunchOrder, hosts: Sequence[HostState]) -> Sequence[HostState]:
    """The hosts of the order's zone, all when it names none; raises NoValidHost when the zone is empty."""
    zone = order.availability_zone
    if zone is None or not hosts:
        return hosts
    found = [host for host in hosts if host.availability_zone == zone]
    if not found:
        zones = ", ".join(sorted({host.availability_zone for host in hosts}))
        raise NoValidHost(f"{order.name}: no live host in zone {zone!r}; there are: {zones}")
    return found
