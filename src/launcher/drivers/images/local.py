"""Instance files on the host's own disk.

    <path>/_base/<sha256>            files of images (`cache.py`)
    <path>/_blank/                   empty disks (`blanks.py`)
    <path>/instance-%08x/{disk, ephemeral, swap}   what a guest writes (`disks.py`)
    <path>/instance-%08x/config-drive    what the guest is told, where it gets one
    <path>/instance-%08x/{instance-id, injection, console.log, firmware-state, memory}
    <path>/instance-%08x/rescue/     the same again, of another root that it boots from for a while
    <path>/instance-%08x/generation  in which it was made
    <path>/instance-%08x/image       a copy of its root disk, on its way to the controller's vault
    <path>/instance-%08x/{base, kernel, ramdisk}   links to what the instance needs of `_base`
    <path>/_work/                    what is being made or thrown away; emptied at start

Whatever bears its final name is complete: it was made in `_work` and renamed. It is synced while its domain
starts; until then a link `unsettled` says in which run of the host it was made, and no machine is called active.
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
from launcher.drivers.images.blanks import Blank, Blanks, blanks_of
from launcher.drivers.images.cache import BaseCache
from launcher.drivers.images.config_drive import ConfigDrives
from launcher.drivers.images.delivery import bring
from launcher.drivers.images.disks import NewDisk, disk_path, flatten, make_disks, needed
from launcher.drivers.images.files import GIB, MIB, amount, in_thread, sync_file
from launcher.drivers.images.inject.choice import Ways
from launcher.drivers.images.inject.injector import Payload, Place
from launcher.drivers.images.inject.interfaces import interfaces_text
from launcher.drivers.images.library import sync_directory
from launcher.drivers.images.space import Space
from launcher.drivers.images.store import Copy, Injected, Injection, Tell
from launcher.drivers.images.vault import Downloads
from launcher.drivers.virt.driver import Disks
from launcher.errors import BadImage, HostResourceMissing, InjectionFailed
from launcher.failpoints import failpoint
from launcher.guestdata.guest import Guest
from launcher.images import Received, Ticket
from launcher.models import Firmware, Image, ImageFormat, InstanceId, InstanceRef, LaunchOrder, Personality
from launcher.networks import FixedIp

CONFIG_DRIVE, CONSOLE, UNSETTLED, NOTHING = "config-drive", "console.log", "unsettled", "none"
FIRMWARE_STATE, IMAGE, RESCUE, GENERATION = "firmware-state", "image", "rescue", "generation"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


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
        disk_format: ImageFormat = ImageFormat.QCOW2,
        reserve_mb: int = 512,
        cache_limit: int | None = None,
        downloads: Downloads | None = None,
    ) -> None:
        self.path = path.absolute()
        self.ways, self.config_drives = ways, config_drives or ConfigDrives(rng=SystemRandom())
        self._base = self.path / "_base"
        self._work = self.path / "_work"
        self.disk_format, self.space = disk_format, Space(self.path, reserve_mb=reserve_mb)
        self.vault = vault
        self.cache = BaseCache(
            self._base,
            work=self._work,
            sources=[library, *([vault] if vault else [])],
            space=self.space,
            limit=cache_limit,
            downloads=downloads,
        )
        self.blanks = Blanks(self.path / "_blank", work=self._work)

    async def start(self) -> None:
        await in_thread(self._prepare)
        await self.ways.start()

    async def stop(self) -> None:
        await self.ways.stop()

    async def list_missing(self, order: LaunchOrder) -> Sequence[Image]:
        return await self.cache.list_missing(order)

    async def fetch(self, order: LaunchOrder, image: Image, ticket: Ticket) -> None:
        await self.cache.fetch(order, image, ticket)

    async def create_disks(self, order: LaunchOrder) -> Disks:
        size = root_size(order)
        async with self.cache.holding(order), self.blanks.holding(self._blanks_of(order)):
            if not await in_thread(self._is_there, order):
                await self._make(order, await in_thread(self._new_disks, order, size))
            disks = await in_thread(self._disks, order)
        if await in_thread(_virtual_size, disks) < size:  # it was resized since its last start
            await process.run(["qemu-img", "resize", "-q", "-f", disks.root_format, disks.root, str(size)])
        return disks

    async def _make(self, order: LaunchOrder, disks: Sequence[NewDisk]) -> None:
        """Aside; it gets its name when it is complete."""
        with self.space.promised(order.name, needed(disks, self.disk_format)):
            draft = Path(await in_thread(tempfile.mkdtemp, dir=self._work))
            try:
                await make_disks(draft, disks, self.disk_format)
                await in_thread(self._place, order, draft)
            except BaseException:
                await in_thread(shutil.rmtree, draft, ignore_errors=True)
                raise

    async def renew(self, order: LaunchOrder) -> None:
        await in_thread(self._renew, order)

    async def end_rescue(self, order: InstanceRef) -> None:
        await in_thread(self._throw_away, self._home(order) / RESCUE, order)

    async def inject(self, order: LaunchOrder, nics: Sequence[FixedIp], tell: Tell) -> Injected:
        personality = (await tell()).told.personality if order.personal else Personality()
        payload = Payload(order.public_key, interfaces_text(nics), personality.files, personality.password_hash)
        done = await in_thread(self._find_injection, order, payload)
        if done is not None:
            return done
        done = await self._inject(order, payload, tell)
        await in_thread(self._record_injection, order, payload, done)
        return done

    async def _inject(self, order: LaunchOrder, payload: Payload, tell: Tell) -> Injected:
        ways, directory = self.ways.choose(order, payload), self._directory(order)
        for way in ways:
            if way is Injection.CONFIG_DRIVE:
                await self._write_config_drive(directory / CONFIG_DRIVE, await tell())
            elif way in self.ways.injectors:
                place = Place(*disk_path(directory, "disk"), self.ways.partition_of(order))
                await self.ways.injectors[way].inject(place, payload)
        return Injected(ways, directory / CONFIG_DRIVE if Injection.CONFIG_DRIVE in ways else None)

    async def settle(self, order: LaunchOrder) -> None:
        await in_thread(self._settle, self._directory(order))

    async def _write_config_drive(self, drive: Path, guest: Guest) -> None:
        """One that is there is of a launch that was cut off before its domain started."""
        draft = await in_thread(tempfile.mkdtemp, dir=self._work)
        try:
            await self.config_drives.write(Path(draft) / CONFIG_DRIVE, guest)
            await in_thread((Path(draft) / CONFIG_DRIVE).chmod, 0o600)  # it may hold a password's hash
            async with failpoint("image.drive"):
                await in_thread((Path(draft) / CONFIG_DRIVE).replace, drive)
        finally:
            await in_thread(shutil.rmtree, draft)

    async def has_disks(self, order: InstanceRef) -> bool:
        return await in_thread(lambda: _owner(self._home(order)) == order.instance_id)

    def memory_file(self, order: InstanceRef) -> Path:
        return self._home(order) / "memory"

    async def save_image(self, order: LaunchOrder, ticket: Ticket, copy: Copy | None) -> Received:
        """Beside the disk, because QEMU writes it and may be somebody who gets no further."""
        draft, disks = self._directory(order) / IMAGE, await in_thread(self._disks, order)
        try:
            with self.space.promised(order.name, await in_thread(self._occupied, order, disks)):
                await in_thread(draft.unlink, missing_ok=True)
                async with failpoint("image.copy"):
                    await (copy(draft) if copy else flatten(disks.root, disks.root_format, draft))
                async with failpoint("image.bring"):
                    return await bring(draft, ticket, vault=self.vault)
        finally:
            await in_thread(draft.unlink, missing_ok=True)

    async def delete_disks(self, order: InstanceRef) -> None:
        await in_thread(self._delete, order)

    async def read_console(self, order: LaunchOrder, max_bytes: int) -> bytes:
        return await in_thread(_read_end, self._home(order) / CONSOLE, max_bytes)

    async def list_instances(self) -> Sequence[InstanceRef]:
        return await in_thread(self._list)

    async def list_bases(self) -> Sequence[str]:
        return await self.cache.list_bases()

    async def prune_bases(self) -> int:
        return await self.cache.prune() + await self.blanks.prune(self.cache.used)

    async def list_exports(self) -> Sequence[str]:
        return await self.ways.list_leftovers()

    async def remove_exports(self) -> None:
        await self.ways.remove_leftovers()

    async def free_mb(self) -> int:
        return await in_thread(self.space.left) // MIB

    # --- in a thread ---------------------------------------------------------------------------

    def _prepare(self) -> None:
        self.cache.prepare()
        if self._work.exists():
            shutil.rmtree(self._work)
        self._work.mkdir(mode=0o700)
        homes = [*self.path.glob("instance-*"), *self.path.glob(f"instance-*/{RESCUE}")]
        for mark in (directory / UNSETTLED for directory in homes):
            if mark.is_symlink() and mark.readlink().name != BOOT_ID.read_text().strip():
                shutil.rmtree(mark.parent)  # a power cut caught it before anybody used it

    def _new_disks(self, order: LaunchOrder, size: int) -> list[NewDisk]:
        """Raises HostResourceMissing when the image's file is not here any more."""
        self.cache.check(order)
        base, image = self._base / order.image.sha256, order.image
        disks = [NewDisk("disk", base, image.format, size, self._written(order))]
        for blank in self._blanks_of(order):
            file = self.blanks.path / blank.file
            disks.append(NewDisk(blank.name, file, ImageFormat.RAW, blank.size, file.stat().st_blocks * 512))
        return disks

    def _place(self, order: LaunchOrder, draft: Path) -> None:
        """The mark that it is not synced is a link, so that it is there as soon as the directory's name is."""
        (draft / "instance-id").write_text(order.instance_id)
        (draft / GENERATION).write_text(str(order.generation))
        (draft / UNSETTLED).symlink_to(BOOT_ID.read_text().strip())
        self.cache.link(order, draft)
        draft.chmod(0o755)
        with failpoint("image.disk"):
            draft.rename(self._directory(order))

    def _disks(self, order: LaunchOrder) -> Disks:
        self.cache.check(order)
        directory = self._directory(order)
        root, format = disk_path(directory, "disk")
        more = {blank.name: disk_path(directory, blank.name)[0] for blank in self._blanks_of(order)}
        own = disk_path(self._home(order), "disk")
        return Disks(
            rescued=own[0] if order.rescue else None,
            rescued_format=own[1],
            root=root,
            root_format=format,
            firmware_state=directory / FIRMWARE_STATE if order.image.firmware is Firmware.UEFI else None,
            ephemeral=more.get("ephemeral"),
            swap=more.get("swap"),
            kernel=self._base / order.kernel.sha256 if order.kernel else None,
            ramdisk=self._base / order.ramdisk.sha256 if order.ramdisk else None,
            console_log=self._home(order) / CONSOLE,
        )

    def _occupied(self, order: LaunchOrder, disks: Disks) -> int:
        """Bytes that a flat copy of the root takes at most."""
        own = disks.root.stat().st_blocks * 512
        return min(_virtual_size(disks), own if disks.root_format is ImageFormat.RAW else own + self._written(order))

    def _written(self, order: LaunchOrder) -> int:
        """Bytes that a raw copy of the image occupies."""
        base, image = self._base / order.image.sha256, order.image
        return image.virtual_size if image.format is ImageFormat.QCOW2 else base.stat().st_blocks * 512

    def _blanks_of(self, order: LaunchOrder) -> Sequence[Blank]:
        return () if order.rescue else blanks_of(order.flavor)

    def _renew(self, order: LaunchOrder) -> None:
        """What an older launcher has made says no generation."""
        directory = self._directory(order)
        with contextlib.suppress(FileNotFoundError):
            if int((directory / GENERATION).read_text() or 0) >= order.generation:
                return
        self._throw_away(directory, order)

    def _throw_away(self, directory: Path, order: InstanceRef) -> None:
        """At once, as far as its name goes."""
        if _owner(directory) == order.instance_id:
            with tempfile.TemporaryDirectory(dir=self._work) as trash, failpoint("image.trash"):
                directory.rename(Path(trash) / order.name)

    def _is_there(self, order: LaunchOrder) -> bool:
        """Whether the order's directory exists. Raises HostResourceMissing when another instance's is in its place."""
        owner = _owner(self._directory(order))
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

    def _settle(self, directory: Path) -> None:
        """The console's log is nobody's loss."""
        if not (directory / UNSETTLED).is_symlink():
            return
        for file in directory.iterdir():
            if file.is_file() and not file.is_symlink() and file.name != CONSOLE:
                sync_file(file)
        with failpoint("image.settled"):
            (directory / UNSETTLED).unlink()
        sync_directory(directory)
        sync_directory(self.path)

    def _record_injection(self, order: LaunchOrder, payload: Payload, done: Injected) -> None:
        """From here on a domain may run."""
        record = f"{','.join(done.ways) or NOTHING} {payload.digest}"
        with failpoint("image.key"):
            (self._directory(order) / "injection").write_text(record)

    def _delete(self, order: InstanceRef) -> None:
        self._throw_away(self._home(order), order)

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

    def _home(self, order: InstanceRef) -> Path:
        return self.path / order.name

    def _directory(self, order: LaunchOrder) -> Path:
        """Where its root is, or the other one while it is rescued."""
        return self._home(order) / RESCUE if order.rescue else self._home(order)


def _owner(directory: Path) -> InstanceId | None:
    try:
        return (directory / "instance-id").read_text()
    except FileNotFoundError:
        return None


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


def _virtual_size(disks: Disks) -> int:
    """Bytes of the root disk as the guest sees it."""
    if disks.root_format is ImageFormat.RAW:
        return disks.root.stat().st_size
    return qcow2.read_header(disks.root).virtual_size


def _read_end(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - max_bytes))
            return file.read(max_bytes)
    except FileNotFoundError:
        return b""
