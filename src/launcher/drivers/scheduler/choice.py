"""Which scheduler chooses the hosts, by the settings."""

from __future__ import annotations

from random import Random

from launcher.drivers.scheduler.chance import ChanceScheduler
from launcher.drivers.scheduler.driver import SchedulerDriver
from launcher.drivers.scheduler.simple import SimpleScheduler
from launcher.drivers.scheduler.zone import ZoneScheduler


def choose_scheduler(driver: str, *, rng: Random, max_vcpus: int) -> SchedulerDriver:
    """`max_vcpus` is the simple one's."""
    match driver:
        case "zone":
            return ZoneScheduler(rng=rng)
        case "simple":
            return SimpleScheduler(max_vcpus=max_vcpus)
        case _:
            return ChanceScheduler(rng=rng)
