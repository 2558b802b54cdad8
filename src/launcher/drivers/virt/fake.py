"""A hypervisor without machines: for trying the product on any laptop, for benchmarks and for tests.

Its whole state is plain to see: `domains` are ours, `foreign` are other people's (uuid to name), `saved` are suspended.
Guests power off when they are asked to, but for the `deaf`, and let go of volumes, but for those that they are
`clinging` to. `plugged` are the volumes of ours, `copied` the machines that were held still for a copy, or whose
root was copied.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from launcher.drivers.virt.driver import Disks, Domain, HostResources, Plugged, PowerWatcher
from launcher.errors import DiskHeld, DomainConflict, NotFound, SpawnFailed, StaleGeneration
from launcher.models import POWERED_OFF, Diagnostics, InstanceId, InstanceRef, LaunchOrder, PowerState

Fault = Callable[[str, InstanceId], Awaitable[None]]
"""Called with a point and an instance: `spawn`, `destroy` before the effect, `spawned`, `destroyed` after it.

What it raises is what the caller gets, so an error at `spawned` is "done, but the answer was lost". It may also
wait: an effect that comes late.
"""


class FakeVirt:
    """The contract is `VirtDriver`'s; `delay` is the seconds one spawn or destroy takes."""

    def __init__(
        self, *, vcpus: int = 64, memory_mb: int = 256 * 1024, delay: float = 0.0, fault: Fault | None = None
    ) -> None:
        self.resources = HostResources(
            vcpus=vcpus, memory_mb=memory_mb, virt_type="fake", virt_reason="no machines are started"
        )
        self.delay = delay
        self.fault = fault
        self.domains: dict[InstanceId, Domain] = {}
        self.foreign: dict[InstanceId, str] = {}
        self.plugged: dict[InstanceId, dict[str, Plugged]] = {}
        self.clinging: set[str] = set()
        self.copied: list[InstanceId] = []
        self.ends: dict[InstanceId, str] = {}
        self.saved: dict[InstanceId, Domain] = {}
        self.deaf: set[InstanceId] = set()
        self.watcher: PowerWatcher = _nobody

    async def start(self, watcher: PowerWatcher) -> None:
        self.watcher = watcher

    async def stop(self) -> None:
        self.watcher = _nobody

    async def host_resources(self) -> HostResources:
        return self.resources

    async def spawn(self, order: LaunchOrder, disks: Disks) -> None:
        await self._reach("spawn", order.instance_id)
        self._refuse_conflict(order)
        running = self.domains.get(order.instance_id)
        if running is not None and running.generation > order.generation:
            raise StaleGeneration(f"{order.name}: generation {running.generation} runs, {order.generation} is older")
        if running is None or running.generation < order.generation:
            await asyncio.sleep(self.delay)
            self._boot(order)
            self.plugged[order.instance_id] = {disk.name: disk for disk in disks.volumes}
        await self._reach("spawned", order.instance_id)

    async def destroy(self, order: InstanceRef) -> None:
        await self._reach("destroy", order.instance_id)
        if order.instance_id in self.domains:
            await asyncio.sleep(self.delay)
        self.domains.pop(order.instance_id, None)
        self.plugged.pop(order.instance_id, None)
        await self._reach("destroyed", order.instance_id)

    async def shut_down(self, order: InstanceRef) -> None:
        await self._reach("shut_down", order.instance_id)
        domain = self.domains.get(order.instance_id)
        if domain is not None and domain.power is PowerState.RUNNING and order.instance_id not in self.deaf:
            self.end(order.instance_id, POWERED_OFF)

    async def pause(self, order: LaunchOrder) -> None:
        await self._turn(order, PowerState.PAUSED, "paused")

    async def unpause(self, order: LaunchOrder) -> None:
        await self._turn(order, PowerState.RUNNING, "unpaused")

    async def suspend(self, order: LaunchOrder, memory: Path) -> None:
        await self._reach("suspend", order.instance_id)
        domain = self.domains.get(order.instance_id)
        if domain is None and order.instance_id not in self.saved:
            raise NotFound(f"{order.name}: there is no domain to suspend")
        if domain is not None:
            self.saved[order.instance_id] = self.domains.pop(order.instance_id)
        await self._reach("suspended", order.instance_id)

    async def resume(self, order: LaunchOrder, memory: Path) -> None:
        await self._reach("resume", order.instance_id)
        domain = self.domains.get(order.instance_id)
        if domain is None or domain.generation < order.generation:
            if self.saved.pop(order.instance_id, None) is None:
                raise SpawnFailed(f"{order.name}: there is no memory to resume from: {memory}")
            self._boot(order)
        await self._reach("resumed", order.instance_id)

    async def forget(self, order: InstanceRef, memory: Path) -> None:
        self.saved.pop(order.instance_id, None)

    async def list_domains(self) -> list[Domain]:
        return sorted(self.domains.values(), key=lambda domain: domain.name)

    async def find_domain(self, instance_id: InstanceId) -> Domain | None:
        return self.domains.get(instance_id)

    async def find_end(self, order: InstanceRef) -> str | None:
        return self.ends.get(order.instance_id)

    async def get_diagnostics(self, order: LaunchOrder) -> Diagnostics:
        domain = self.domains.get(order.instance_id)
        if domain is None:
            raise NotFound(f"{order.name}: there is no such domain on this host")
        return Diagnostics(power=domain.power, cpu_time_ms=0, memory_mb=order.flavor.memory_mb)

    async def plug_disk(self, order: InstanceRef, disk: Plugged) -> None:
        await self._reach("plug", order.instance_id)
        there = self._plugged(order)
        if disk.name not in there and disk.device in {each.device for each in there.values()}:
            raise DomainConflict(f"{order.name}: /dev/{disk.device} is another volume's")
        there.setdefault(disk.name, disk)
        await self._reach("plugged", order.instance_id)

    async def unplug_disk(self, order: InstanceRef, name: str) -> None:
        await self._reach("unplug", order.instance_id)
        there = self.plugged.get(order.instance_id, {})
        if name in there and name in self.clinging:
            raise DiskHeld(f"{order.name}: the guest does not let go of {name}", hint="unmount it there")
        there.pop(name, None)
        await self._reach("unplugged", order.instance_id)

    async def resize_disk(self, order: InstanceRef, name: str, size: int) -> None:
        await self._reach("resize", order.instance_id)
        if name not in self._plugged(order):
            raise NotFound(f"{order.name} has no {name}")

    @contextlib.asynccontextmanager
    async def still(self, order: InstanceRef) -> AsyncIterator[None]:
        self.copied.append(order.instance_id)
        yield

    async def copy_root(self, order: LaunchOrder, target: Path) -> None:
        await self._reach("copy", order.instance_id)
        domain = self.domains.get(order.instance_id)
        if domain is None or domain.generation != order.generation:
            raise NotFound(f"{order.name}: there is no such domain on this host")
        self.copied.append(order.instance_id)
        await self._reach("copied", order.instance_id)

    async def list_plugged(self) -> Mapping[InstanceId, tuple[str, ...]]:
        return {instance_id: tuple(self.plugged.get(instance_id, ())) for instance_id in self.domains}

    def end(self, instance_id: InstanceId, cause: str) -> None:
        """The guest ends by itself, as a power-off in the guest (`shutdown`) or a dying QEMU (`failed`) would."""
        del self.domains[instance_id]
        self.plugged.pop(instance_id, None)
        self.ends[instance_id] = cause
        self.watcher(instance_id, PowerState.STOPPED, cause)

    async def _turn(self, order: LaunchOrder, power: PowerState, cause: str) -> None:
        await self._reach(cause, order.instance_id)
        domain = self.domains.get(order.instance_id)
        if domain is None or domain.generation != order.generation:
            raise NotFound(f"{order.name}: there is no such domain on this host")
        if domain.power is not power:
            self.domains[order.instance_id] = domain.model_copy(update={"power": power})
            self.watcher(order.instance_id, power, cause)

    def _refuse_conflict(self, order: LaunchOrder) -> None:
        names = self.foreign | {domain.instance_id: domain.name for domain in self.domains.values()}
        others = {name for instance_id, name in names.items() if instance_id != order.instance_id}
        if order.instance_id in self.foreign or order.name in others:
            raise DomainConflict(f"{order.name}: the name or the uuid {order.instance_id} is another domain's")

    def _plugged(self, order: InstanceRef) -> dict[str, Plugged]:
        if order.instance_id not in self.domains:
            raise NotFound(f"{order.name}: there is no such domain on this host")
        return self.plugged.setdefault(order.instance_id, {})

    def _boot(self, order: LaunchOrder) -> None:
        self.ends.pop(order.instance_id, None)
        self.domains[order.instance_id] = Domain(
            instance_id=order.instance_id,
            number=order.number,
            generation=order.generation,
            name=order.name,
            power=PowerState.RUNNING,
        )
        self.watcher(order.instance_id, PowerState.RUNNING, "booted")

    async def _reach(self, point: str, instance_id: InstanceId) -> None:
        if self.fault is not None:
            await self.fault(point, instance_id)


def _nobody(_: InstanceId, __: PowerState, ___: str) -> None:
    """Before `start` and after `stop` there is nobody to tell."""
