"""ami-tiny is built, started by QEMU alone, entered by ssh with an injected key, and shut down by its power button."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from launcher.drivers import process
from launcher.drivers.images.inject.choice import make_ways
from launcher.drivers.images.library import read_image
from launcher.drivers.images.local import LocalImages
from launcher.drivers.images.store import Injection
from launcher.drivers.images.tiny import KERNEL_PACKAGE, build_tiny
from launcher.drivers.virt.driver import Disks
from launcher.errors import ProgramFailed
from launcher.guestdata.guest import Guest as TheGuest
from launcher.models import Flavor, Image, LaunchOrder
from tests.orders import make_lease, make_order, make_told
from tests.waiting import eventually

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

CACHE = Path(__file__).parents[2] / ".cache" / "cache"
GIB = 2**30


@pytest.fixture
def cache() -> Path:
    if not (CACHE / KERNEL_PACKAGE).is_dir():
        pytest.skip("HOST TEST NOT RUN: no kernel in .cache; run `make setup` where the package sources can be reached")
    return CACHE


@pytest.fixture
async def images(tmp_path: Path, cache: Path) -> list[Image]:
    """Built in the sandbox, which has no network: the cache is enough."""
    await build_tiny(tmp_path / "images", cache=cache)
    return read_image(tmp_path / "images", "ami-tiny")


async def test_the_same_packages_give_the_same_image(tmp_path: Path, cache: Path, images: list[Image]) -> None:
    steps: list[str] = []
    directory = await build_tiny(tmp_path / "again", cache=cache, say=steps.append)
    assert directory == tmp_path / "again" / "ami-tiny"
    assert [image.id for image in read_image(tmp_path / "again", "ami-tiny")] == [image.id for image in images]
    assert not any("download" in step for step in steps)


async def test_the_disk_is_clean_and_roots(images: list[Image]) -> None:
    disk = images[0].path
    await process.run(["e2fsck", "-fn", disk])
    listing = await process.run(["debugfs", "-R", "ls -l /", disk])
    owners = {(line.split()[3], line.split()[4]) for line in listing.splitlines() if line.strip()}
    assert owners == {("0", "0")}
    assert "Mode:  0755" in await process.run(["debugfs", "-R", "stat /etc/init.d/rcS", disk])


async def test_the_kernel_is_entered_directly(images: list[Image]) -> None:
    with images[1].path.open("rb") as kernel:
        assert kernel.read(4) == b"\x7fELF"


class Guest:
    """A machine that QEMU runs, with its console in a file and its port 22 on a port of the host's loopback."""

    def __init__(self, qemu: asyncio.subprocess.Process, console: Path, key: Path, port: int) -> None:
        self.qemu, self.console, self.key, self.port = qemu, console, key, port

    async def said(self, words: str, *, within: float = 60.0) -> str:
        """The console's line with these words."""

        async def look() -> str | None:
            lines = self.console.read_text(errors="replace").splitlines() if self.console.exists() else []
            return next((line for line in lines if words in line), None)

        return await eventually(look, within=within, what=f"{words!r} on the console")

    async def ssh(self, command: str) -> str:
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        flags = [flag for option in options for flag in ("-o", option)]
        return await process.run(
            ["ssh", "-i", self.key, "-p", str(self.port), *flags, "root@127.0.0.1", command], timeout=30
        )

    async def press_power_button(self) -> None:
        assert self.qemu.stdin
        self.qemu.stdin.write(b"system_powerdown\n")
        async with asyncio.timeout(30):
            await self.qemu.wait()


def qemu(order: LaunchOrder, disks: Disks, port: int) -> list[str]:
    boot = f"root=/dev/vda console=ttyS0 quiet {order.image.kernel_args}"
    machine = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", str(order.image.min_memory_mb)]
    plain = ["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "stdio"]
    files = ["-kernel", str(disks.kernel), "-initrd", str(disks.ramdisk), "-append", boot]
    disk = ["-drive", f"file={disks.root},format=qcow2,if=virtio", "-serial", f"file:{disks.console_log}"]
    nic = ["-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{port}-:22", "-device", "virtio-net-pci,netdev=n,romfile="]
    return [*machine, *plain, *files, *disk, *nic]


@pytest.fixture
async def guest(tmp_path: Path, images: list[Image]) -> AsyncIterator[Guest]:
    """The least memory the image asks for, the biggest root disk a user may want, a key put into the disk."""
    key, port = tmp_path / "key", 2222
    await process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    machine, kernel, ramdisk = images
    order = make_order(
        image=machine,
        kernel=kernel,
        ramdisk=ramdisk,
        flavor=Flavor(name="m1.small", vcpus=1, memory_mb=machine.min_memory_mb, root_gb=20),
        public_key=key.with_suffix(".pub").read_text(),
    )
    async with contextlib.AsyncExitStack() as opened:
        store = LocalImages(
            tmp_path / "instances",
            library=tmp_path / "images",
            ways=make_ways([Injection.STORAGE_DAEMON], state=tmp_path),
        )
        await store.start()
        opened.push_async_callback(store.stop)
        disks = await store.create_disks(order)
        nics = [make_lease(order)]

        async def tell() -> TheGuest:
            return TheGuest(make_told(), tuple(nics))

        done = await store.inject(order, nics, tell)
        assert done.report == "storage-daemon"
        disks = disks.model_copy(update={"config_drive": done.config_drive})
        argv = qemu(order, disks, port)
        running = await opened.enter_async_context(process.spawn(argv, stdin=asyncio.subprocess.PIPE))
        yield Guest(running, disks.console_log, key, port)


async def test_from_package_to_login_to_power_off(guest: Guest) -> None:
    assert re.search(r"up=[\d.]+$", await guest.said("ami-tiny: boot"))
    assert "ip=10.0.2.15" in await guest.said("ami-tiny: net")
    await guest.said("ami-tiny: sshd")

    assert int(await guest.ssh("blockdev --getsize64 /dev/vda")) == 20 * GIB
    assert "10.0.2.2" in await guest.ssh("ip route")
    assert "/dev/pts" in await guest.ssh("cat /proc/mounts")
    printed = (await guest.said("ami-tiny: host-key")).split()[2:4]
    assert printed == (await guest.ssh("dropbearkey -y -f /etc/dropbear/*host_key | grep ^ssh-")).split()[:2]
    with pytest.raises(ProgramFailed, match="Permission denied"):
        await Guest(guest.qemu, guest.console, Path("/dev/null"), guest.port).ssh("true")

    await guest.press_power_button()
    assert guest.qemu.returncode == 0
    await guest.said("ami-tiny: power button", within=1)
