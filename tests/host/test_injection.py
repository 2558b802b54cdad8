"""Keys in real file systems, and images that were made to fool whoever writes into them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from launcher.drivers import process
from launcher.drivers.images import qcow2
from launcher.drivers.images.inject.choice import BestInjector
from launcher.drivers.images.inject.debugfs import LARGEST_KEYS
from launcher.drivers.images.inject.qmp import ConnectionLost
from launcher.drivers.images.inject.storage_daemon import PROGRAM, StorageDaemon
from launcher.drivers.images.store import Injection
from launcher.errors import HostResourceMissing, InjectionFailed
from launcher.models import ImageFormat
from tests.waiting import eventually

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here"
KEYS = "/root/.ssh/authorized_keys"


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[StorageDaemon]:
    opened = StorageDaemon(tmp_path / "inject", timeout=5)
    await opened.start()
    yield opened
    await opened.stop()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


async def make_disk(tmp_path: Path, fill: Callable[[Path], None], *, features: str = "") -> Path:
    """A qcow2 overlay on an ext4 whose root directory `fill` has filled."""
    tree, base, disk = tmp_path / "tree", tmp_path / "base", tmp_path / "disk"
    tree.mkdir()
    fill(tree)
    options = ["-O", features] if features else []
    await process.run(["mke2fs", "-q", "-t", "ext4", *options, "-d", tree, base, "4M"])
    qcow2.write_overlay(disk, backing=base, backing_format=ImageFormat.RAW, size=4 << 20)
    return disk


def home(tree: Path) -> None:
    (tree / "root").mkdir()


async def debugfs(disk: Path, request: str) -> str:
    """What a healthy, clean file system in the disk answers."""
    raw = disk.with_suffix(".raw")
    await process.run(["qemu-img", "check", "-f", "qcow2", disk])
    await process.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, raw])
    await process.run(["e2fsck", "-fn", raw])
    return await process.run(["debugfs", "-R", request, raw])


@pytest.mark.parametrize("features", ["", "^has_journal,^metadata_csum,^64bit"])
async def test_a_key_gets_into_a_fresh_disk(daemon: StorageDaemon, tmp_path: Path, features: str) -> None:
    disk = await make_disk(tmp_path, home, features=features)
    base = (tmp_path / "base").read_bytes()
    await daemon.inject(disk, ImageFormat.QCOW2, KEY)
    assert await debugfs(disk, f"cat {KEYS}") == f"{KEY}\n"
    assert "Mode:  0600" in await debugfs(disk, f"stat {KEYS}")
    assert "Mode:  0700" in await debugfs(disk, "stat /root/.ssh")
    assert (tmp_path / "base").read_bytes() == base


TEXT = "auto eth0\niface eth0 inet static\n    address 10.0.0.2\n"
INTERFACES = "/etc/network/interfaces"


@pytest.mark.parametrize("found", ["nothing", "a folder", "another file", "the same file"])
async def test_addresses_get_into_a_disk_whatever_was_there(daemon: StorageDaemon, tmp_path: Path, found: str) -> None:
    def tree_with(tree: Path) -> None:
        home(tree)
        folder = tree / "etc/network"
        (folder if found != "nothing" else tree / "etc").mkdir(parents=True)
        if found.endswith("file"):
            (folder / "interfaces").write_text(TEXT if found == "the same file" else "iface eth0 inet dhcp\n" * 500)

    disk = await make_disk(tmp_path, tree_with)
    await daemon.inject(disk, ImageFormat.QCOW2, KEY, TEXT)
    assert await debugfs(disk, f"cat {INTERFACES}") == TEXT
    assert "Mode:  0644" in await debugfs(disk, f"stat {INTERFACES}")
    assert await debugfs(disk, f"cat {KEYS}") == f"{KEY}\n"


async def test_addresses_go_without_a_key(daemon: StorageDaemon, tmp_path: Path) -> None:
    disk = await make_disk(tmp_path, lambda tree: (tree / "etc").mkdir(parents=True))
    await daemon.inject(disk, ImageFormat.QCOW2, None, TEXT)
    assert await debugfs(disk, f"cat {INTERFACES}") == TEXT


@pytest.mark.parametrize("path", ["etc", "etc/network", "etc/network/interfaces"])
async def test_a_link_on_the_way_of_addresses_is_refused(daemon: StorageDaemon, tmp_path: Path, path: str) -> None:
    def link(tree: Path) -> None:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).symlink_to("/root")

    disk = await make_disk(tmp_path, link)
    with pytest.raises(InjectionFailed, match=f"/{path} in the disk is a symlink"):
        await daemon.inject(disk, ImageFormat.QCOW2, None, TEXT)


async def test_the_keys_that_are_there_stay(daemon: StorageDaemon, tmp_path: Path) -> None:
    def with_key(tree: Path) -> None:
        (tree / "root/.ssh").mkdir(parents=True)
        (tree / KEYS[1:]).write_bytes(b"ssh-rsa OLD J\xf6rg")

    disk = await make_disk(tmp_path, with_key)
    for key in (KEY, KEY + "\n", "ssh-rsa SECOND"):
        await daemon.inject(disk, ImageFormat.QCOW2, key)
    assert (await debugfs(disk, f"cat {KEYS}")).splitlines() == ["ssh-rsa OLD J\ufffdrg", KEY, "ssh-rsa SECOND"]


async def test_a_raw_disk_needs_no_overlay(daemon: StorageDaemon, tmp_path: Path) -> None:
    await make_disk(tmp_path, home)
    await daemon.inject(tmp_path / "base", ImageFormat.RAW, KEY)
    assert await process.run(["debugfs", "-R", f"cat {KEYS}", tmp_path / "base"]) == f"{KEY}\n"


async def test_links_in_the_image_never_lead_into_the_host(daemon: StorageDaemon, tmp_path: Path) -> None:
    victim = tmp_path / "host"
    (victim / ".ssh").mkdir(parents=True)

    def link_home(tree: Path) -> None:
        (tree / "root").symlink_to(victim)

    disk = await make_disk(tmp_path, link_home)
    with pytest.raises(InjectionFailed, match="/root in the disk is a symlink"):
        await daemon.inject(disk, ImageFormat.QCOW2, KEY)
    assert list(victim.rglob("*")) == [victim / ".ssh"]


@pytest.mark.parametrize("path", ["root/.ssh", "root/.ssh/authorized_keys"])
async def test_a_link_at_any_level_is_refused(daemon: StorageDaemon, tmp_path: Path, path: str) -> None:
    def link(tree: Path) -> None:
        (tree / path).parent.mkdir(parents=True)
        (tree / path).symlink_to("/etc")
        (tree / "etc").mkdir()

    disk = await make_disk(tmp_path, link)
    with pytest.raises(InjectionFailed, match=f"/{path} in the disk is a symlink"):
        await daemon.inject(disk, ImageFormat.QCOW2, KEY)


async def test_a_file_of_keys_that_would_fill_the_host_is_refused(daemon: StorageDaemon, tmp_path: Path) -> None:
    def sparse(tree: Path) -> None:
        (tree / "root/.ssh").mkdir(parents=True)
        with (tree / KEYS[1:]).open("wb") as file:
            file.truncate(1 << 40)

    disk = await make_disk(tmp_path, sparse)
    with pytest.raises(InjectionFailed, match=f"has {1 << 40} bytes, expected at most {LARGEST_KEYS}"):
        await daemon.inject(disk, ImageFormat.QCOW2, KEY)


async def test_a_disk_without_a_file_system_is_refused(daemon: StorageDaemon, tmp_path: Path) -> None:
    disk = tmp_path / "empty"
    disk.write_bytes(bytes(1 << 20))
    with pytest.raises(InjectionFailed, match="no ext2, ext3 or ext4") as refused:
        await daemon.inject(disk, ImageFormat.RAW, KEY)
    assert "metadata" in refused.value.hint


async def test_a_full_file_system_is_noticed_by_reading_back(daemon: StorageDaemon, tmp_path: Path) -> None:
    def full(tree: Path) -> None:
        home(tree)
        (tree / "filler").write_bytes(os.urandom(3700 << 10))

    disk = await make_disk(tmp_path, full, features="^has_journal")
    with pytest.raises(InjectionFailed, match="cannot be read back"):
        await daemon.inject(disk, ImageFormat.QCOW2, KEY + "A" * 400_000)


async def test_a_disk_that_a_guest_has_open_is_left_alone(daemon: StorageDaemon, tmp_path: Path) -> None:
    disk = await make_disk(tmp_path, home)
    other = StorageDaemon(tmp_path / "other")
    await other.start()
    qmp = await other._connection()
    async with other._exported(qmp, disk, ImageFormat.QCOW2):
        with pytest.raises(InjectionFailed, match="lock"):
            await daemon.inject(disk, ImageFormat.QCOW2, KEY)
    await other.stop()
    await daemon.inject(disk, ImageFormat.QCOW2, KEY)


async def test_a_missing_disk_is_named(daemon: StorageDaemon, tmp_path: Path) -> None:
    with pytest.raises(InjectionFailed, match="nowhere"):
        await daemon.inject(tmp_path / "nowhere", ImageFormat.QCOW2, KEY)


async def test_many_disks_at_once(daemon: StorageDaemon, tmp_path: Path) -> None:
    disk = await make_disk(tmp_path, home)
    disks = [tmp_path / f"disk-{number}" for number in range(20)]
    for path in disks:
        path.write_bytes(disk.read_bytes())
    await asyncio.gather(
        *(daemon.inject(path, ImageFormat.QCOW2, f"{KEY}{number}") for number, path in enumerate(disks))
    )
    for number in (0, 7, 19):
        assert await debugfs(disks[number], f"cat {KEYS}") == f"{KEY}{number}\n"


def daemon_pids() -> list[int]:
    """The storage daemons of this sandbox."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            words = path.read_text()
            running = "State:\tZ" not in path.with_name("status").read_text()
        except OSError:
            continue
        if running and words.startswith(PROGRAM[:15]):
            found.append(int(path.parent.name))
    return found


