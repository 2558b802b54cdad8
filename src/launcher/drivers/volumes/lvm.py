"""Volumes as logical volumes of one volume group, thick or, with a pool, thin.

    <group>/volume-%08x, snap-%08x     tagged `launcher.id=ID` once they are whole, until then `launcher.making=ID`

A thin one reads as zeros where it was never written, by the pool's own doing (it zeroes what it hands out). A thick
one gets extents that others have used, so all of it is overwritten with zeros before it is whole, and what an extension
adds before a machine can see it; `launcher.wiped=BYTES` says up to where, so that a kill in between leaves no old data.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.drivers import process
from launcher.drivers.images.files import in_thread
from launcher.drivers.volumes.driver import Storage
from launcher.drivers.volumes.taking import take_in
from launcher.errors import HostResourceMissing, InsufficientSpace, NotFound, ProgramFailed, VolumeFailed
from launcher.failpoints import failpoint
from launcher.models import Image, ImageFormat
from launcher.volumes import VolumeRef

SNAPSHOT = "snap"
"""LVM keeps names that begin with `snapshot` for itself."""
WHOLE, MAKING, WIPED = "launcher.id", "launcher.making", "launcher.wiped"
MAPPER = Path("/dev/mapper/control")
COPY_TIMEOUT = 3600.0
"""Seconds for the copying or wiping of one volume."""


@dataclass(frozen=True)
class Logical:
    """What LVM says of one of ours. `size` in bytes."""

    name: str
    size: int
    tags: Mapping[str, str]


class LvmVolumes:
    """The contract of `driver.py`. `gib_mb` is how many MiB are a GB: 1024, and less in tests."""

    def __init__(self, group: str, *, pool: str = "", sources: Sequence[Path], work: Path, gib_mb: int = 1024) -> None:
        self.group, self.pool, self.sources, self.work, self.gib_mb = group, pool, sources, work, gib_mb
        self.lock = asyncio.Lock()

    async def start(self) -> None:
        """LVM without a kernel that maps devices answers listings and fails at the first volume: better said now."""
        if not await in_thread(MAPPER.exists):
            raise HostResourceMissing(
                '[volumes] driver = "lvm": this kernel has no device mapper (/dev/mapper/control is missing)',
                hint='load dm_mod, or use driver = "local"',
            )
        try:
            await self._report("vgs", "vg_name", self.group)
        except ProgramFailed as error:
            raise HostResourceMissing(
                f"[volumes] group: {error.message}", hint=f"vgcreate {self.group} DEVICE"
            ) from error
        await in_thread(self.work.mkdir, mode=0o700, parents=True, exist_ok=True)
        for logical in await self._list():
            if MAKING in logical.tags:
                await self._lvm("lvremove", "-y", f"{self.group}/{logical.name}")

    async def create(self, ref: VolumeRef, size_gb: int, *, image: Image | None = None) -> None:
        if await self._is_whole(ref):
            return
        await self._make(ref, size_gb)
        if image is not None:
            await self._fill(ref, image)
        await self._finish(ref)

    async def copy(self, source: VolumeRef, ref: VolumeRef, size_gb: int) -> None:
        """Thin ones share their blocks. A source that is written to meanwhile gives the blocks of different moments."""
        if await self._is_whole(ref):
            return
        original = await self.find(source)
        if self.pool:
            await self._clear(ref)
            words = ("-s", "-k", "n", "-n", _name(ref), "--addtag", f"{MAKING}={ref.volume_id}")
            await self._lvm("lvcreate", "-y", *words, self._full(source), making=ref)
            await self._grow(ref, size_gb)
        else:
            await self._make(ref, size_gb)
            ends = (f"if={original.path}", f"of={self._path(ref)}")
            await process.run(["dd", *ends, "bs=4M", "conv=fsync", "status=none"], timeout=COPY_TIMEOUT)
        await self._finish(ref)

    async def extend(self, ref: VolumeRef, size_gb: int, *, in_use: bool) -> None:
        """What is added is wiped while a machine that has it still sees the old end."""
        await self.find(ref)
        before = await self._get(ref)
        if not self.pool and before.size < self._bytes(size_gb) and WIPED not in before.tags:
            await self._lvm("lvchange", "--addtag", f"{WIPED}={before.size}", self._full(ref))
        await self._grow(ref, size_gb)
        after = await self._get(ref)
        if WIPED in after.tags:
            await self._wipe(ref, int(after.tags[WIPED]))
            await self._lvm("lvchange", "--deltag", f"{WIPED}={after.tags[WIPED]}", self._full(ref))

    async def delete(self, ref: VolumeRef) -> None:
        found = await self._find(ref)
        if found is not None and ref.volume_id in (found.tags.get(WHOLE), found.tags.get(MAKING)):
            with failpoint("volume.trash"):
                await self._lvm("lvremove", "-y", self._full(ref))

    async def find(self, ref: VolumeRef) -> Storage:
        if not await self._is_whole(ref):
            raise NotFound(f"{ref.name}: there is no such volume in the group {self.group}")
        return Storage(path=self._path(ref), format=ImageFormat.RAW, block=True)

    async def list_volumes(self) -> Sequence[VolumeRef]:
        found = []
        for logical in await self._list():
            kind, _, digits = logical.name.partition("-")
            with contextlib.suppress(ValueError):
                snapshot, volume_id = kind == SNAPSHOT, logical.tags.get(WHOLE, "")
                ref = VolumeRef(volume_id=volume_id, number=int(digits, 16), snapshot=snapshot)
                if _name(ref) == logical.name:
                    found.append(ref)
        return sorted(found, key=lambda ref: ref.number)

    async def free_mb(self) -> int:
        if self.pool:
            (row,) = await self._report("lvs", "lv_size,data_percent", f"{self.group}/{self.pool}")
            return int(float(row["lv_size"]) * (100 - float(row["data_percent"] or 0)) / 100) // 2**20
        (row,) = await self._report("vgs", "vg_free", self.group)
        return int(row["vg_free"]) // 2**20

    # --- how -----------------------------------------------------------------------------------------

    async def _make(self, ref: VolumeRef, size_gb: int) -> None:
        """Its blocks, and in them zeros; not yet whole. What an attempt that was cut off left is made anew."""
        await self._clear(ref)
        size = f"{size_gb * self.gib_mb}m"
        where = ("-V", size, "--thinpool", self.pool) if self.pool else ("-L", size, "-W", "n")
        words = (*where, "-n", _name(ref), "--addtag", f"{MAKING}={ref.volume_id}", self.group)
        await self._lvm("lvcreate", "-y", *words, making=ref)
        if not self.pool:
            await self._wipe(ref, 0)

    async def _clear(self, ref: VolumeRef) -> None:
        found = await self._find(ref)
        if found is not None and found.tags.get(MAKING) != ref.volume_id:
            raise NotFound(
                f"{self._full(ref)} belongs to the volume {found.tags.get(WHOLE)}, not to {ref.volume_id}",
                hint="it is left over from another database: rename it",
            )
        if found is not None:
            await self._lvm("lvremove", "-y", self._full(ref))

    async def _fill(self, ref: VolumeRef, image: Image) -> None:
        made = Path(await in_thread(tempfile.mkdtemp, dir=self.work))
        try:
            await in_thread(take_in, image, made / "image", self.sources)
            words = ("-q", "-n", "-f", image.format, "-O", "raw", made / "image", self._path(ref))
            await process.run(["qemu-img", "convert", *words], timeout=COPY_TIMEOUT)
        finally:
            await in_thread(shutil.rmtree, made, ignore_errors=True)

    async def _finish(self, ref: VolumeRef) -> None:
        """One change of LVM's own records makes it whole."""
        await process.run(["blockdev", "--flushbufs", self._path(ref)])
        tags = ("--deltag", f"{MAKING}={ref.volume_id}", "--addtag", f"{WHOLE}={ref.volume_id}")
        with failpoint("volume.file"):
            await self._lvm("lvchange", *tags, self._full(ref))

    async def _grow(self, ref: VolumeRef, size_gb: int) -> None:
        if (await self._get(ref)).size < self._bytes(size_gb):
            await self._lvm("lvextend", "-L", f"{size_gb * self.gib_mb}m", self._full(ref), making=ref)

    async def _wipe(self, ref: VolumeRef, start: int) -> None:
        await process.run(["blkdiscard", "-z", "-f", "-o", str(start), self._path(ref)], timeout=COPY_TIMEOUT)

    async def _is_whole(self, ref: VolumeRef) -> bool:
        found = await self._find(ref)
        return found is not None and found.tags.get(WHOLE) == ref.volume_id

    async def _get(self, ref: VolumeRef) -> Logical:
        found = await self._find(ref)
        if found is None:
            raise NotFound(f"{ref.name}: there is no such volume in the group {self.group}")
        return found

    async def _find(self, ref: VolumeRef) -> Logical | None:
        return next((each for each in await self._list() if each.name == _name(ref)), None)

    async def _list(self) -> list[Logical]:
        """Those with a tag of ours."""
        rows = await self._report("lvs", "lv_name,lv_size,lv_tags", self.group)
        found = [Logical(row["lv_name"], int(row["lv_size"]), _tags(row["lv_tags"])) for row in rows]
        return [logical for logical in found if WHOLE in logical.tags or MAKING in logical.tags]

    async def _report(self, program: str, fields: str, what: str) -> list[dict[str, Any]]:
        words = ("--reportformat", "json", "--units", "b", "--nosuffix", "-o", fields, what)
        said = json.loads(await process.run([program, *words]))
        rows: list[dict[str, Any]] = next(iter(said["report"][0].values()))
        return rows

    async def _lvm(self, program: str, *words: str, making: VolumeRef | None = None) -> None:
        """One at a time: LVM locks the group anyway. `making` is what there may be no room for."""
        try:
            async with self.lock:
                await process.run([program, *words], timeout=120)
        except ProgramFailed as error:
            if making is not None and "insufficient free" in error.message.lower():
                free = await self.free_mb()
                raise InsufficientSpace(
                    f"{making.name}: {free} MiB are free in the group {self.group}",
                    hint="delete volumes, or vgextend it",
                ) from error
            raise VolumeFailed(error.message) from error

    def _path(self, ref: VolumeRef) -> Path:
        return Path("/dev") / self.group / _name(ref)

    def _full(self, ref: VolumeRef) -> str:
        return f"{self.group}/{_name(ref)}"

    def _bytes(self, size_gb: int) -> int:
        return size_gb * self.gib_mb * 2**20


def _name(ref: VolumeRef) -> str:
    return f"{SNAPSHOT if ref.snapshot else 'volume'}-{ref.number:08x}"


def _tags(text: str) -> dict[str, str]:
    pairs = (tag.partition("=") for tag in text.split(",") if tag.startswith("launcher."))
    return {name: value for name, _, value in pairs}
