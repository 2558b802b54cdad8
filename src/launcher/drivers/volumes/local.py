"""Volumes as files on the host's own disk.

    <path>/volume-%08x/{volume-id, disk.raw | disk.qcow2}     snapshot-%08x likewise
    <path>/_work/                                             what is being made or thrown away; emptied at start

Whatever bears its final name is complete: it was made in `_work`, synced and renamed. Files are sparse, so what was
never written reads as zeros and takes no room; a copy shares its blocks with the original where the file system can.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from launcher.drivers import process
from launcher.drivers.images import qcow2
from launcher.drivers.images.files import GIB, MIB, amount, in_thread, sync_file, write_synced
from launcher.drivers.images.library import sync_directory
from launcher.drivers.images.space import named_when_full
from launcher.drivers.volumes.driver import Storage
from launcher.drivers.volumes.taking import take_in
from launcher.errors import InsufficientSpace, NotFound
from launcher.failpoints import failpoint
from launcher.models import Image, ImageFormat
from launcher.volumes import VolumeRef

MARK = "volume-id"
COPY_TIMEOUT = 3600.0
"""Seconds for the copying of one volume."""


class LocalVolumes:
    """The contract of `driver.py`. New ones get `format`; those that are here keep theirs.

    Images are taken from the directories `sources` only. What would leave less than `reserve_mb` free is refused.
    """

    def __init__(
        self, path: Path, *, sources: Sequence[Path], format: ImageFormat = ImageFormat.RAW, reserve_mb: int = 512
    ) -> None:
        self.path, self.sources, self.format, self.reserve_mb = path.absolute(), sources, format, reserve_mb
        self._work = self.path / "_work"

    async def start(self) -> None:
        await in_thread(self._prepare)

    async def create(self, ref: VolumeRef, size_gb: int, *, image: Image | None = None) -> None:
        if await in_thread(self._is_there, ref):
            return
        await in_thread(self._check_space, ref, image.virtual_size if image else 0)
        async with self._building(ref) as new:
            disk = new / f"disk.{self.format}"
            if image is None:
                await self._run("create", "-f", self.format, disk, f"{size_gb}G")
            else:
                checked = new / "image"
                await in_thread(take_in, image, checked, self.sources)
                await self._run("convert", "-f", image.format, "-O", self.format, checked, disk)
                await in_thread(checked.unlink)
                await self._run("resize", "-f", self.format, disk, f"{size_gb}G")

    async def copy(self, source: VolumeRef, ref: VolumeRef, size_gb: int) -> None:
        if await in_thread(self._is_there, ref):
            return
        original = await self.find(source)
        await in_thread(self._check_space, ref, (await in_thread(original.path.stat)).st_blocks * 512)
        async with self._building(ref) as new:
            disk = new / original.path.name
            words = ("cp", "--reflink=auto", "--sparse=always", "--", original.path, disk)
            with named_when_full(self.path):
                await process.run(words, timeout=COPY_TIMEOUT)
            if (await self._virtual_size(disk, original.format)) < size_gb * GIB:
                await self._run("resize", "-f", original.format, disk, f"{size_gb}G")

    async def extend(self, ref: VolumeRef, size_gb: int, *, in_use: bool) -> None:
        """A file in use is QEMU's: it grows it itself."""
        found = await self.find(ref)
        if not in_use and await self._virtual_size(found.path, found.format) < size_gb * GIB:
            await self._run("resize", "-f", found.format, found.path, f"{size_gb}G")
            await in_thread(sync_file, found.path)

    async def delete(self, ref: VolumeRef) -> None:
        await in_thread(self._delete, ref)

    async def find(self, ref: VolumeRef) -> Storage:
        return await in_thread(self._find, ref)

    async def list_volumes(self) -> Sequence[VolumeRef]:
        return await in_thread(self._list)

    async def free_mb(self) -> int:
        return await in_thread(lambda: shutil.disk_usage(self.path).free // MIB)

    # --- one at a time -------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _building(self, ref: VolumeRef) -> AsyncIterator[Path]:
        """A directory aside; at the end of the block it is synced and gets its name."""
        made = Path(await in_thread(tempfile.mkdtemp, dir=self._work))
        try:
            new = made / ref.name
            new.mkdir(mode=0o711)
            yield new
            await in_thread(self._put_in_place, ref, new)
        finally:
            await in_thread(shutil.rmtree, made, ignore_errors=True)

    async def _run(self, *words: str | Path) -> None:
        """A format is always named, so that nobody guesses one from what a guest wrote."""
        verb, *rest = words
        with named_when_full(self.path):
            await process.run(["qemu-img", verb, "-q", *rest], timeout=COPY_TIMEOUT)

    async def _virtual_size(self, disk: Path, format: ImageFormat) -> int:
        """By our own reading. A qcow2 file that a machine was cut off from may say that it was not closed properly."""
        if format is ImageFormat.QCOW2:
            return (await in_thread(qcow2.read_header, disk)).virtual_size
        return (await in_thread(disk.stat)).st_size

    # --- in a thread ---------------------------------------------------------------------------------

    def _prepare(self) -> None:
        if self._work.exists():
            shutil.rmtree(self._work)
        self._work.mkdir(mode=0o711, parents=True)

    def _check_space(self, ref: VolumeRef, needed: int) -> None:
        free = shutil.disk_usage(self.path).free
        if free < needed + self.reserve_mb * MIB:
            raise InsufficientSpace(
                f"{ref.name}: {amount(needed)} needed and {self.reserve_mb} MiB to spare, "
                f"{amount(free)} free in {self.path}",
                hint="delete volumes or snapshots, or free space there",
            )

    def _put_in_place(self, ref: VolumeRef, new: Path) -> None:
        for file in new.iterdir():
            sync_file(file)
        write_synced(new / MARK, ref.volume_id)
        sync_directory(new)
        with failpoint("volume.file"):
            new.rename(self.path / ref.name)
        sync_directory(self.path)

    def _find(self, ref: VolumeRef) -> Storage:
        if not self._is_there(ref):
            raise NotFound(f"{ref.name}: there is no such volume on this host")
        home = self.path / ref.name
        for format in ImageFormat:
            if (home / f"disk.{format}").is_file():
                return Storage(path=home / f"disk.{format}", format=format)
        raise NotFound(f"{ref.name}: there is no disk in {home}")

    def _is_there(self, ref: VolumeRef) -> bool:
        """Raises NotFound when another volume's is in its place."""
        try:
            owner = (self.path / ref.name / MARK).read_text()
        except FileNotFoundError:
            return False
        if owner != ref.volume_id:
            raise NotFound(
                f"{self.path / ref.name} belongs to the volume {owner}, not to {ref.volume_id}",
                hint="it is left over from another database: move it away",
            )
        return True

    def _delete(self, ref: VolumeRef) -> None:
        with contextlib.suppress(NotFound):
            if self._is_there(ref):
                with tempfile.TemporaryDirectory(dir=self._work) as trash, failpoint("volume.trash"):
                    (self.path / ref.name).rename(Path(trash) / ref.name)

    def _list(self) -> list[VolumeRef]:
        """A directory that somebody else made, or that has just gone, is none of ours."""
        found = []
        for mark in sorted(self.path.glob(f"*-*/{MARK}")):
            with contextlib.suppress(OSError, ValueError):
                kind, _, digits = mark.parent.name.partition("-")
                ref = VolumeRef(volume_id=mark.read_text(), number=int(digits, 16), snapshot=kind == "snapshot")
                if ref.name == mark.parent.name:
                    found.append(ref)
        return found
