"""Chance: any host with room."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from launcher.drivers.scheduler.driver import fitting
from launcher.models import HostState, LaunchOrder


class ChanceScheduler:
    def __init__(self, *, rng: Random) -> None:
        self.rng = rng

    def select(self, order: LaunchOrder, hosts: Sequence[HostState]) -> HostState:
        return self.rng.choice(fitting(order, hosts))
