"""The image store without a disk: the product's stand-in for trying the flow, and the tests'."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.drivers.images.blanks import blanks_of
from launcher.drivers.images.local import root_size
from launcher.drivers.images.local_vault import LocalArrival
from launcher.drivers.images.store import Copy, Injected, Injection, Tell
from launcher.drivers.virt.driver import Disks
from launcher.errors import HostResourceMissing, InjectionFailed
from launcher.failpoints import failpoint
from launcher.images import Received, Ticket
from launcher.models import Firmware, Image, ImageFormat, ImageKind, InstanceId, InstanceRef, LaunchOrder
from launcher.networks import FixedIp

Before = Callable[[str, InstanceRef], Awaitable[None]]
"""Called with the verb's name and the order before anything happens; it may raise, or wait, in the verb's place."""


def _fake_image(number: int, name: str, kind: ImageKind) -> Image:
    return Image(
        id=f"00000000-0000-4000-8000-{number:012x}",
        name=name,
        kind=kind,
        format=ImageFormat.RAW,
        size=1,
        virtual_size=1,
        sha256=f"{number:064x}",
        path=Path("/fake/images") / name,
    )


_KERNEL = _fake_image(2, "ami-tiny-kernel", ImageKind.KERNEL)
_RAMDISK = _fake_image(3, "ami-tiny-ramdisk", ImageKind.RAMDISK)
_MACHINE = _fake_image(1, "ami-tiny", ImageKind.MACHINE)

FAKE_IMAGES: tuple[Image, ...] = (
    _MACHINE.model_copy(update={"kernel_id": _KERNEL.id, "ramdisk_id": _RAMDISK.id}),
    _KERNEL,
    _RAMDISK,
)


async def _go_on(verb: str, order: InstanceRef) -> None:
    """Let every verb succeed."""


@dataclass
class FakeDirectory:
    """What would stand in an instance's directory."""

    ref: InstanceRef
    disks: Disks
    public_key: str | None = None
    console: bytes = b""
    bases: frozenset[str] = frozenset()
    generation: int = 0


class FakeImages:
    """Keeps the contract of `store.py` in memory; the paths it names do not exist. `delay` in seconds per verb."""

    def __init__(self, *, delay: float = 0.0, before: Before = _go_on, free_mb: int = 100_000) -> None:
        self.delay = delay
        self.before = before
        self.disks: dict[InstanceId, FakeDirectory] = {}
        self.bases: set[str] = set()
        self.exports: set[str] = set()
        self.rescues: dict[InstanceId, FakeDirectory] = {}
        self._free_mb = free_mb

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def list_missing(self, order: LaunchOrder) -> Sequence[Image]:
        return []

    async def fetch(self, order: LaunchOrder, image: Image, ticket: Ticket) -> None: ...

    async def create_disks(self, order: LaunchOrder) -> Disks:
        await self._begin("create_disks", order)
        root_size(order)
        home, base = Path("/fake/instances") / order.name, Path("/fake/instances/_base")
        home, own = (home / "rescue", home / "disk") if order.rescue else (home, None)
        disks = Disks(
            root=home / "disk",
            root_format=ImageFormat.QCOW2,
            kernel=base / order.kernel.sha256 if order.kernel else None,
            ramdisk=base / order.ramdisk.sha256 if order.ramdisk else None,
            console_log=Path("/fake/instances") / order.name / "console.log",
            firmware_state=home / "firmware-state" if order.image.firmware is Firmware.UEFI else None,
            rescued=own,
            **{blank.name: home / blank.name for blank in (() if order.rescue else blanks_of(order.flavor))},
        )
        bases = frozenset(image.sha256 for image in (order.image, order.kernel, order.ramdisk) if image)
        self.bases |= bases
        ref = InstanceRef(instance_id=order.instance_id, number=order.number)
        made = FakeDirectory(ref, disks, bases=bases, generation=order.generation)
        return self._kind(order).setdefault(order.instance_id, made).disks

    def _kind(self, order: LaunchOrder) -> dict[InstanceId, FakeDirectory]:
        return self.rescues if order.rescue else self.disks

    async def renew(self, order: LaunchOrder) -> None:
        await self._begin("renew", order)
        there = self._kind(order).get(order.instance_id)
        if there is not None and there.generation < order.generation:
            del self._kind(order)[order.instance_id]

    async def end_rescue(self, order: InstanceRef) -> None:
        self.rescues.pop(order.instance_id, None)

    async def inject(self, order: LaunchOrder, nics: Sequence[FixedIp], tell: Tell) -> Injected:
        await self._begin("inject", order)
        if order.personal or order.config_drive:
            await tell()
        found = self._kind(order).get(order.instance_id)
        if found is None:
            raise InjectionFailed(f"{order.name}: there are no disks")
        if found.public_key not in (None, order.public_key):
            raise InjectionFailed(f"{order.name}: the disk carries another key already")
        found.public_key = order.public_key
        drive = found.disks.root.with_name("config-drive") if order.config_drive else None
        way = Injection.CONFIG_DRIVE if order.config_drive else Injection.METADATA
        return Injected((way,) if order.public_key or order.config_drive else (), drive)

    async def has_disks(self, order: InstanceRef) -> bool:
        return order.instance_id in self.disks

    def memory_file(self, order: InstanceRef) -> Path:
        return Path("/fake") / order.name / "memory"

    async def settle(self, order: LaunchOrder) -> None:
        """Nothing here survives anything."""

    async def save_image(self, order: LaunchOrder, ticket: Ticket, copy: Copy | None) -> Received:
        """Every disk holds its instance's name."""
        await self._begin("save_image", order)
        if order.instance_id not in self.disks:
            raise HostResourceMissing(f"{order.name}: there are no disks")
        if ticket.path is None:
            raise HostResourceMissing(f"{order.name}: nobody takes the image")
        async with failpoint("image.copy"):
            if copy is not None:
                await copy(Path("/fake/instances") / order.name / "image")
        async with failpoint("image.bring"):
            ticket.path.unlink(missing_ok=True)
            arrival = LocalArrival(ticket.path, sha512=False)
            try:
                await arrival.append(f"what {order.name} has on its disk\n".encode())
                return await arrival.finish()
            finally:
                await arrival.close()

    async def delete_disks(self, order: InstanceRef) -> None:
        await self._begin("delete_disks", order)
        self.disks.pop(order.instance_id, None)
        self.rescues.pop(order.instance_id, None)

    async def read_console(self, order: LaunchOrder, max_bytes: int) -> bytes:
        await self._begin("read_console", order)
        found = self.disks.get(order.instance_id)
        return found.console[-max_bytes:] if found else b""

    async def list_instances(self) -> Sequence[InstanceRef]:
        return [directory.ref for directory in self.disks.values()]

    async def list_bases(self) -> Sequence[str]:
        return sorted(self.bases)

    async def prune_bases(self) -> int:
        """Each has one byte."""
        unused = self.bases - {base for held in self.disks.values() for base in held.bases}
        self.bases -= unused
        return len(unused)

    async def list_exports(self) -> Sequence[str]:
        return sorted(self.exports)

    async def remove_exports(self) -> None:
        self.exports.clear()

    async def free_mb(self) -> int:
        return self._free_mb

    async def _begin(self, verb: str, order: InstanceRef) -> None:
        await asyncio.sleep(self.delay)
        await self.before(verb, order)
