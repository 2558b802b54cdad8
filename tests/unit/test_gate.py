"""Images that were made to get something past us, and images that people really have."""

from __future__ import annotations

import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.drivers import process
from launcher.drivers.images import gate
from launcher.errors import BadImage
from launcher.models import ImageFormat, ImageKind

MIB, GIB = 2**20, 2**30
Make = Callable[[Path], Awaitable[None]]


async def qemu_img(*words: str | Path) -> None:
    await process.run(["qemu-img", *words])


def of_qemu(kind: str, *options: str, size: str = "1M") -> Make:
    async def make(path: Path) -> None:
        given = ("-o", ",".join(options)) if options else ()
        await qemu_img("create", "-q", "-f", kind, *given, path, size)

    return make


def patched(offset: int, packed: bytes, *options: str) -> Make:
    """A good qcow2 image, changed in one place."""

    async def make(path: Path) -> None:
        await of_qemu("qcow2", *options)(path)
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(packed)

    return make


def bytes_of(content: bytes, size: int = MIB) -> Make:
    async def make(path: Path) -> None:
        path.write_bytes(content.ljust(size, b"\0"))

    return make


def at_the_end(content: bytes) -> Make:
    async def make(path: Path) -> None:
        path.write_bytes(bytes(MIB - 512) + content.ljust(512, b"\0"))

    return make