async def test_a_daemon_that_was_killed_is_started_again(daemon: StorageDaemon, tmp_path: Path) -> None:
    disk = await make_disk(tmp_path, home)
    (pid,) = daemon_pids()
    os.kill(pid, signal.SIGKILL)
    await daemon.inject(disk, ImageFormat.QCOW2, KEY)
    assert await debugfs(disk, f"cat {KEYS}") == f"{KEY}\n"
    assert pid not in daemon_pids()


async def test_a_daemon_killed_with_a_disk_open_leaves_nothing_mounted(daemon: StorageDaemon, tmp_path: Path) -> None:
    disk = await make_disk(tmp_path, home)
    qmp = await daemon._connection()

    async def kill_while_open() -> None:
        async with daemon._exported(qmp, disk, ImageFormat.QCOW2):
            (pid,) = daemon_pids()
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(ConnectionLost):
        await kill_while_open()
    await daemon.inject(disk, ImageFormat.QCOW2, KEY)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


async def test_what_was_cut_off_is_listed_and_removed_and_what_is_at_work_is_not(
    daemon: StorageDaemon, tmp_path: Path
) -> None:
    """As the directory looks to the successor of a killed process, with an injection of its own under way."""
    disk = await make_disk(tmp_path, home)
    (daemon.path / "disk-90").touch()
    (daemon.path / "trial-x").mkdir()
    (daemon.path / "trial-x" / "disk").touch()
    (daemon.path / "somebody-elses").touch()
    async with daemon._exported(await daemon._connection(), disk, ImageFormat.QCOW2) as device:
        assert await daemon.list_leftovers() == ["disk-90", "trial-x"]
        await daemon.remove_leftovers()
        assert device.stat().st_size == 4 << 20
    assert [path.name for path in daemon.path.iterdir()] == ["somebody-elses"]


