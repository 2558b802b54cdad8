"""Runs in another kernel: the nbd injector on honest and on hostile disks, killed and left alone.

Prints one line of JSON that `test_nbd.py` reads.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launcher.drivers.images import qcow2
from launcher.drivers.images.inject.injector import Payload, Place
from launcher.drivers.images.inject.nbd import Nbd, _devices
from launcher.errors import InjectionFailed
from launcher.models import GuestFile, ImageFormat
from tests.waiting import eventually

KEY = "ssh-ed25519 AAAA me@here"
FULL = Payload(
    KEY,
    "auto eth0\n",
    (GuestFile(path="/srv/app/greeting", content=base64.b64encode(b"hello\n").decode()),),
    "$6$salt$0123456789abcdef",
)
WORK = Path(tempfile.mkdtemp(dir="/run"))
VICTIM = WORK / "victim"

HELD_OPEN = """
import asyncio, sys
from pathlib import Path
from launcher.drivers.images.inject.nbd import Nbd
async def main():
    node = {"driver": "qcow2", "file": {"driver": "file", "filename": sys.argv[1]}}
    async with Nbd(Path("/run"))._connected(node) as device:
        print(device, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
HELD_MOUNTED = """
import sys, time
from launcher.drivers.images.inject.mounted import mounted
with mounted(sys.argv[1]):
    print("mounted", flush=True)
    time.sleep(60)
"""


def honest(tree: Path) -> None:
    for folder in ("root", "etc/network", "srv"):
        (tree / folder).mkdir(parents=True)
    (tree / "etc/shadow").write_text("root:*:19000:0:99999:7:::\n")
    (tree / "etc/network/interfaces").write_text("iface eth0 inet dhcp\n" * 100)


def file_system(name: str, fill: Callable[[Path], None]) -> Path:
    tree, disk = WORK / f"{name}.tree", WORK / f"{name}.raw"
    tree.mkdir()
    fill(tree)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, disk, "8M"], check=True)
    return disk


def overlay(base: Path) -> Path:
    path = base.with_suffix(".qcow2")
    qcow2.write_overlay(path, backing=base, backing_format=ImageFormat.RAW, size=base.stat().st_size)
    return path


def debugfs(disk: Path, request: str) -> str:
    raw = disk.with_suffix(".out")
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, raw], check=True)
    done = subprocess.run(["debugfs", "-R", request, raw], check=True, capture_output=True, text=True)
    return done.stdout


def held() -> list[list[str]]:
    """Devices with a process, and mounts of them that this process sees."""
    busy = [name for name in _devices() if Path("/sys/block", name, "pid").exists()]
    return [busy, [line for line in Path("/proc/mounts").read_text().splitlines() if line.startswith("/dev/nbd")]]


async def refusal(injector: Nbd, place: Place) -> str:
    try:
        await injector.inject(place, Payload(KEY))
    except InjectionFailed as error:
        return error.message
    return ""


async def whole(injector: Nbd) -> dict[str, Any]:
    base = file_system("whole", honest)
    before, disk = base.read_bytes(), overlay(base)
    for _ in range(2):
        await injector.inject(Place(disk, ImageFormat.QCOW2), FULL)
    return {
        "keys": debugfs(disk, "cat /root/.ssh/authorized_keys"),
        "mode": "Mode:  0600" in debugfs(disk, "stat /root/.ssh/authorized_keys"),
        "interfaces": debugfs(disk, "cat /etc/network/interfaces"),
        "file": debugfs(disk, "cat /srv/app/greeting"),
        "shadow": debugfs(disk, "cat /etc/shadow"),
        "base": "untouched" if base.read_bytes() == before else "changed",
    }


async def partition(injector: Nbd) -> tuple[str, str]:
    disk, start = WORK / "parts.raw", 8192
    with disk.open("wb") as file:
        file.truncate(16 << 20)
    table = f"label: gpt\nstart=2048, size=2048\nstart={start}, size=16384\n"
    subprocess.run(["sfdisk", "-q", disk], input=table, check=True, text=True, capture_output=True)
    with disk.open("r+b") as file:
        file.seek(start * 512)
        file.write(file_system("part", honest).read_bytes())
    top = overlay(disk)
    await injector.inject(Place(top, ImageFormat.QCOW2, 2), Payload(KEY))
    absent = await refusal(injector, Place(top, ImageFormat.QCOW2, 3))
    debugfs(top, "quit")
    found = WORK / "found"
    found.write_bytes(top.with_suffix(".out").read_bytes()[start * 512 :][: 8 << 20])
    done = subprocess.run(
        ["debugfs", "-R", "cat /root/.ssh/authorized_keys", found], check=True, capture_output=True, text=True
    )
    return done.stdout, absent


