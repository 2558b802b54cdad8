"""The hypervisors that the suites run on, and what a test may do behind their backs."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import libvirt

from launcher.drivers import process
from launcher.drivers.virt.driver import Disks, VirtDriver
from launcher.drivers.virt.fake import FakeVirt
from launcher.drivers.virt.libvirt import LibvirtVirt
from launcher.errors import SpawnFailed
from launcher.models import Flavor, Image, ImageFormat, ImageKind, InstanceId, LaunchOrder, Nic, PowerState

Change = tuple[InstanceId, PowerState, str]


def order_for(number: int = 1, *, generation: int = 1, instance_id: str = "") -> LaunchOrder:
    return LaunchOrder(
        instance_id=instance_id or f"7d1f0d50-5bf6-4c3e-8b4e-{number:012x}",
        number=number,
        generation=generation,
        project_id="demo",
        hostname="web",
        nics=(Nic(mac=f"02:16:3e:00:00:{number:02x}"),),
        flavor=Flavor(name="m1.tiny", vcpus=1, memory_mb=64, root_gb=0),
        image=Image(
            id="ami-1",
            name="tiny",
            kind=ImageKind.MACHINE,
            format=ImageFormat.RAW,
            size=1 << 20,
            virtual_size=1 << 20,
            sha256="0" * 64,
            path=Path("/images/tiny"),
        ),
    )


class Rig(Protocol):
    """A hypervisor and what a test may do behind its back."""

    changes: list[Change]

    @property
    def virt(self) -> VirtDriver: ...

    async def disks(self, order: LaunchOrder) -> Disks:
        """An empty disk, and the taps that the network driver would have made."""

    async def lose_disk(self, disks: Disks) -> None: ...

    async def add_foreign(self, uuid: str, name: str) -> None: ...

    async def list_foreign(self) -> list[str]: ...

    async def kill_guest(self, order: LaunchOrder) -> None:
        """The guest's process dies."""

    def deafen(self, order: LaunchOrder) -> None:
        """The guest hears no power button."""


class FakeRig:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.virt = FakeVirt(fault=self.fault)
        self.changes: list[Change] = []
        self.disk_lost = False

    async def fault(self, point: str, instance_id: InstanceId) -> None:
        if point == "spawn" and self.disk_lost:
            raise SpawnFailed(f"{instance_id}: cannot access {self.directory / 'disk'}: No such file or directory")

    async def disks(self, order: LaunchOrder) -> Disks:
        return Disks(root=self.directory / "disk", root_format=ImageFormat.RAW, console_log=self.directory / "log")

    async def lose_disk(self, disks: Disks) -> None:
        self.disk_lost = True

    async def add_foreign(self, uuid: str, name: str) -> None:
        self.virt.foreign[uuid] = name

    async def list_foreign(self) -> list[str]:
        return list(self.virt.foreign.values())

    async def kill_guest(self, order: LaunchOrder) -> None:
        self.virt.end(order.instance_id, "failed")

    def deafen(self, order: LaunchOrder) -> None:
        self.virt.deaf.add(order.instance_id)


class LibvirtRig:
    """The real one, with guests that have no system: QEMU runs, the boot sector is empty."""

    def __init__(self, uri: str, *, pids: Path, directory: Path, settle: float = 0.1) -> None:
        self.uri, self.pids, self.directory = uri, pids, directory
        self.virt = LibvirtVirt(uri, state_dir=directory, virt_type="qemu", settle=settle)
        self.changes: list[Change] = []

    async def disks(self, order: LaunchOrder) -> Disks:
        root = self.directory / f"{order.name}.disk"
        with root.open("wb") as file:
            file.truncate(1 << 20)
        for tap in map(order.tap_of, range(len(order.nics))):
            if not Path("/sys/class/net", tap).exists():
                await process.run(["ip", "tuntap", "add", tap, "mode", "tap"])
        return Disks(root=root, root_format=ImageFormat.RAW, console_log=self.directory / f"{order.name}.log")

    async def lose_disk(self, disks: Disks) -> None:
        disks.root.unlink()

    async def add_foreign(self, uuid: str, name: str) -> None:
        xml = f"""<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>64</memory>
                  <os><type>hvm</type></os></domain>"""
        await self.beside(lambda connection: connection.createXML(xml, 0))

    async def list_foreign(self) -> list[str]:
        domains = await self.beside(lambda connection: connection.listAllDomains(0))
        return [domain.name() for domain in domains if "launcher:instance" not in domain.XMLDesc()]

    async def kill_guest(self, order: LaunchOrder) -> None:
        os.kill(int((self.pids / f"{order.name}.pid").read_text()), signal.SIGKILL)

    def deafen(self, order: LaunchOrder) -> None:
        """It has no system that could."""

    async def beside(self, work: Callable[[libvirt.virConnect], Any]) -> Any:
        """What somebody else does, through a connection of his own."""
        return await asyncio.to_thread(lambda: work(another_connection(self.uri)))

    async def clear(self) -> None:
        for domain in await self.beside(lambda connection: connection.listAllDomains(0)):
            await asyncio.to_thread(domain.destroy)


@functools.cache
def another_connection(uri: str) -> libvirt.virConnect:
    """One per process: see `connection._embedded`."""
    return libvirt.open(uri)


async def start(rig: Rig) -> None:
    await rig.virt.start(lambda *change: rig.changes.append(change))