async def leaning(path: Path) -> None:
    await qemu_img("create", "-q", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw", "-u", path, "1M")


async def leaning_on_json(path: Path) -> None:
    name = 'json:{"driver":"file","filename":"/etc/hostname"}'
    await qemu_img("create", "-q", "-f", "qcow2", "-b", name, "-F", "raw", "-u", path, "1M")


async def leaning_on_the_network(path: Path) -> None:
    await qemu_img("create", "-q", "-f", "qcow2", "-b", "nbd://127.0.0.1:1/x", "-F", "raw", "-u", path, "1M")


async def divided(path: Path) -> None:
    await of_qemu("qcow2", f"data_file={path.with_name('data')}")(path)


async def divided_without_the_bit(path: Path) -> None:
    """CVE-2024-32498's feature bit taken away, the name left."""
    await divided(path)
    with path.open("r+b") as file:
        file.seek(72)
        file.write(bytes(8))


async def with_a_snapshot(path: Path) -> None:
    await of_qemu("qcow2")(path)
    await qemu_img("snapshot", "-c", "inside", path)


async def flat_vmdk(path: Path) -> None:
    """CVE-2022-47951: the descriptor names a file of the host."""
    text = '# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "/etc/shadow" 0\n'
    path.write_text(text)


async def cut_off(path: Path) -> None:
    await of_qemu("qcow2", size="10G")(path)
    os.truncate(path, 100_000)


async def polyglot(path: Path) -> None:
    await of_qemu("qcow2")(path)
    with path.open("r+b") as file:
        file.seek(0x8001)
        file.write(b"CD001")


async def a_link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


async def a_pipe(path: Path) -> None:
    os.mkfifo(path)


BAD: dict[str, tuple[Make, str]] = {
    "backing file": (leaning, "has the backing file '/etc/hostname'"),
    "backing file by json:": (leaning_on_json, "has the backing file 'json:"),
    "backing file by network": (leaning_on_the_network, "has the backing file 'nbd:"),
    "data file": (divided, "keeps its data in another file"),
    "data file, bit cleared": (divided_without_the_bit, "keeps its data in another file"),
    "internal snapshot": (with_a_snapshot, "has 1 snapshots inside"),
    "encrypted": (patched(32, struct.pack(">I", 1)), "is encrypted"),
    "luks inside": (patched(112, struct.pack(">IIQQII", 0x0537BE77, 16, 0, 0, 0, 0)), "is encrypted"),
    "unknown feature": (patched(72, struct.pack(">Q", 1 << 20)), "unknown qcow2 features 0x100000"),
    "dirty": (patched(72, struct.pack(">Q", 1)), "not closed properly"),
    "corrupt": (patched(72, struct.pack(">Q", 2)), "not closed properly"),
    "huge L1 table": (patched(36, struct.pack(">I", 0xFFFFFFFF)), "tables that its size does not explain"),
    "L1 table outside": (patched(40, struct.pack(">Q", 1 << 50)), "tables that its size does not explain"),
    "L1 table over the header": (patched(40, struct.pack(">Q", 0)), "tables that its size does not explain"),
    "short L1 table": (patched(24, struct.pack(">Q", 1 << 40)), "tables that its size does not explain"),
    "disk of an exbibyte": (patched(24, struct.pack(">Q", 1 << 60)), "tables that its size does not explain"),
    "refcounts outside": (patched(48, struct.pack(">Q", 1 << 40)), "tables that its size does not explain"),
    "odd clusters": (patched(20, struct.pack(">I", 63)), "clusters of 2^63 bytes"),
    "odd counts": (patched(96, struct.pack(">I", 31)), "counts of 2^31 bits"),
    "cut off": (cut_off, "tables that its size does not explain"),
    "qcow version 1": (of_qemu("qcow"), "version 1 is unknown"),
    "qed": (of_qemu("qed"), "is a qed image"),
    "vmdk": (of_qemu("vmdk"), "is a vmdk image"),
    "flat vmdk": (flat_vmdk, "is a vmdk image"),
    "vhd": (of_qemu("vpc"), "is a vhd image"),
    "fixed vhd": (at_the_end(b"conectix"), "is a vhd image"),
    "vhdx": (of_qemu("vhdx"), "is a vhdx image"),
    "vdi": (of_qemu("vdi"), "is a vdi image"),
    "parallels": (of_qemu("parallels"), "is a parallels image"),
    "luks": (bytes_of(b"LUKS\xba\xbe"), "is a luks image"),
    "dmg": (at_the_end(b"koly"), "is a dmg image"),
    "gzip": (bytes_of(b"\x1f\x8b\x08"), "is packed with gzip"),
    "xz": (bytes_of(b"\xfd7zXZ\0"), "is packed with xz"),
    "qcow2 and a CD": (polyglot, "passes for iso and for qcow2"),
    "nothing": (bytes_of(b"", 0), "is empty"),
    "a link": (a_link, "cannot be read"),
    "a pipe": (a_pipe, "is no regular file"),
}


@pytest.mark.parametrize("what", BAD)
async def test_it_does_not_pass(tmp_path: Path, what: str) -> None:
    make, complaint = BAD[what]
    path = tmp_path / "image"
    await make(path)
    with pytest.raises(BadImage) as refused:
        gate.inspect(path)
    assert complaint in refused.value.message


GOOD: dict[str, tuple[Make, ImageFormat, int]] = {
    "qcow2": (of_qemu("qcow2", size="3G"), ImageFormat.QCOW2, 3 * GIB),
    "qcow2 version 2": (of_qemu("qcow2", "compat=0.10", size="3G"), ImageFormat.QCOW2, 3 * GIB),
    "small clusters": (of_qemu("qcow2", "cluster_size=4k", size="3G"), ImageFormat.QCOW2, 3 * GIB),
    "large clusters": (of_qemu("qcow2", "cluster_size=2M", size="1T"), ImageFormat.QCOW2, 1 << 40),
    "extended L2": (of_qemu("qcow2", "extended_l2=on", "cluster_size=64k"), ImageFormat.QCOW2, MIB),
    "zstd": (of_qemu("qcow2", "compression_type=zstd"), ImageFormat.QCOW2, MIB),
    "preallocated": (of_qemu("qcow2", "preallocation=metadata", size="1G"), ImageFormat.QCOW2, GIB),
    "raw": (of_qemu("raw"), ImageFormat.RAW, MIB),
    "partitioned": (bytes_of(bytes(510) + b"\x55\xaa"), ImageFormat.RAW, MIB),
    "hybrid CD": (bytes_of(bytes(0x8001) + b"CD001"), ImageFormat.RAW, MIB),
}


@pytest.mark.parametrize("what", GOOD)
async def test_it_passes(tmp_path: Path, what: str) -> None:
    make, wanted, virtual_size = GOOD[what]
    path = tmp_path / "image"
    await make(path)
    found = gate.inspect(path)
    assert (found.format, found.virtual_size) == (wanted, virtual_size)
    assert gate.inspect(path, declared=wanted) == found
    other = ImageFormat.RAW if wanted is ImageFormat.QCOW2 else ImageFormat.QCOW2
    with pytest.raises(BadImage, match=f"is registered as {other}, but is {wanted}"):
        gate.inspect(path, declared=other)


async def test_an_image_that_was_grown_and_shrunk_passes(tmp_path: Path) -> None:
    path = tmp_path / "image"
    await of_qemu("qcow2", size="1G")(path)
    await qemu_img("resize", "-q", "-f", "qcow2", path, "600G")
    await qemu_img("resize", "-q", "-f", "qcow2", "--shrink", path, "1G")
    assert gate.inspect(path).virtual_size == GIB


async def test_a_kernel_and_a_ramdisk_may_be_packed_and_are_no_disks(tmp_path: Path) -> None:
    path = tmp_path / "image"
    await bytes_of(b"\x1f\x8b\x08")(path)
    for kind in (ImageKind.KERNEL, ImageKind.RAMDISK):
        assert gate.inspect(path, kind).format is ImageFormat.RAW
    await of_qemu("qcow2")(path)
    with pytest.raises(BadImage, match="registered as raw, but is qcow2"):
        gate.inspect(path, ImageKind.KERNEL)


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 511), value=st.binary(min_size=1, max_size=16))
def test_whatever_a_header_says_the_answer_is_passed_or_refused(
    place: int, value: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "patched"
    content = bytearray(_HEADER.ljust(4 * 65536, b"\0"))
    content[place : place + len(value)] = value
    path.write_bytes(content)
    try:
        found = gate.inspect(path)
    except BadImage:
        return
    assert found.virtual_size <= 64 << 40


_HEADER = (
    b"QFI\xfb" + struct.pack(">IQIIQIIQQIIQ", 3, 0, 0, 16, GIB, 0, 2, 3 << 16, 1 << 16, 1, 0, 0)
    + struct.pack(">QQQIIQ", 0, 0, 0, 4, 104, 0)
)  # fmt: skip
