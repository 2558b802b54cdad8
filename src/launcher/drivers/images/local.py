"""Instance files on the host's own disk.

    <path>/_base/<sha256>            files of images (`cache.py`)
    <path>/instance-%08x/disk        qcow2 overlay on the base: all that a guest writes
    <path>/instance-%08x/config-drive    what the guest is told, where it gets one
    <path>/instance-%08x/{instance-id, injection, console.log, memory}
    <path>/instance-%08x/{base, kernel, ramdisk}   links to what the instance needs of `_base`
    <path>/_work/                    what is being made or thrown away; emptied at start

Whatever bears its final name is complete: it was made in `_work`, synced and renamed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom

from launcher.drivers import process
from launcher.drivers.images import qcow2
from launcher.drivers.images.cache import BaseCache
from launcher.drivers.images.config_drive import ConfigDrives
from launcher.drivers.images.files import GIB, MIB, amount, in_thread, sync_file, write_synced
from launcher.drivers.images.inject.choice import Ways
from launcher.drivers.images.inject.injector import Payload, Place
from launcher.drivers.images.inject.interfaces import interfaces_text
from launcher.drivers.images.library import sync_directory
from launcher.drivers.images.store import Injected, Injection, Tell
from launcher.drivers.virt.driver import Disks
from launcher.errors import BadImage, HostResourceMissing, InjectionFailed
from launcher.failpoints import failpoint
from launcher.guestdata.guest import Guest
from launcher.models import ImageFormat, InstanceId, InstanceRef, LaunchOrder, Personality
from launcher.networks import FixedIp

CONFIG_DRIVE, NOTHING = "config-drive", "none"


class LocalImages:
    """The image store on local files (contract: `store.py`).

    Images are taken from `library` and `vault` only. A launch that would leave less than `reserve_mb` free for what
    the guests still write is refused. `cache_limit` is the cache's, in bytes.
    """

    def __init__(
        self,
        path: Path,
        *,
        library: Path,
        ways: Ways,
        config_drives: ConfigDrives | None = None,
        vault: Path | None = None,
        reserve_mb: int = 512,
        cache_limit: int | None = None,
    ) -> None:
        self.path = path.absolute()
        self.ways, self.config_drives = ways, config_drives or ConfigDrives(rng=SystemRandom())
        self._base = self.path / "_base"
        self._work = self.path / "_work"
        self.cache = BaseCache(
            self._base,
            work=self._work,
            sources=[library, *([vault] if vault else [])],
            reserve_mb=reserve_mb,
            limit=cache_limit,
        )

    async def start(self) -> None:
        await in_thread(self._prepare)
        await self.ways.start()

    async def stop(self) -> None:
        await self.ways.stop()

    async def create_disks(self, order: LaunchOrder) -> Disks:
        size = root_size(order)
        async with self.cache.holding(order):
            disks = await in_thread(self._create, order, size)
        if (await in_thread(qcow2.read_header, disks.root)).virtual_size < size:  # it was resized since its last start
            await process.run(["qemu-img", "resize", "-q", "-f", "qcow2", disks.root, str(size)])
        return disks

    async def inject(self, order: LaunchOrder, nics: Sequence[FixedIp], tell: Tell) -> Injected:
        personality = (await tell()).told.personality if order.personal else Personality()
        payload = Payload(order.public_key, interfaces_text(nics), personality.files, personality.password_hash)
        done = await in_thread(self._find_injection, order, payload)
        if done is not None:
            return done
        ways, drive = self.ways.choose(order, payload), self._directory(order) / CONFIG_DRIVE
        for way in ways:
            if way is Injection.CONFIG_DRIVE:
                await self._write_config_drive(drive, await tell())
            elif way in self.ways.injectors:
                disk = Place(self._directory(order) / "disk", ImageFormat.QCOW2, self.ways.partition_of(order))
                await self.ways.injectors[way].inject(disk, payload)
        done = Injected(ways, drive if Injection.CONFIG_DRIVE in ways else None)
        await in_thread(self._record_injection, order, payload, done)
        return done

    async def _write_config_drive(self, drive: Path, guest: Guest) -> None:
        """One that is there is of a launch that was cut off before its domain started."""
        draft = await in_thread(tempfile.mkdtemp, dir=self._work)
        try:
            await self.config_drives.write(Path(draft) / CONFIG_DRIVE, guest)
            async with failpoint("image.drive"):
                await in_thread((Path(draft) / CONFIG_DRIVE).replace, drive)
        finally:
            await in_thread(shutil.rmtree, draft)

    async def has_disks(self, order: InstanceRef) -> bool:
        return await in_thread(lambda: self._find_owner(order) == order.instance_id)

    def memory_file(self, order: InstanceRef) -> Path:
        return self._directory(order) / "memory"

    async def delete_disks(self, order: InstanceRef) -> None:
        await in_thread(self._delete, order)

    async def read_console(self, order: LaunchOrder, max_bytes: int) -> bytes:
        return await in_thread(_read_end, self._directory(order) / "console.log", max_bytes)

    async def list_instances(self) -> Sequence[InstanceRef]:
        return await in_thread(self._list)

    async def list_bases(self) -> Sequence[str]:
        return await self.cache.list_bases()

    async def list_exports(self) -> Sequence[str]:
        return await self.ways.list_leftovers()

    async def remove_exports(self) -> None:
        await self.ways.remove_leftovers()

    async def free_mb(self) -> int:
        return await in_thread(lambda: shutil.disk_usage(self.path).free // MIB)

    # --- in a thread ---------------------------------------------------------------------------

    def _prepare(self) -> None:
        self.cache.prepare()
        if self._work.exists():
            shutil.rmtree(self._work)
        self._work.mkdir(mode=0o700)

    def _create(self, order: LaunchOrder, size: int) -> Disks:
        self.cache.check(order)
        directory = self._directory(order)
        if not self._is_there(order):
            self.cache.check_space(order, 0)
            with tempfile.TemporaryDirectory(dir=self._work) as made:
                new = Path(made) / order.name
                new.mkdir()
                base = self._base / order.image.sha256
                qcow2.write_overlay(new / "disk", backing=base, backing_format=order.image.format, size=size)
                write_synced(new / "instance-id", order.instance_id)
                self.cache.link(order, new)
                sync_directory(new)
                with failpoint("image.disk"):
                    new.rename(directory)
            sync_directory(self.path)
        return Disks(
            root=directory / "disk",
            root_format=ImageFormat.QCOW2,
            kernel=self._base / order.kernel.sha256 if order.kernel else None,
            ramdisk=self._base / order.ramdisk.sha256 if order.ramdisk else None,
            console_log=directory / "console.log",
        )

    def _find_owner(self, order: InstanceRef) -> InstanceId | None:
        try:
            return (self._directory(order) / "instance-id").read_text()
        except FileNotFoundError:
            return None

    def _is_there(self, order: LaunchOrder) -> bool:
        """Whether the order's directory exists. Raises HostResourceMissing when another instance's is in its place."""
        owner = self._find_owner(order)
        if owner not in (None, order.instance_id):
            raise HostResourceMissing(
                f"{self._directory(order)} belongs to the instance {owner}, not to {order.instance_id}",
                hint="it is left over from another database: remove it",
            )
        return owner is not None

    def _find_injection(self, order: LaunchOrder, payload: Payload) -> Injected | None:
        """What was done earlier; then a domain may run from the disk and it must stay closed."""
        directory = self._directory(order)
        if not self._is_there(order):
            raise InjectionFailed(f"{order.name}: there is no {directory}")
        try:
            words, digest = (directory / "injection").read_text().split()
            ways = tuple(Injection(word) for word in words.split(",") if word != NOTHING)
        except (FileNotFoundError, ValueError):  # never written, or torn by a power cut: no domain has run since
            return None
        if digest != payload.digest:
            raise InjectionFailed(f"{order.name}: the disk carries another key, address or personality already")
        return Injected(ways, directory / CONFIG_DRIVE if Injection.CONFIG_DRIVE in ways else None)

    def _record_injection(self, order: LaunchOrder, payload: Payload, done: Injected) -> None:
        directory = self._directory(order)
        sync_file(directory / "disk")
        with failpoint("image.key"):
            write_synced(directory / "injection", f"{','.join(done.ways) or NOTHING} {payload.digest}")

    def _delete(self, order: InstanceRef) -> None:
        if self._find_owner(order) == order.instance_id:
            with tempfile.TemporaryDirectory(dir=self._work) as trash, failpoint("image.trash"):
                self._directory(order).rename(Path(trash) / order.name)

    def _list(self) -> list[InstanceRef]:
        """A directory that somebody else made, or that has just gone, is none of ours."""
        found = []
        for marker in sorted(self.path.glob("instance-*/instance-id")):
            with contextlib.suppress(OSError, ValueError):
                number = int(marker.parent.name.removeprefix("instance-"), 16)
                ref = InstanceRef(instance_id=marker.read_text(), number=number)
                if ref.name == marker.parent.name:
                    found.append(ref)
        return found

    def _directory(self, order: InstanceRef) -> Path:
        return self.path / order.name


def root_size(order: LaunchOrder) -> int:
    """Bytes of the root disk: the flavor's, or with root_gb 0 the image's own. Raises BadImage when it is too big."""
    wanted, needed = order.flavor.root_gb * GIB, order.image.virtual_size
    if wanted and wanted < needed:
        raise BadImage(
            f"{order.name}: image {order.image.name} needs {amount(needed)} of root disk, "
            f"flavor {order.flavor.name} has {amount(wanted)}",
            hint="take a bigger flavor",
        )
    return wanted or needed


def _read_end(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - max_bytes))
            return file.read(max_bytes)
    except FileNotFoundError:
        return b""
