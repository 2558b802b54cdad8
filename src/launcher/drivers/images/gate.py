"""The gate: what an image's bytes are, found out by reading them, before any program is let near.

A file passes as exactly one format, the one it is declared to be, and only raw and qcow2 pass. A qcow2 file must keep
all that it says to itself: no backing file, no data file, no snapshot of its own, no encryption, tables inside the file
and no bigger than its disk needs. Everything here reads a bounded number of bytes and runs no program.

Signatures: the formats' own documents (qcow2, QED: QEMU's docs/interop; VMDK: Virtual Disk Format 5.0; VHD and VHDX:
Microsoft's specifications; ISO: ECMA-119). Attacks that it answers: CVE-2013-2096, 2015-5162, 2015-5163, 2022-47951,
2024-32498, 2024-40767.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from launcher.drivers.images import qcow2
from launcher.errors import BadImage
from launcher.models import ImageFormat, ImageKind

_HEAD, _TAIL = 64 * 1024, 1024
_SIGNATURES: dict[str, tuple[tuple[int, bytes], ...]] = {
    "qcow2": ((0, qcow2.MAGIC),),
    "qed": ((0, b"QED\0"),),
    "vmdk": ((0, b"KDMV"), (0, b"COWD"), (0, b"# Disk DescriptorFile")),
    "vhd": ((0, b"conectix"),),
    "vhdx": ((0, b"vhdxfile"),),
    "vdi": ((0x40, b"\x7f\x10\xda\xbe"),),
    "parallels": ((0, b"WithoutFreeSpace"), (0, b"WithouFreSpacExt")),
    "luks": ((0, b"LUKS\xba\xbe"), (0, b"SKUL\xba\xbe")),
    "bochs": ((0, b"Bochs Virtual HD Image"),),
    "iso": ((0x8001, b"CD001"),),
}
_FOOTERS = {"vhd": (512, b"conectix"), "dmg": (512, b"koly")}
"""How far from the end, and what stands there."""
_PACKED = {
    "gzip": b"\x1f\x8b",
    "xz": b"\xfd7zXZ\0",
    "bzip2": b"BZh",
    "zstd": b"\x28\xb5\x2f\xfd",
    "lz4": b"\x04\x22\x4d\x18",
    "zip": b"PK\x03\x04",
}
_KNOWN_FEATURES = qcow2.DIRTY | qcow2.CORRUPT | qcow2.EXTERNAL_DATA | qcow2.COMPRESSION | qcow2.EXTENDED_L2
_CLUSTER_BITS, _REFCOUNT_ORDER = (9, 21), 6
_LONGEST_TABLE = 32 * 2**20  # QEMU's own limit for the table of a disk
_LARGEST_DISK = 64 * 2**40
_ANEW = "qemu-img convert makes it anew"


@dataclass(frozen=True)
class Passed:
    """What a file was found to be. Sizes in bytes; `virtual_size` is what a guest would see."""

    format: ImageFormat
    size: int
    virtual_size: int


def inspect(
    path: Path, kind: ImageKind = ImageKind.MACHINE, *, declared: ImageFormat | None = None, name: str = ""
) -> Passed:
    """What the file is. Raises BadImage for all that does not pass, with the reason and what to do.

    A kernel and a ramdisk pass as raw only, and may be packed. `declared` is what somebody called the file,
    `name` is what complaints call it.
    """
    name = name or path.name
    with _open(path, name) as file:
        size = os.fstat(file.fileno()).st_size
        packed = _packed(file) if kind is ImageKind.MACHINE else None
        if packed:
            raise BadImage(f"{name} is packed with {packed}", hint="unpack it first")
        found = _formats(file, size)
        if len(found) > 1 and found != {"qcow2"}:
            raise BadImage(f"{name} passes for {' and for '.join(sorted(found))}")
        other = next(iter(found - {"qcow2"}), None)
        if other not in (None, "iso"):  # a disk that is a bootable CD as well is a disk: hybrid images are
            raise BadImage(f"{name} is a {other} image", hint=f"qemu-img convert -f {other} -O qcow2 …")
        passed = _passed_qcow2(path, name, size) if "qcow2" in found else Passed(ImageFormat.RAW, size, size)
    wanted = declared if kind is ImageKind.MACHINE else ImageFormat.RAW
    if wanted not in (None, passed.format):
        raise BadImage(f"{name} is registered as {wanted}, but is {passed.format}", hint="say what it is")
    return passed


def _open(path: Path, name: str) -> BinaryIO:
    """A regular file, not what a link leads to."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except OSError as error:
        raise BadImage(f"{name} cannot be read: {error.strerror}") from None
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        file.close()
        raise BadImage(f"{name} is {'empty' if stat.S_ISREG(status.st_mode) else 'no regular file'}")
    return file


