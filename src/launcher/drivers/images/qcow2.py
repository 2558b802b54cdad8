"""Overlays and headers of qcow2, without a program: 0.03 ms instead of qemu-img's 14 to 21.

Format: QEMU's docs/interop/qcow2.txt, version 3. Numbers are big-endian. An overlay as written here has four
parts: header with the backing file's name, refcount table, one refcount block, empty L1 table.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import BadImage
from launcher.models import ImageFormat

MAGIC = b"QFI\xfb"

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")  # the fields that versions 2 and 3 share: 72 bytes
_HEADER_V3 = struct.Struct(">QQQII")  # feature bits (incompatible, compatible, autoclear), refcount order, length
_HEADER_LENGTH = _HEADER.size + _HEADER_V3.size
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT_NAME = 0xE2792ACA
_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS
_BYTES_PER_L1_ENTRY = _CLUSTER * (_CLUSTER // 8)  # 512 MiB
_SECTOR = 512
_LONGEST_NAME = 1023

DIRTY, CORRUPT, EXTERNAL_DATA, COMPRESSION, EXTENDED_L2 = 1, 2, 4, 8, 16  # incompatible features
DATA_FILE_NAME, FULL_DISK_ENCRYPTION = 0x44415441, 0x0537BE77  # header extensions


@dataclass(frozen=True)
class Header:
    """What a qcow2 file says of itself. Sizes and offsets in bytes, `l1_entries` and `snapshots` are counts."""

    version: int
    virtual_size: int
    backing_file: str | None
    cluster_bits: int
    encryption: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    incompatible_features: int
    refcount_order: int
    extensions: tuple[int, ...]


def write_overlay(path: Path, *, backing: Path, backing_format: ImageFormat, size: int, sync: bool = True) -> None:
    """Create a new overlay of `size` bytes (rounded up to a sector) whose unwritten parts are `backing`'s.

    The backing format is written down, so that nobody ever guesses it from what a guest wrote.
    With `sync` the file and its content reach the disk before this returns. Raises FileExistsError, BadImage.
    """
    content = _overlay(os.fsencode(backing), backing_format.encode(), -(-size // _SECTOR) * _SECTOR)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.write(handle, content)
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)


def _overlay(backing: bytes, backing_format: bytes, size: int) -> bytes:
    """Cluster 0: header; 1: refcount table; 2: refcount block; from 3: the L1 table."""
    extensions = _EXTENSION.pack(_BACKING_FORMAT_NAME, len(backing_format)) + backing_format.ljust(8, b"\0")
    extensions += _EXTENSION.pack(0, 0)
    if not 0 < len(backing) <= _LONGEST_NAME:
        raise BadImage(f"a backing file's name has 1 to {_LONGEST_NAME} bytes, not {len(backing)}")
    l1_entries = max(1, -(-size // _BYTES_PER_L1_ENTRY))
    clusters = 3 + -(-l1_entries * 8 // _CLUSTER)
    header = _HEADER.pack(
        *(MAGIC, 3, _HEADER_LENGTH + len(extensions), len(backing), _CLUSTER_BITS, size, 0),
        *(l1_entries, 3 * _CLUSTER, _CLUSTER, 1, 0, 0),
    )
    header += _HEADER_V3.pack(0, 0, 0, 4, _HEADER_LENGTH)
    parts = (header + extensions + backing, struct.pack(">Q", 2 * _CLUSTER), struct.pack(">H", 1) * clusters)
    return b"".join(part.ljust(_CLUSTER, b"\0") for part in parts).ljust(clusters * _CLUSTER, b"\0")


def read_header(path: Path) -> Header:
    """Raises BadImage when the file has none, or one that is cut off or of an unknown version."""
    with path.open("rb") as file:
        start = file.read(_CLUSTER)
    if len(start) < _HEADER_LENGTH or not start.startswith(MAGIC):
        raise BadImage(f"{path.name} is not a qcow2 file")
    (_, version, name_at, name_length, cluster_bits, virtual_size, encryption, l1_entries, l1_offset,
     refcount_offset, refcount_clusters, snapshots, _) = _HEADER.unpack_from(start)  # fmt: skip
    if version not in (2, 3):
        raise BadImage(f"{path.name}: qcow2 version {version} is unknown; expected 2 or 3")
    features, refcount_order, length = 0, 4, _HEADER.size
    if version > 2:
        features, _, _, refcount_order, length = _HEADER_V3.unpack_from(start, _HEADER.size)
    return Header(
        version=version,
        virtual_size=virtual_size,
        backing_file=start[name_at : name_at + name_length].decode(errors="replace") if name_at else None,
        cluster_bits=cluster_bits,
        encryption=encryption,
        l1_entries=l1_entries,
        l1_offset=l1_offset,
        refcount_offset=refcount_offset,
        refcount_clusters=refcount_clusters,
        snapshots=snapshots,
        incompatible_features=features,
        refcount_order=refcount_order,
        extensions=tuple(_extensions(path, start, length)),
    )


def _extensions(path: Path, start: bytes, at: int) -> Iterator[int]:
    """Their kinds, up to the one that ends them."""
    while at + _EXTENSION.size <= len(start):
        kind, length = _EXTENSION.unpack_from(start, at)
        if kind == 0:
            return
        yield kind
        at += _EXTENSION.size + -(-length // 8) * 8
    raise BadImage(f"{path.name}: its header extensions have no end")
