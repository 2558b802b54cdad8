"""Domains by libvirt and QEMU, through a daemon or through the driver embedded in this process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from launcher.drivers.virt import backup, disk_xml, domain_xml, domains, ends, kvm, life, plugging
from launcher.drivers.virt.connection import Connection, Lane, Work
from launcher.drivers.virt.driver import Disks, Domain, HostResources, Plugged, PowerWatcher
from launcher.drivers.virt.power import PowerWatch
from launcher.drivers.virt.unplugging import Unplugging
from launcher.errors import (
    DiskHeld,
    DriverError,
    HostResourceMissing,
    HypervisorBusy,
    HypervisorUnavailable,
    NotFound,
    SpawnFailed,
    VolumeFailed,
)
from launcher.models import Diagnostics, InstanceId, InstanceRef, LaunchOrder, PowerState

STARTERS = 4
"""Threads that start domains: more only queue in the daemon, each start is a third of a CPU second."""
LOOK_EVERY = 0.1
"""Seconds between two looks at a copy that is under way."""
STOP_PATIENCE = 15.0
"""Seconds that `stop` waits for starts under way."""


class LibvirtVirt:
    """The contract is `VirtDriver`'s.

    `uri`: qemu:///system, qemu+unix:///system?socket=PATH, or qemu:///embed?root=DIR. `virt_type` kvm and qemu are
    taken as given; auto asks `kvm.choose_virt_type`, which needs a `kernel` to try. `launcher` is written into each
    domain, so that it is known whose it is. Once connected, a lost connection
    is opened again and calls wait `patience` seconds for it; `settle` is explained in connection.py. A guest has
    `unplug_patience` seconds to let go of a disk.
    """

    def __init__(
        self,
        uri: str,
        *,
        state_dir: Path,
        launcher: str = "",
        virt_type: str = "auto",
        kernel: Path | None = None,
        patience: float = 20.0,
        settle: float = 3.0,
        unplug_patience: float = 20.0,
    ) -> None:
        self.unplug_patience = unplug_patience
        self.state_dir, self.asked_type, self.kernel = state_dir, virt_type, kernel
        self.launcher = launcher
        self.power = PowerWatch()
        self.unplugging = Unplugging()
        self.starting: dict[InstanceId, asyncio.Task[None]] = {}
        self.starters = Lane("start", STARTERS)
        self.connection = Connection(
            uri,
            census=domains.census,
            on_up=self.power.resume,
            on_event=self.power.observe,
            on_unplugged=self.unplugging.observe,
            patience=patience,
            settle=settle,
        )
        self.resources: HostResources | None = None

    async def start(self, watcher: PowerWatcher) -> None:
        self.power.watcher = watcher
        verdict = await self._choose_type()
        await self.connection.open()
        # Probing QEMU takes a second on a cold cache; done here, the first launch does not wait for it.
        await self._look(
            lambda handle: handle.getDomainCapabilities(None, None, None, verdict.virt_type, 0),
            f"QEMU cannot run domains of type {verdict.virt_type} here",
            HostResourceMissing,
        )
        vcpus, memory_mb = await self._look(domains.capacity, "reading the host's resources")
        self.resources = HostResources(
            vcpus=vcpus, memory_mb=memory_mb, virt_type=verdict.virt_type, virt_reason=verdict.reason
        )

    async def stop(self) -> None:
        if self.starting:  # a handle must not be closed under a call that uses it
            await asyncio.wait(self.starting.values(), timeout=STOP_PATIENCE)
        self.starters.pool.shutdown(wait=False, cancel_futures=True)
        await self.connection.close()

    async def host_resources(self) -> HostResources:
        assert self.resources is not None, "start() comes first"
        return self.resources

    async def spawn(self, order: LaunchOrder, disks: Disks) -> None:
        resources = await self.host_resources()
        if disks.firmware_state is not None and not await asyncio.to_thread(domain_xml.FIRMWARE.exists):
            raise HostResourceMissing(
                f"{order.name}: {domain_xml.FIRMWARE} is missing", hint="install the package ovmf"
            )
        xml = domain_xml.build(order, disks, virt_type=resources.virt_type, launcher=self.launcher)
        await self._quiet(order)
        work = functools.partial(domains.ensure_started, xml=xml)
        await self._to_the_end(order, self._start(order, work, "the domain did not start"))

    async def destroy(self, order: InstanceRef) -> None:
        await self._quiet(order)
        self.power.forget(order.instance_id)
        await self._look(functools.partial(domains.ensure_gone, order=order), f"{order.name}: destroying the domain")

    async def shut_down(self, order: InstanceRef) -> None:
        await self._quiet(order)
        await self._look(functools.partial(life.shut_down, order=order), f"{order.name}: pressing its power button")

    async def pause(self, order: LaunchOrder) -> None:
        await self._look(functools.partial(life.pause, order=order), f"{order.name}: pausing the domain")

    async def unpause(self, order: LaunchOrder) -> None:
        await self._look(functools.partial(life.unpause, order=order), f"{order.name}: letting the domain run again")

    async def suspend(self, order: LaunchOrder, memory: Path) -> None:
        await self._quiet(order)
        await self._to_the_end(order, self._suspend(order, memory))

    async def resume(self, order: LaunchOrder, memory: Path) -> None:
        await self._quiet(order)
        work = functools.partial(life.resume, memory=memory)
        await self._to_the_end(order, self._start(order, work, f"the domain did not go on from {memory}"))

    async def forget(self, order: InstanceRef, memory: Path) -> None:
        await asyncio.to_thread(life.forget, memory)

    async def list_domains(self) -> list[Domain]:
        found: list[Domain] = await self._look(domains.census, "listing the domains")
        return found

    async def find_domain(self, instance_id: InstanceId) -> Domain | None:
        found: Domain | None = await self._look(
            functools.partial(domains.find, instance_id=instance_id), f"looking for the domain {instance_id}"
        )
        return found

    async def find_end(self, order: InstanceRef) -> str | None:
        return await asyncio.to_thread(ends.read_end, self.connection.uri, order.name)

    async def get_diagnostics(self, order: LaunchOrder) -> Diagnostics:
        found: Diagnostics = await self._look(
            functools.partial(domains.diagnose, order=order), f"{order.name}: reading the domain's state"
        )
        return found

    async def plug_disk(self, order: InstanceRef, disk: Plugged) -> None:
        work = functools.partial(plugging.plug, order=order, disk=disk)
        await self._look(work, f"{order.name}: plugging {disk.name} in", VolumeFailed)

    async def unplug_disk(self, order: InstanceRef, name: str) -> None:
        """Asked, the guest answers with an event; what counts is whether the domain still has it."""
        what = f"{order.name}: unplugging {name}"
        with self.unplugging.expected(order.instance_id, disk_xml.PREFIX + name) as answered:
            work = functools.partial(plugging.begin_unplugging, order=order, name=name)
            if not await self._look(work, what, VolumeFailed):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.unplug_patience):
                    await answered.wait()
            if await self._look(functools.partial(plugging.has, order=order, name=name), what, VolumeFailed):
                raise DiskHeld(
                    f"{order.name}: the guest does not let go of {name}",
                    hint="has it started? unmount it there; with `--force` the machine is reset without it",
                )

    async def resize_disk(self, order: InstanceRef, name: str, size: int) -> None:
        work = functools.partial(plugging.resize, order=order, name=name, size=size)
        await self._look(work, f"{order.name}: growing {name}", VolumeFailed)

    @contextlib.asynccontextmanager
    async def still(self, order: InstanceRef) -> AsyncIterator[None]:
        """A machine that an earlier attempt left paused goes on after this one."""
        await self._look(functools.partial(plugging.pause, order=order), f"{order.name}: pausing", VolumeFailed)
        try:
            yield
        finally:
            await self._look(functools.partial(plugging.go_on, order=order), f"{order.name}: going on", VolumeFailed)

    async def copy_root(self, order: LaunchOrder, target: Path) -> None:
        """Cut off, it leaves no job behind."""
        what = f"{order.name}: copying its disk"
        await self._until(functools.partial(backup.is_idle, order=order), what)
        await asyncio.to_thread(target.unlink, missing_ok=True)
        await self._look(functools.partial(backup.begin, order=order, target=target), what)
        try:
            await self._until(functools.partial(backup.is_done, order=order), what)
        except asyncio.CancelledError:
            with contextlib.suppress(NotFound):
                await self._until(functools.partial(backup.is_idle, order=order), what)
            raise

    async def _until(self, look: Work[bool], what: str) -> None:
        while True:
            if await self._look(look, what):
                return
            await asyncio.sleep(LOOK_EVERY)

    async def list_plugged(self) -> Mapping[InstanceId, tuple[str, ...]]:
        found: Mapping[InstanceId, tuple[str, ...]] = await self._look(plugging.list_plugged, "listing the volumes")
        return found

    async def _choose_type(self) -> kvm.Verdict:
        if self.asked_type == "auto":
            return await kvm.choose_virt_type(state_dir=self.state_dir, kernel=self.kernel)
        return kvm.Verdict(virt_type=self.asked_type, reason="set by [virt] virt_type")

    async def _quiet(self, order: InstanceRef) -> None:
        """Wait for a start of this instance whose caller went away, whatever became of it."""
        if start := self.starting.get(order.instance_id):
            await asyncio.wait([start])

    async def _to_the_end(self, order: LaunchOrder, work: Coroutine[Any, Any, None]) -> None:
        """A cancelled caller cannot stop the thread; `destroy` waits for it."""
        task = asyncio.create_task(work)
        self.starting[order.instance_id] = task
        task.add_done_callback(lambda _: self.starting.pop(order.instance_id, None))
        await asyncio.shield(task)

    async def _start(self, order: LaunchOrder, start: Callable[..., None], what: str) -> None:
        """Start it; where the outcome is unknown, look: only what does not run was not started."""
        hop = asyncio.get_running_loop().call_soon_threadsafe
        announce = functools.partial(hop, self.power.expect, order.instance_id)
        work = functools.partial(start, order=order, announce=announce)
        try:
            await self.connection.call(self.starters, work, f"{order.name}: {what}", SpawnFailed)
        except (HypervisorUnavailable, HypervisorBusy):
            found = await self.find_domain(order.instance_id)
            if found is None or found.generation != order.generation or found.power is PowerState.STOPPED:
                raise

    async def _suspend(self, order: LaunchOrder, memory: Path) -> None:
        """Its end is no news; when its memory could not be written it runs on, and is watched again."""
        hop = asyncio.get_running_loop().call_soon_threadsafe
        announce = functools.partial(hop, self.power.forget, order.instance_id)
        work = functools.partial(life.suspend, order=order, memory=memory, announce=announce)
        try:
            await self.connection.call(self.starters, work, f"{order.name}: writing its memory", DriverError)
        except DriverError:
            if await self.find_domain(order.instance_id):
                self.power.watch(order.instance_id)
            raise

    async def _look(self, work: Work[Any], what: str, otherwise: type[DriverError] = DriverError) -> Any:
        return await self.connection.call(self.connection.looking, work, what, otherwise)
