"""Simple: the least loaded host of the zone, by vCPUs in use; a host's limit is `max_vcpus`."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.drivers.scheduler.driver import fitting
from launcher.drivers.scheduler.zone import in_zone
from launcher.errors import NoValidHost
from launcher.models import HostState, LaunchOrder


class SimpleScheduler:
    def __init__(self, *, max_vcpus: int) -> None:
        self.max_vcpus = max_vcpus

    def select(self, order: LaunchOrder, hosts: Sequence[HostState]) -> HostState:
        candidates = fitting(order, in_zone(order, hosts))
        least = min(candidates, key=lambda host: (host.vcpus_used, host.name))
        if least.vcpus_used + order.flavor.vcpus > self.max_vcpus:
            raise NoValidHost(
                f"{order.name}: too many cores: the least loaded host {least.name} has {least.vcpus_used} "
                f"of {self.max_vcpus} in use and {order.flavor.vcpus} more are needed",
                hint="raise [scheduler] max_vcpus or delete an instance",
            )
        return least
