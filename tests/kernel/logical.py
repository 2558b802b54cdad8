"""Runs in another kernel: volumes on LVM, thick and thin, in a group on a loop device that is full of old data.

Prints one line of JSON: what each kind of storage did.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from launcher.drivers.volumes.driver import VolumeDriver
from launcher.drivers.volumes.lvm import LvmVolumes
from launcher.errors import InsufficientSpace, NotFound
from launcher.volumes import VolumeRef

OLD = 0xAA
GB_MB = 8
"""A GB of this test."""
LVM_CONF = """
devices { scan = [ "/dev" ] filter = [ "a|/dev/loop.*|", "r|.*|" ] write_cache_state = 0 use_devicesfile = 0 }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 verify_udev_operations = 0 }
global { use_lvmpolld = 0 thin_check_executable = "" thin_repair_executable = "" }
backup { backup = 0 archive = 0 }
"""


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def ref(number: int, *, snapshot: bool = False) -> VolumeRef:
    volume_id = f"00000000-0000-4000-8000-{number:012x}"
    return VolumeRef(volume_id=volume_id, number=number, snapshot=snapshot)


def prepare() -> str:
    """A group on 72 MiB in which somebody's data lay."""
    run("mount", "-t", "tmpfs", "lvm", "/etc/lvm")
    Path("/etc/lvm/lvm.conf").write_text(LVM_CONF)
    disk = Path("/run/disk")
    with disk.open("wb") as file:
        for _ in range(72):
            file.write(bytes([OLD]) * 2**20)
    device = run("losetup", "--find", "--show", str(disk))
    run("vgcreate", "-s", "1m", "--dataalignment", "1m", "-y", "launcher", device)
    return device


async def dirty(driver: VolumeDriver, volume: VolumeRef) -> list[int]:
    """The MiB of a volume that are not zeros."""
    content = (await driver.find(volume)).path.read_bytes()
    return [at // 2**20 for at in range(0, len(content), 2**20) if any(content[at : at + 2**20])]


async def write(driver: VolumeDriver, volume: VolumeRef, text: bytes) -> None:
    with (await driver.find(volume)).path.open("r+b", buffering=0) as device:
        device.write(text.ljust(4096, b"\0"))
    run("sync")


async def read(driver: VolumeDriver, volume: VolumeRef) -> str:
    return (await driver.find(volume)).path.read_bytes()[:4096].rstrip(b"\0").decode()


async def size(driver: VolumeDriver, volume: VolumeRef) -> int:
    return int(run("blockdev", "--getsize64", str((await driver.find(volume)).path))) // 2**20


async def story(driver: LvmVolumes) -> dict[str, Any]:
    await driver.start()
    found: dict[str, Any] = {}
    for _ in range(2):
        await driver.create(ref(1), 1)
    found["new"] = [await size(driver, ref(1)), await dirty(driver, ref(1))]
    await write(driver, ref(1), b"first")
    for _ in range(2):
        await driver.copy(ref(1), ref(2, snapshot=True), 1)
    await write(driver, ref(1), b"second")
    await driver.copy(ref(2, snapshot=True), ref(3), 2)
    found["copies"] = [await read(driver, each) for each in (ref(1), ref(2, snapshot=True), ref(3))]
    found["larger copy"] = [await size(driver, ref(3)), await dirty(driver, ref(3))]
    for _ in range(2):
        await driver.extend(ref(1), 3, in_use=True)
    found["extended"] = [await size(driver, ref(1)), await dirty(driver, ref(1)), await read(driver, ref(1))]
    found["all"] = [each.name for each in await driver.list_volumes()]
    try:
        await driver.create(ref(4), 1000 if not driver.pool else 1)
        found["full"] = "" if driver.pool else "there was room"
    except InsufficientSpace:
        found["full"] = ""
    for _ in range(2):
        for each in (ref(1), ref(2, snapshot=True), ref(3), ref(4)):
            await driver.delete(each)
    found["left"] = run("lvs", "--noheadings", "-o", "lv_name", "launcher")
    try:
        await driver.find(ref(1))
    except NotFound:
        found["gone"] = True
    await driver.create(ref(5), 1)
    found["again"] = await dirty(driver, ref(5))
    await driver.delete(ref(5))
    return found


async def cut_off(driver: LvmVolumes) -> list[str]:
    """What a kill left half made is thrown away by the next start, and made anew by the next order."""
    run(
        "lvcreate",
        "-y",
        "-L",
        "8m",
        "-n",
        "volume-00000007",
        "--addtag",
        f"launcher.making={ref(7).volume_id}",
        "launcher",
    )
    run("lvcreate", "-y", "-L", "1m", "-n", "volume-00000008", "launcher")
    await driver.start()
    return run("lvs", "--noheadings", "-o", "lv_name", "launcher").split()


async def main() -> None:
    prepare()
    thick = LvmVolumes("launcher", sources=[], work=Path("/run/work"), gib_mb=GB_MB)
    found = {"thick": await story(thick), "cut off": await cut_off(thick)}
    run("lvremove", "-y", "launcher")
    run("lvcreate", "-y", "--type", "thin-pool", "-L", "48m", "-n", "pool", "--poolmetadatasize", "4m", "launcher")
    thin = LvmVolumes("launcher", pool="pool", sources=[], work=Path("/run/work"), gib_mb=GB_MB)
    found["thin"] = await story(thin)
    sys.stdout.write(f"\nRESULT {json.dumps(found)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
