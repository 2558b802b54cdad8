"""The scheduler: keeps a picture of the hosts from their heartbeats, chooses one, casts the order on to it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from random import Random

from launcher.bus import Bus
from launcher.clock import Clock
from launcher.drivers.scheduler.driver import SchedulerDriver
from launcher.drivers.scheduler.volumes import roomiest
from launcher.errors import BusError, NoValidHost, StaleGeneration
from launcher.failpoints import failpoint
from launcher.messages.compute import RunInstance
from launcher.messages.notices import HostHeartbeat
from launcher.messages.reports import ReportFault
from launcher.messages.scheduler import ScheduleInstance
from launcher.messages.volumes import ReportVolumeFault, ScheduleVolume, WorkOnVolume
from launcher.messaging import Context, Route
from launcher.models import HostState, LaunchOrder
from launcher.services.role import Role
from launcher.volumes import VolumeOrder


class Scheduler(Role):
    """Chooses among the hosts heard of within `host_timeout` seconds."""

    topic = "scheduler"

    def __init__(
        self, *, host: str, bus: Bus, clock: Clock, rng: Random, driver: SchedulerDriver, host_timeout: float
    ) -> None:
        super().__init__(host=host, bus=bus, clock=clock, rng=rng)
        self.driver, self.host_timeout = driver, host_timeout
        self.hosts: dict[str, HostState] = {}

    @property
    def routes(self) -> Sequence[Route]:
        return [ScheduleInstance.to(self.schedule_instance), ScheduleVolume.to(self.schedule_volume)]

    @property
    def notices(self) -> Sequence[Route]:
        return [HostHeartbeat.to(self.hear_host)]

    async def hear_host(self, ctx: Context, message: HostHeartbeat) -> None:
        self.hosts[message.host.name] = message.host

    async def schedule_instance(self, ctx: Context, message: ScheduleInstance) -> None:
        order = message.order
        try:
            chosen = self._select(order, self._live_hosts())
        except NoValidHost as error:
            await self._report(ctx, order, error)
            return
        self._count(chosen, order)
        async with failpoint("cast.run"):
            await self.bus.cast(ctx, RunInstance(order=order), host=chosen.name)

    async def schedule_volume(self, ctx: Context, message: ScheduleVolume) -> None:
        """The live host with the most room."""
        order = message.order
        try:
            chosen = roomiest(order, self._live_hosts())
        except NoValidHost as error:
            await self._report_volume(ctx, order, error)
            return
        await self.bus.cast(ctx, WorkOnVolume(order=order), host=chosen.name)

    def _select(self, order: LaunchOrder, hosts: Sequence[HostState]) -> HostState:
        """A host on which it has not failed yet; where none of those will do, any."""
        untried = [host for host in hosts if host.name not in order.tried_hosts]
        if 0 < len(untried) < len(hosts):
            with contextlib.suppress(NoValidHost):
                return self.driver.select(order, untried)
        return self.driver.select(order, hosts)

    def _live_hosts(self) -> list[HostState]:
        oldest_ms = self.clock.now_ms() - self.host_timeout * 1000
        return [host for host in self.hosts.values() if host.seen_ms >= oldest_ms]

    def _count(self, host: HostState, order: LaunchOrder) -> None:
        """Take the order into the picture at once; the next heartbeat replaces the guess by the fact."""
        self.hosts[host.name] = host.model_copy(
            update={
                "vcpus_used": host.vcpus_used + order.flavor.vcpus,
                "memory_used_mb": host.memory_used_mb + order.flavor.memory_mb,
                "instances": host.instances + 1,
            }
        )

    async def _report_volume(self, ctx: Context, order: VolumeOrder, error: NoValidHost) -> None:
        fault = ReportVolumeFault(
            volume_id=order.volume_id,
            generation=order.generation,
            status=order.status,
            host=None,
            code=error.code,
            message=error.message,
            hint=error.hint,
            retriable=error.retriable,
        )
        with contextlib.suppress(StaleGeneration, BusError):
            await self.bus.call(ctx, fault)

    async def _report(self, ctx: Context, order: LaunchOrder, error: NoValidHost) -> None:
        fault = ReportFault(
            instance_id=order.instance_id,
            generation=order.generation,
            host=None,
            step="scheduling",
            code=error.code,
            message=error.message,
            hint=error.hint,
            retriable=error.retriable,
        )
        try:
            await self.bus.call(ctx, fault)
        except (StaleGeneration, BusError):
            return
