"""The compute role: what a host answers to, what it tells of itself, and what it is made of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

from launcher.bus import Bus
from launcher.clock import Clock
from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.images.store import ImageStore
from launcher.drivers.network.driver import NetworkDriver
from launcher.drivers.virt.driver import VirtDriver
from launcher.drivers.volumes.driver import VolumeDriver
from launcher.explaining import Settings
from launcher.identity import new_span_id
from launcher.messages.compute import RunInstance, TerminateInstance
from launcher.messages.notices import HostHeartbeat
from launcher.messaging import Context, Route
from launcher.models import HostState, InstanceId, PowerState
from launcher.services.artefacts import Artefacts
from launcher.services.compute.holdings import Holdings
from launcher.services.compute.launch import Launches
from launcher.services.compute.life import Life
from launcher.services.compute.looks import Looks
from launcher.services.compute.reporting import Reporting
from launcher.services.compute.stuck import Stuck
from launcher.services.compute.work import Launch
from launcher.services.filters import Filters
from launcher.services.role import Role
from launcher.services.volumes import Volumes

log = logging.getLogger(__name__)


class Compute(Role):
    """Keeps no table: every artefact is named from the order, and the rows belong to the controller.

    A machine that is not found is looked for again after `second_look` seconds; those whose disks were full are looked
    for every `stuck_every` (0: never).
    """

    topic = "compute"

    def __init__(
        self,
        *,
        host: str,
        bus: Bus,
        clock: Clock,
        rng: Random,
        availability_zone: str,
        heartbeat: float,
        virt: VirtDriver,
        firewall: FirewallDriver,
        network: NetworkDriver,
        images: ImageStore,
        volumes: VolumeDriver,
        settings: Settings | None = None,
        launcher: str = "",
        second_look: float = 3.0,
        stuck_every: float = 5.0,
    ) -> None:
        super().__init__(host=host, bus=bus, clock=clock, rng=rng)
        self.availability_zone, self.heartbeat, self.boot_id = availability_zone, heartbeat, new_span_id(rng)
        self.virt, self.firewall, self.network, self.images = virt, firewall, network, images
        self.holdings = Holdings()
        self.filters = Filters(host=host, bus=bus, firewall=firewall, settings=settings or Settings())
        self.reports: set[asyncio.Task[None]] = set()
        self.reporting = Reporting(
            host=host, bus=bus, clock=clock, rng=rng, keep=self.keep, own_context=self.own_context
        )
        host_has: Any = {"virt": virt, "network": network, "images": images}
        own: Any = {"holdings": self.holdings, "reporting": self.reporting}
        self.volumes = Volumes(
            host=host,
            bus=bus,
            virt=virt,
            driver=volumes,
            turns=self.holdings.turns,
            missed=self.reporting.missed,
            memory=images.memory_file,
        )
        self.launches = Launches(bus=bus, **host_has, filters=self.filters, volumes=self.volumes, **own)
        self.looks = Looks(
            host=host,
            bus=bus,
            virt=virt,
            images=images,
            artefacts=Artefacts(**host_has, firewall=firewall, volumes=volumes, launcher=launcher),
            launches=self.launches,
            second_look=second_look,
            **own,
        )
        self.stuck = Stuck(host=host, bus=bus, virt=virt, holdings=self.holdings, context=self.own_context)
        self.stuck_every = stuck_every
        self.life = Life(clock=clock, virt=virt, images=images, launches=self.launches, **own)

    @property
    def routes(self) -> Sequence[Route]:
        return [
            RunInstance.to(self.run_instance),
            TerminateInstance.to(self.terminate_instance),
            *self.looks.routes,
            *self.life.routes,
            *self.filters.routes,
            *self.volumes.routes,
        ]

    @property
    def recurring(self) -> Sequence[tuple[float, Callable[[], Awaitable[None]]]]:
        stuck = [(self.stuck_every, self.stuck.look)] if self.stuck_every else []
        return [(self.heartbeat, self.beat), *stuck]

    async def start(self) -> None:
        await self.images.start()
        await self.volumes.start()
        await self.network.start()
        await self.firewall.start()
        await self.virt.start(self.see_power)
        resources = await self.virt.host_resources()
        log.info("virtualization: %s: %s", resources.virt_type, resources.virt_reason)
        await self.looks.start()

    async def recover(self) -> None:
        await self.beat()

    async def stop(self) -> None:
        await self.virt.stop()
        await self.images.stop()

    # --- what the messages ask for ---------------------------------------------------------------

    async def run_instance(self, ctx: Context, message: RunInstance) -> None:
        """Launch, or go on with a launch that was begun. Told twice while at it, it goes on undisturbed."""
        async with self.holdings.turns.take(message.order) as mine:
            if mine:
                await self.launches.launch(Launch(ctx, message.order))

    async def terminate_instance(self, ctx: Context, message: TerminateInstance) -> None:
        """Undo everything. A launch under way stops at its next step and gives way."""
        async with self.holdings.turns.take(message.order) as mine:
            if mine:
                await self.launches.unwind(Launch(ctx, message.order, message.keep_address))

    # --- what it sees by itself ----------------------------------------------------------------------

    async def beat(self) -> None:
        """Say that this host lives and what it has."""
        resources, held = await self.virt.host_resources(), self.holdings.held.values()
        state = HostState(
            name=self.host,
            availability_zone=self.availability_zone,
            boot_id=self.boot_id,
            vcpus=resources.vcpus,
            memory_mb=resources.memory_mb,
            disk_free_mb=await self.images.free_mb(),
            vcpus_used=sum(order.flavor.vcpus for order in held),
            memory_used_mb=sum(order.flavor.memory_mb for order in held),
            instances=len(held),
            volumes_free_mb=await self.volumes.driver.free_mb(),
            running=self.holdings.running,
            highest_number=self.holdings.numbers.highest,
            highest_volume=self.volumes.highest,
            virt_type=resources.virt_type,
            virt_reason=resources.virt_reason,
            policy_version=self.filters.version,
            seen_ms=int(self.clock.now_ms()),
        )
        await self.bus.notify(self.own_context(), HostHeartbeat(host=state))

    def see_power(self, instance_id: InstanceId, power: PowerState, cause: str) -> None:
        """The hypervisor's watcher; runs on the loop. What is not held yet after a restart will be verified."""
        order = self.holdings.held.get(instance_id)
        if order is None:
            return
        if power is PowerState.STOPPED:
            self.holdings.hold(order, running=False)
        task = asyncio.ensure_future(self.reporting.power(order, power, cause))
        self.reports.add(task)
        task.add_done_callback(self.reports.discard)
