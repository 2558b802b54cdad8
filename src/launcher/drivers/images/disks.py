"""An instance's disks in the form that `[images] disk_format` says: an overlay on what it starts from, or a raw copy.

The name tells the form (`disk`, `disk.raw`), because what a guest wrote into a raw disk must never be asked. Sizes are
the disk's own: what it starts from is neither grown nor touched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from launcher.drivers import process
from launcher.drivers.images import qcow2
from launcher.drivers.images.files import in_thread
from launcher.drivers.images.space import named_when_full
from launcher.models import ImageFormat

OVERLAY = 256 * 1024
"""Bytes of an empty overlay, a little more for disks of many terabytes."""
_LIMITS = ("prlimit", "--cpu=120", f"--as={2**31}", "--")
"""For qemu-img, which reads what a user made."""
CONVERT_TIMEOUT = 600.0


class NewDisk(NamedTuple):
    """A disk to make: what it starts from, and how many bytes the guest sees. `written` bytes a raw copy occupies."""

    name: str
    base: Path
    base_format: ImageFormat
    size: int
    written: int


def disk_path(directory: Path, name: str) -> tuple[Path, ImageFormat]:
    """Where an instance's disk is, and in which form; the overlay's place when there is none."""
    raw = directory / f"{name}.raw"
    return (raw, ImageFormat.RAW) if raw.exists() else (directory / name, ImageFormat.QCOW2)


def needed(disks: Sequence[NewDisk], format: ImageFormat) -> int:
    """Bytes that making them takes."""
    return sum(OVERLAY if format is ImageFormat.QCOW2 else disk.written for disk in disks)


async def make_disks(directory: Path, disks: Sequence[NewDisk], format: ImageFormat) -> None:
    """Not yet synced. Raises InsufficientSpace, ProgramFailed."""
    if format is ImageFormat.QCOW2:
        await in_thread(_write_overlays, directory, disks)
        return
    for disk in disks:
        await _copy(disk, directory / f"{disk.name}.raw")


def _write_overlays(directory: Path, disks: Sequence[NewDisk]) -> None:
    for disk in disks:
        path = directory / disk.name
        qcow2.write_overlay(path, backing=disk.base, backing_format=disk.base_format, size=disk.size, sync=False)


async def _copy(disk: NewDisk, target: Path) -> None:
    """Holes stay holes, and where the file system can, the copy shares its blocks."""
    copy: dict[ImageFormat, list[str | Path]] = {
        ImageFormat.RAW: ["cp", "--reflink=auto", "--sparse=always", disk.base, target],
        ImageFormat.QCOW2: [*_LIMITS, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk.base, target],
    }
    with named_when_full(target):
        await process.run(copy[disk.base_format], timeout=CONVERT_TIMEOUT)
    await in_thread(_finish, target, disk.size)


async def flatten(disk: Path, format: ImageFormat, target: Path) -> None:
    """All that the disk holds in one qcow2 file. Nobody may write to it meanwhile. Raises InsufficientSpace."""
    with named_when_full(target):
        convert: list[str | Path] = [*_LIMITS, "qemu-img", "convert", "-f", format, "-O", "qcow2", disk, target]
        await process.run(convert, timeout=CONVERT_TIMEOUT)


def _finish(target: Path, size: int) -> None:
    target.chmod(0o600)
    os.truncate(target, size)
