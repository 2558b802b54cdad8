# placeholder by the lead until the images helper writes it
from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from launcher.drivers.images.store import Injection
from launcher.drivers.virt.driver import Disks
from launcher.models import Image, ImageFormat, ImageKind, InstanceId, LaunchOrder


def _image(n, name, kind, **kw):
    return Image(
        id=f"00000000-0000-4000-8000-{n:012x}",
        name=name,
        kind=kind,
        format=ImageFormat.RAW,
        size=1,
        virtual_size=1,
        sha256="0" * 64,
        path=Path("/fake") / name,
        **kw,
    )


_K = _image(2, "ami-tiny-kernel", ImageKind.KERNEL)
_R = _image(3, "ami-tiny-ramdisk", ImageKind.RAMDISK)
FAKE_IMAGES: tuple[Image, ...] = (_image(1, "ami-tiny", ImageKind.MACHINE, kernel_id=_K.id, ramdisk_id=_R.id), _K, _R)


class FakeImages:
    def __init__(self, *, delay: float = 0.0) -> None:
        self.delay = delay
        self.disks: dict[InstanceId, Disks] = {}

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def create_disks(self, order: LaunchOrder) -> Disks:
        await asyncio.sleep(self.delay)
        d = Path("/fake") / order.name
        return self.disks.setdefault(
            order.instance_id, Disks(root=d / "disk", root_format=ImageFormat.QCOW2, console_log=d / "console.log")
        )

    async def inject_key(self, order: LaunchOrder) -> Injection:
        return Injection.METADATA

    async def delete_disks(self, order: LaunchOrder) -> None:
        self.disks.pop(order.instance_id, None)

    async def read_console(self, order: LaunchOrder, max_bytes: int) -> bytes:
        return b"fake\n"

    async def list_instances(self) -> Sequence[InstanceId]:
        return list(self.disks)

    async def free_mb(self) -> int:
        return 1000
