"""Keys in real file systems, and images that were made to fool whoever writes into them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from launcher.drivers import process
from launcher.drivers.images import qcow2
from launcher.drivers.images.inject.choice import Ways
from launcher.drivers.images.inject.content import LARGEST_FILE
from launcher.drivers.images.inject.injector import Payload, Place
from launcher.drivers.images.inject.qmp import ConnectionLost
from launcher.drivers.images.inject.remembering import Remembering
from launcher.drivers.images.inject.storage_daemon import PROGRAM, StorageDaemon
from launcher.drivers.images.store import Injection
from launcher.errors import HostResourceMissing, InjectionFailed
from launcher.models import GuestFile, ImageFormat
from tests.orders import make_image, make_order
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
    await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY))
    assert await debugfs(disk, f"cat {KEYS}") == f"{KEY}\n"
    assert "Mode:  0600" in await debugfs(disk, f"stat {KEYS}")
    assert "Mode:  0700" in await debugfs(disk, "stat /root/.ssh")
    assert (tmp_path / "base").read_bytes() == base


async def test_the_second_disk_gets_a_key_by_a_copy(daemon: StorageDaemon, tmp_path: Path) -> None:
    """And it is a disk of its own."""
    one = await make_disk(tmp_path, home)
    two = Path(shutil.copy(one, tmp_path / "two"))
    injector = Remembering(daemon, tmp_path / "injected")
    await injector.start()
    for disk in (one, two):
        await injector.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY))
        await daemon.stop()  # it would be started again
    assert one.read_bytes() == two.read_bytes()
    assert await debugfs(two, f"cat {KEYS}") == f"{KEY}\n"
    await process.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 4096", two])
    assert await debugfs(one, f"cat {KEYS}") == f"{KEY}\n"


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
    await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY, TEXT))
    assert await debugfs(disk, f"cat {INTERFACES}") == TEXT
    assert "Mode:  0644" in await debugfs(disk, f"stat {INTERFACES}")
    assert await debugfs(disk, f"cat {KEYS}") == f"{KEY}\n"


async def test_addresses_go_without_a_key(daemon: StorageDaemon, tmp_path: Path) -> None:
    disk = await make_disk(tmp_path, lambda tree: (tree / "etc").mkdir(parents=True))
    await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(None, TEXT))
    assert await debugfs(disk, f"cat {INTERFACES}") == TEXT


@pytest.mark.parametrize("path", ["etc", "etc/network", "etc/network/interfaces"])
async def test_a_link_on_the_way_of_addresses_is_refused(daemon: StorageDaemon, tmp_path: Path, path: str) -> None:
    def link(tree: Path) -> None:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).symlink_to("/root")

    disk = await make_disk(tmp_path, link)
    with pytest.raises(InjectionFailed, match=f"/{path} in the disk is a symlink"):
        await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(None, TEXT))


async def test_the_keys_that_are_there_stay(daemon: StorageDaemon, tmp_path: Path) -> None:
    def with_key(tree: Path) -> None:
        (tree / "root/.ssh").mkdir(parents=True)
        (tree / KEYS[1:]).write_bytes(b"ssh-rsa OLD J\xf6rg")

    disk = await make_disk(tmp_path, with_key)
    for key in (KEY, KEY + "\n", "ssh-rsa SECOND"):
        await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(key))
    assert (await debugfs(disk, f"cat {KEYS}")).splitlines() == ["ssh-rsa OLD J\ufffdrg", KEY, "ssh-rsa SECOND"]


async def test_a_raw_disk_needs_no_overlay(daemon: StorageDaemon, tmp_path: Path) -> None:
    await make_disk(tmp_path, home)
    await daemon.inject(Place(tmp_path / "base", ImageFormat.RAW), Payload(KEY))
    assert await process.run(["debugfs", "-R", f"cat {KEYS}", tmp_path / "base"]) == f"{KEY}\n"


async def test_links_in_the_image_never_lead_into_the_host(daemon: StorageDaemon, tmp_path: Path) -> None:
    victim = tmp_path / "host"
    (victim / ".ssh").mkdir(parents=True)

    def link_home(tree: Path) -> None:
        (tree / "root").symlink_to(victim)

    disk = await make_disk(tmp_path, link_home)
    with pytest.raises(InjectionFailed, match="/root in the disk is a symlink"):
        await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY))
    assert list(victim.rglob("*")) == [victim / ".ssh"]


@pytest.mark.parametrize("path", ["root/.ssh", "root/.ssh/authorized_keys"])
async def test_a_link_at_any_level_is_refused(daemon: StorageDaemon, tmp_path: Path, path: str) -> None:
    def link(tree: Path) -> None:
        (tree / path).parent.mkdir(parents=True)
        (tree / path).symlink_to("/etc")
        (tree / "etc").mkdir()

    disk = await make_disk(tmp_path, link)
    with pytest.raises(InjectionFailed, match=f"/{path} in the disk is a symlink"):
        await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY))


async def test_a_file_of_keys_that_would_fill_the_host_is_refused(daemon: StorageDaemon, tmp_path: Path) -> None:
    def sparse(tree: Path) -> None:
        (tree / "root/.ssh").mkdir(parents=True)
        with (tree / KEYS[1:]).open("wb") as file:
            file.truncate(1 << 40)

    disk = await make_disk(tmp_path, sparse)
    with pytest.raises(InjectionFailed, match=f"has {1 << 40} bytes, expected at most {LARGEST_FILE}"):
        await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY))


async def test_a_disk_without_a_file_system_is_refused(daemon: StorageDaemon, tmp_path: Path) -> None:
    disk = tmp_path / "empty"
    disk.write_bytes(bytes(1 << 20))
    with pytest.raises(InjectionFailed, match="no ext2, ext3 or ext4") as refused:
        await daemon.inject(Place(disk, ImageFormat.RAW), Payload(KEY))
    assert "metadata" in refused.value.hint


async def test_a_full_file_system_is_noticed_by_reading_back(daemon: StorageDaemon, tmp_path: Path) -> None:
    def full(tree: Path) -> None:
        home(tree)
        (tree / "filler").write_bytes(os.urandom(3700 << 10))

    disk = await make_disk(tmp_path, full, features="^has_journal")
    with pytest.raises(InjectionFailed, match="cannot be read back"):
        await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY + "A" * 400_000))


async def test_a_disk_that_a_guest_has_open_is_left_alone(daemon: StorageDaemon, tmp_path: Path) -> None:
    disk = await make_disk(tmp_path, home)
    other = StorageDaemon(tmp_path / "other")
    await other.start()
    qmp = await other._connection()
    async with other._exported(qmp, Place(disk, ImageFormat.QCOW2)):
        with pytest.raises(InjectionFailed, match="lock"):
            await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY))
    await other.stop()
    await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY))


async def test_a_missing_disk_is_named(daemon: StorageDaemon, tmp_path: Path) -> None:
    with pytest.raises(InjectionFailed, match="nowhere"):
        await daemon.inject(Place(tmp_path / "nowhere", ImageFormat.QCOW2), Payload(KEY))


async def test_many_disks_at_once(daemon: StorageDaemon, tmp_path: Path) -> None:
    disk = await make_disk(tmp_path, home)
    disks = [tmp_path / f"disk-{number}" for number in range(20)]
    for path in disks:
        path.write_bytes(disk.read_bytes())
    await asyncio.gather(
        *(daemon.inject(Place(path, ImageFormat.QCOW2), Payload(f"{KEY}{number}")) for number, path in enumerate(disks))
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
    await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY))
    assert await debugfs(disk, f"cat {KEYS}") == f"{KEY}\n"
    assert pid not in daemon_pids()


async def test_a_daemon_killed_with_a_disk_open_leaves_nothing_mounted(daemon: StorageDaemon, tmp_path: Path) -> None:
    disk = await make_disk(tmp_path, home)
    qmp = await daemon._connection()

    async def kill_while_open() -> None:
        async with daemon._exported(qmp, Place(disk, ImageFormat.QCOW2)):
            (pid,) = daemon_pids()
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(ConnectionLost):
        await kill_while_open()
    await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY))
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
    async with daemon._exported(await daemon._connection(), Place(disk, ImageFormat.QCOW2)) as device:
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
        await cut_off.enter_async_context(killed._exported(await killed._connection(), Place(disk, ImageFormat.QCOW2)))
        (pid,) = set(daemon_pids()) - {before}
        os.kill(pid, signal.SIGKILL)
        cut_off.pop_all()

    async def dead() -> bool:
        return await daemon.list_leftovers() == ["disk-90"]

    await eventually(dead)
    await daemon.remove_leftovers()
    assert await daemon.list_leftovers() == []
    await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY))


async def test_a_daemon_that_hangs_is_ended_and_the_disk_is_free(tmp_path: Path) -> None:
    disk = await make_disk(tmp_path, home)
    slow = StorageDaemon(tmp_path / "inject", timeout=0.3)
    await slow.start()
    (pid,) = daemon_pids()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(InjectionFailed, match=r"gave no answer in 0\.3 s"):
        await slow.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY))
    assert pid not in daemon_pids()
    await slow.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY))
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


class Unusable(StorageDaemon):
    async def start(self) -> None:
        raise HostResourceMissing("/dev/fuse is closed to this user")


async def test_where_keys_cannot_be_injected_the_next_way_is_taken(tmp_path: Path) -> None:
    way = Injection.STORAGE_DAEMON
    ways = Ways([way, Injection.METADATA], {way: Unusable(tmp_path / "inject")})
    await ways.start()
    assert ways.choose(make_order(kernel=make_image()), Payload(KEY)) == (Injection.METADATA,)
    with pytest.raises(InjectionFailed, match="storage-daemon: /dev/fuse is closed to this user; metadata: it brings"):
        ways.choose(make_order(kernel=make_image()), Payload(KEY, TEXT))
    await ways.stop()


async def test_where_no_way_works_the_host_does_not_start(tmp_path: Path) -> None:
    way = Injection.STORAGE_DAEMON
    with pytest.raises(HostResourceMissing, match="/dev/fuse is closed"):
        await Ways([way], {way: Unusable(tmp_path / "inject")}).start()


async def test_files_and_a_password_get_into_a_disk(daemon: StorageDaemon, tmp_path: Path) -> None:
    """The shadow file keeps its owner and its mode, the others their lines; folders are made."""

    def tree(tree: Path) -> None:
        home(tree)
        (tree / "etc").mkdir()
        shadow = tree / "etc/shadow"
        shadow.write_text("daemon:*:1:0:::::\nroot:*:19000:0:99999:7:::\n")
        shadow.chmod(0o640)

    disk = await make_disk(tmp_path, tree)
    files = [("/etc/app/conf.d/one.conf", b"one\n"), ("/hello", bytes(range(256)) * 40)]
    wanted = tuple(GuestFile(path=path, content=base64.b64encode(body).decode()) for path, body in files)
    for _ in range(2):
        await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(KEY, None, wanted, "$6$salt$0123456789abcdef./"))
    shadow = (await debugfs(disk, "cat /etc/shadow")).splitlines()
    assert shadow == ["daemon:*:1:0:::::", "root:$6$salt$0123456789abcdef./:19000:0:99999:7:::"]
    assert "Mode:  0640" in await debugfs(disk, "stat /etc/shadow")
    assert await debugfs(disk, "cat /etc/app/conf.d/one.conf") == "one\n"
    assert "Size: 10240" in await debugfs(disk, "stat /hello")
    assert "Mode:  0755" in await debugfs(disk, "stat /etc/app")
    assert await debugfs(disk, f"cat {KEYS}") == f"{KEY}\n"


async def test_a_password_needs_a_line_for_root(daemon: StorageDaemon, tmp_path: Path) -> None:
    def tree(tree: Path) -> None:
        (tree / "etc").mkdir()
        (tree / "etc/shadow").write_text("rooter:*:1\n")

    disk = await make_disk(tmp_path, tree)
    with pytest.raises(InjectionFailed, match="/etc/shadow in the disk has no line for root"):
        await daemon.inject(Place(disk, ImageFormat.QCOW2), Payload(password_hash="$6$salt$0123456789"))


@pytest.mark.parametrize("table", ["dos", "gpt"])
async def test_a_key_gets_into_a_partition(daemon: StorageDaemon, tmp_path: Path, table: str) -> None:
    await make_disk(tmp_path, home)
    disk = tmp_path / "whole"
    with disk.open("wb") as file:
        file.truncate(16 << 20)
    await process.run(["sfdisk", "-q", disk], stdin=f"label: {table}\nsize=2048\nstart=8192, size=8192\n")
    with disk.open("r+b") as file:
        file.seek(8192 * 512)
        file.write((tmp_path / "base").read_bytes())
    await daemon.inject(Place(disk, ImageFormat.RAW, 2), Payload(KEY))
    part = tmp_path / "part"
    part.write_bytes(disk.read_bytes()[8192 * 512 :][: 8192 * 512])
    assert await process.run(["debugfs", "-R", f"cat {KEYS}", part]) == f"{KEY}\n"
    with pytest.raises(InjectionFailed, match="no partition 3, but 1, 2"):
        await daemon.inject(Place(disk, ImageFormat.RAW, 3), Payload(KEY))
