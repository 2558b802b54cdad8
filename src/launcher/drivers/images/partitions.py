"""Where a disk's partitions lie: the tables of MBR and GPT, read from their first bytes; nothing in them is trusted.

Sources: UEFI specification, chapter 5; the MBR's four primary entries (a disk with logical ones is not a cloud image).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from launcher.errors import InjectionFailed

SECTOR = 512
MOST_ENTRIES = 128

_MBR_ENTRY = struct.Struct("<B3xB3xII")  # flag, type, first sector, how many
_GPT_HEADER = struct.Struct("<8s64xQII")  # signature, where the entries are, how many, how long each is
_GPT_ENTRY = struct.Struct("<16s16sQQ")  # type, own id, first and last sector
_PROTECTIVE, _EXTENDED = 0xEE, (0x05, 0x0F, 0x85)


class Partition(NamedTuple):
    """Counted from 1, as in the table; bytes from the disk's start."""

    number: int
    offset: int
    size: int


def find_partition(disk: Path, number: int) -> Partition:
    """Raises InjectionFailed when it is not there."""
    found = list_partitions(disk)
    for partition in found:
        if partition.number == number:
            return partition
    there = ", ".join(str(partition.number) for partition in found) or "none"
    raise InjectionFailed(f"the disk has no partition {number}, but {there}", hint="see [images] inject_partition")


def list_partitions(disk: Path) -> list[Partition]:
    """Those that lie in the disk, in the order of their numbers; empty when there is no table."""
    with disk.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        first = _read(file, 0, SECTOR)
        if len(first) < SECTOR or first[510:] != b"\x55\xaa":
            return []
        entries = [_MBR_ENTRY.unpack_from(first, 446 + 16 * index) for index in range(4)]
        if any(kind == _PROTECTIVE for _, kind, *_ in entries):
            found = _gpt(file)
        else:
            found = [
                Partition(index, start * SECTOR, count * SECTOR)
                for index, (_, kind, start, count) in enumerate(entries, start=1)
                if kind and kind not in _EXTENDED
            ]
    return [part for part in found if part.offset > 0 and part.size > 0 and part.offset + part.size <= end]


def _gpt(file: BinaryIO) -> list[Partition]:
    header = _read(file, SECTOR, SECTOR)
    if len(header) < SECTOR:
        return []
    signature, at, count, length = _GPT_HEADER.unpack_from(header)
    if signature != b"EFI PART" or not _GPT_ENTRY.size <= length <= 4096 or at > 2**40:
        return []
    found = []
    for index in range(min(count, MOST_ENTRIES)):
        entry = _read(file, at * SECTOR + index * length, _GPT_ENTRY.size)
        if len(entry) == _GPT_ENTRY.size and any(entry[:16]):
            _, _, first, last = _GPT_ENTRY.unpack(entry)
            found.append(Partition(index + 1, first * SECTOR, (last - first + 1) * SECTOR))
    return found


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)