async def test_the_dead_mount_of_a_killed_daemon_is_a_leftover(daemon: StorageDaemon, tmp_path: Path) -> None:
    disk = await make_disk(tmp_path, home)
    killed = StorageDaemon(daemon.path)
    (before,) = daemon_pids()
    killed._numbers = itertools.count(90)
    async with contextlib.AsyncExitStack() as cut_off:
        await cut_off.enter_async_context(killed._exported(await killed._connection(), disk, ImageFormat.QCOW2))
        (pid,) = set(daemon_pids()) - {before}
        os.kill(pid, signal.SIGKILL)
        cut_off.pop_all()

    async def dead() -> bool:
        return await daemon.list_leftovers() == ["disk-90"]

    await eventually(dead)
    await daemon.remove_leftovers()
    assert await daemon.list_leftovers() == []
    await daemon.inject(disk, ImageFormat.QCOW2, KEY)


async def test_a_daemon_that_hangs_is_ended_and_the_disk_is_free(tmp_path: Path) -> None:
    disk = await make_disk(tmp_path, home)
    slow = StorageDaemon(tmp_path / "inject", timeout=0.3)
    await slow.start()
    (pid,) = daemon_pids()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(InjectionFailed, match=r"gave no answer in 0\.3 s"):
        await slow.inject(disk, ImageFormat.QCOW2, KEY)
    assert pid not in daemon_pids()
    await slow.inject(disk, ImageFormat.QCOW2, KEY)
    await slow.stop()


async def test_the_daemon_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    code = (
        "import asyncio, os, pathlib, sys\n"
        "from launcher.drivers.images.inject.storage_daemon import StorageDaemon\n"
        "async def main():\n"
        "    await StorageDaemon(pathlib.Path(sys.argv[1])).start()\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(tmp_path / "inject"))
    assert await child.wait() == -signal.SIGKILL

    async def none_left() -> bool:
        return daemon_pids() == []

    await eventually(none_left, within=5)


async def test_where_keys_cannot_be_injected_the_metadata_service_has_them(tmp_path: Path) -> None:
    class Unusable(StorageDaemon):
        async def start(self) -> None:
            raise HostResourceMissing("/dev/fuse is closed to this user")

    best = BestInjector(Unusable(tmp_path / "inject"))
    await best.start()
    assert best.name is Injection.METADATA
    assert "/dev/fuse" in best.reason
    await best.inject(tmp_path / "no disk", ImageFormat.QCOW2, KEY)
    await best.stop()
