"""The overlays written in this process are what QEMU's own tools take them for."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from launcher.drivers import process
from launcher.drivers.images import qcow2
from launcher.errors import BadImage
from launcher.models import ImageFormat

MIB, GIB = 2**20, 2**30


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.write_bytes(b"guest data".ljust(MIB, b"\1"))
    return path


async def image_info(path: Path) -> dict[str, object]:
    said = await process.run(["qemu-img", "info", "-f", "qcow2", "--output=json", path])
    found: dict[str, object] = json.loads(said)
    return found


@pytest.mark.parametrize("size", [MIB, 512 * MIB, 512 * MIB + 512, 10 * GIB, 16 * 1024 * GIB])
async def test_qemu_finds_no_fault_in_an_overlay_of_any_size(tmp_path: Path, backing: Path, size: int) -> None:
    overlay = tmp_path / "overlay"
    qcow2.write_overlay(overlay, backing=backing, backing_format=ImageFormat.RAW, size=size)
    await process.run(["qemu-img", "check", "-f", "qcow2", overlay])
    found = await image_info(overlay)
    assert found["virtual-size"] == size
    assert found["backing-filename"] == str(backing)
    assert found["backing-filename-format"] == "raw"


async def test_an_overlay_reads_as_its_backing_file(tmp_path: Path, backing: Path) -> None:
    overlay = tmp_path / "overlay"
    qcow2.write_overlay(overlay, backing=backing, backing_format=ImageFormat.RAW, size=MIB)
    await process.run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", overlay, backing])


async def test_what_is_written_stays_in_the_overlay(tmp_path: Path, backing: Path) -> None:
    overlay, before = tmp_path / "overlay", backing.read_bytes()
    qcow2.write_overlay(overlay, backing=backing, backing_format=ImageFormat.RAW, size=10 * GIB)
    for place in ("0", "5G"):
        await process.run(["qemu-io", "-f", "qcow2", "-c", f"write -P 7 {place} 64k", overlay])
    await process.run(["qemu-img", "check", "-f", "qcow2", overlay])
    assert backing.read_bytes() == before


async def test_an_overlay_on_an_overlay(tmp_path: Path, backing: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    qcow2.write_overlay(first, backing=backing, backing_format=ImageFormat.RAW, size=MIB)
    qcow2.write_overlay(second, backing=first, backing_format=ImageFormat.QCOW2, size=MIB)
    assert (await image_info(second))["backing-filename-format"] == "qcow2"
    await process.run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", second, backing])


def test_a_size_is_rounded_up_to_a_sector(tmp_path: Path, backing: Path) -> None:
    qcow2.write_overlay(tmp_path / "overlay", backing=backing, backing_format=ImageFormat.RAW, size=MIB + 1)
    assert qcow2.read_header(tmp_path / "overlay").virtual_size == MIB + 512


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path, backing: Path) -> None:
    overlay = tmp_path / "overlay"
    overlay.symlink_to(backing)
    with pytest.raises(FileExistsError):
        qcow2.write_overlay(overlay, backing=backing, backing_format=ImageFormat.RAW, size=MIB)


def test_a_name_too_long_for_the_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="1023"):
        qcow2.write_overlay(tmp_path / "o", backing=Path("/" + "a" * 1023), backing_format=ImageFormat.RAW, size=MIB)


def test_a_short_file_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(qcow2.MAGIC)
    with pytest.raises(BadImage, match="not a qcow2"):
        qcow2.read_header(tmp_path / "short")


@pytest.mark.parametrize(
    ("offset", "packed", "complaint"),
    [
        (0, b"QFI\0", "not a qcow2"),
        (4, struct.pack(">I", 9), "version 9"),
        (104, struct.pack(">II", 7, 1 << 31), "no end"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, backing: Path, offset: int, packed: bytes, complaint: str) -> None:
    image = tmp_path / "image"
    qcow2.write_overlay(image, backing=backing, backing_format=ImageFormat.RAW, size=MIB)
    content = bytearray(image.read_bytes())
    content[offset : offset + len(packed)] = packed
    image.write_bytes(content)
    with pytest.raises(BadImage, match=complaint):
        qcow2.read_header(image)