def _formats(file: BinaryIO, size: int) -> set[str]:
    """All disk formats that the file could be taken for; none is raw."""
    head, tail = _read(file, 0, _HEAD), _read(file, max(0, size - _TAIL), _TAIL)
    found = {name for name, places in _SIGNATURES.items() if any(head.startswith(magic, at) for at, magic in places)}
    return found | {
        name for name, (distance, magic) in _FOOTERS.items() if size >= distance and tail[-distance:].startswith(magic)
    }


def _packed(file: BinaryIO) -> str | None:
    head = _read(file, 0, 8)
    return next((name for name, magic in _PACKED.items() if head.startswith(magic)), None)


def _passed_qcow2(path: Path, name: str, size: int) -> Passed:
    header = qcow2.read_header(path)
    for complaint, hint in _complaints(header, size):
        raise BadImage(f"{name} {complaint}", hint=hint)
    return Passed(ImageFormat.QCOW2, size, header.virtual_size)


def _complaints(header: qcow2.Header, size: int) -> Iterator[tuple[str, str]]:
    """What leads out of the file, or would keep a program busy; and what to do about it."""
    features, flatten = header.incompatible_features, "flatten it: qemu-img convert"
    elsewhere = features & qcow2.EXTERNAL_DATA or qcow2.DATA_FILE_NAME in header.extensions
    encrypted = header.encryption or qcow2.FULL_DISK_ENCRYPTION in header.extensions
    odd = not _CLUSTER_BITS[0] <= header.cluster_bits <= _CLUSTER_BITS[1] or header.refcount_order > _REFCOUNT_ORDER
    table = (
        (header.backing_file is not None, f"has the backing file {header.backing_file!r}", flatten),
        (elsewhere, "keeps its data in another file", flatten),
        (features & (qcow2.DIRTY | qcow2.CORRUPT), "was not closed properly", "repair it: qemu-img check -r all"),
        (features & ~_KNOWN_FEATURES, f"has unknown qcow2 features {features:#x}", _ANEW),
        (encrypted, "is encrypted", "decrypt it: qemu-img convert"),
        (header.snapshots, f"has {header.snapshots} snapshots inside", "qemu-img convert leaves them out"),
        (odd, f"has clusters of 2^{header.cluster_bits} bytes and counts of 2^{header.refcount_order} bits", _ANEW),
        (not odd and not _tables_fit(header, size), "has tables that its size does not explain", _ANEW),
    )
    return ((what, hint) for is_so, what, hint in table if is_so)


def _tables_fit(header: qcow2.Header, size: int) -> bool:
    """Both tables lie inside the file, and the one of the disk is long enough for it."""
    cluster, entry = 1 << header.cluster_bits, 16 if header.incompatible_features & qcow2.EXTENDED_L2 else 8
    needed = -(-header.virtual_size // (cluster * (cluster // entry)))
    places = (
        (header.l1_offset, header.l1_entries * 8),
        (header.refcount_offset, header.refcount_clusters * cluster),
    )
    return (
        header.virtual_size <= _LARGEST_DISK
        and needed <= header.l1_entries
        and all(offset % cluster == 0 and length <= _LONGEST_TABLE for offset, length in places)
        and all(cluster <= offset and offset + length <= size for offset, length in places if length)
    )


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