def attacks() -> dict[str, Callable[[Path], None]]:
    def link(path: str, target: str) -> Callable[[Path], None]:
        def fill(tree: Path) -> None:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).symlink_to(target)

        return fill

    def hidden(tree: Path) -> None:
        """CVE-2012-3447: the link stands where only root can look."""
        link("root/.ssh/authorized_keys", f"{VICTIM}/keys")(tree)
        (tree / "root").chmod(0o700)

    def device(tree: Path) -> None:
        (tree / "root/.ssh").mkdir(parents=True)
        os.mkfifo(tree / "root/.ssh/authorized_keys")

    def inside(tree: Path) -> None:
        """The same path exists in the image: there, and only there, may it be written."""
        link("root", str(VICTIM))(tree)
        (tree / str(VICTIM)[1:]).mkdir(parents=True)

    up = "../" * 20
    return {
        "root": link("root", str(VICTIM)),
        "relative": link("root", f"{up}{VICTIM}"),
        "ssh": link("root/.ssh", str(VICTIM)),
        "keys": link("root/.ssh/authorized_keys", f"{VICTIM}/keys"),
        "proc": link("root/.ssh/authorized_keys", f"/proc/1/root{VICTIM}/keys"),
        "unreadable": hidden,
        "device": device,
        "inside": inside,
    }


async def attack(injector: Nbd, name: str, fill: Callable[[Path], None]) -> dict[str, str]:
    disk = overlay(file_system(name, fill))
    said = await refusal(injector, Place(disk, ImageFormat.QCOW2))
    clean = [path.name for path in VICTIM.iterdir()] == ["keys"] and (VICTIM / "keys").read_text() == "old\n"
    found = {"said": said, "victim": "untouched" if clean else "written to"}
    if name == "inside":
        found["inside"] = debugfs(disk, f"cat {VICTIM}/.ssh/authorized_keys")
    return found


async def killed(code: str, argument: str) -> list[list[str]]:
    """What stays when a process that holds a device, or a mount of it, is killed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, argument), stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert child.stdout is not None
    assert await child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    await child.wait()

    async def free() -> bool:
        return held() == [[], []]

    with contextlib.suppress(AssertionError):
        await eventually(free, within=5)
    return held()


async def main() -> None:
    VICTIM.mkdir()
    (VICTIM / "keys").write_text("old\n")
    injector = Nbd(WORK)
    await injector.start()
    found: dict[str, Any] = {"whole": await whole(injector)}
    found["partition"], found["absent"] = await partition(injector)
    found["attacks"] = {name: await attack(injector, name, fill) for name, fill in attacks().items()}
    empty = WORK / "empty.raw"
    empty.write_bytes(bytes(1 << 20))
    found["no_file_system"] = await refusal(injector, Place(empty, ImageFormat.RAW))
    disk = overlay(file_system("last", honest))
    node = {"driver": "raw", "file": {"driver": "file", "filename": str(empty)}}
    others = [Nbd(WORK, lock=WORK / f"lock{number}") for number in range(2)]
    async with others[0]._connected(node), others[1]._connected({**node, "read-only": True}, read_only=True):
        found["busy"] = await refusal(injector, Place(disk, ImageFormat.QCOW2))
    found["killed"] = {"connected": await killed(HELD_OPEN, str(disk))}
    whole_disk = {"driver": "qcow2", "file": {"driver": "file", "filename": str(disk)}}
    async with injector._connected(whole_disk) as device:
        found["killed"]["mounted"] = [[], (await killed(HELD_MOUNTED, str(device)))[1]]
    await injector.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY))
    found["after"] = debugfs(disk, "cat /root/.ssh/authorized_keys")
    assert await injector.list_leftovers() == []
    found["left"] = held()
    sys.stdout.write(f"\nRESULT {json.dumps(found)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
