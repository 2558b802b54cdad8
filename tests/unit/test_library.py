"""The image library: what goes in comes out, and nothing leads out of it."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytest

from launcher.drivers import process
from launcher.drivers.images.library import add_image, find_kernel, list_images, read_image
from launcher.errors import BadImage, NotFound
from launcher.models import ImageFormat, ImageKind

DISK, KERNEL, RAMDISK = b"disk" * 1024, b"kernel" * 1024, b"ramdisk" * 1024


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {"disk": DISK, "kernel": KERNEL, "ramdisk": RAMDISK}
    for name, content in made.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in made}


def add_triple(library: Path, name: str, files: dict[str, Path]) -> Path:
    disk, kernel, ramdisk = files["disk"], files["kernel"], files["ramdisk"]
    return add_image(library, name, disk=disk, kernel=kernel, ramdisk=ramdisk, min_memory_mb=96, kernel_args="quiet")


def test_an_image_of_three_files_comes_out_as_it_went_in(library: Path, files: dict[str, Path]) -> None:
    directory = add_triple(library, "ami-tiny", files)
    machine, kernel, ramdisk = read_image(library, "ami-tiny")
    assert directory == library / "ami-tiny"
    assert [machine.name, kernel.name, ramdisk.name] == ["ami-tiny", "ami-tiny-kernel", "ami-tiny-ramdisk"]
    assert [machine.kind, kernel.kind, ramdisk.kind] == [ImageKind.MACHINE, ImageKind.KERNEL, ImageKind.RAMDISK]
    assert (machine.kernel_id, machine.ramdisk_id) == (kernel.id, ramdisk.id)
    assert (machine.min_memory_mb, machine.kernel_args) == (96, "quiet")
    for image, content in ((machine, DISK), (kernel, KERNEL), (ramdisk, RAMDISK)):
        assert image.path.read_bytes() == content
        assert image.sha256 == hashlib.sha256(content).hexdigest()
        assert (image.format, image.size, image.virtual_size) == (ImageFormat.RAW, len(content), len(content))
    assert find_kernel(library) == kernel.path


def test_the_same_content_has_the_same_ids_in_any_library(tmp_path: Path, files: dict[str, Path]) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    add_triple(here, "ami-tiny", files)
    add_triple(there, "ami-tiny", files)
    assert [image.id for image in read_image(here, "ami-tiny")] == [image.id for image in read_image(there, "ami-tiny")]


def test_other_content_has_other_ids(library: Path, files: dict[str, Path]) -> None:
    add_triple(library, "a", files)
    before = read_image(library, "a")
    files["kernel"].write_bytes(b"another kernel")
    add_triple(library, "a", files)
    after = read_image(library, "a")
    assert after[0].id != before[0].id  # the same disk with another kernel is another machine
    assert after[1].id != before[1].id
    assert after[2].id == before[2].id


def test_a_disk_alone_is_an_image(library: Path, files: dict[str, Path]) -> None:
    add_image(library, "whole", disk=files["disk"])
    (machine,) = read_image(library, "whole")
    assert machine.kernel_id is None
    assert find_kernel(library) is None


async def test_a_qcow2_disk_is_known_by_its_content(library: Path, tmp_path: Path) -> None:
    source = tmp_path / "cloud.img"
    await process.run(["qemu-img", "create", "-q", "-f", "qcow2", source, "2G"])
    add_image(library, "cloud", disk=source)
    (machine,) = read_image(library, "cloud")
    assert (machine.format, machine.virtual_size) == (ImageFormat.QCOW2, 2 << 30)


async def test_a_qcow2_disk_that_leans_on_another_file_is_refused(library: Path, files: dict[str, Path]) -> None:
    source = files["disk"].with_name("leaning")
    await process.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw", "-u", source, "1M"]
    )
    with pytest.raises(BadImage, match="backing file"):
        add_image(library, "leaning", disk=source)
    assert list(library.iterdir()) == []


def test_replacing_an_image_leaves_the_open_one_whole(library: Path, files: dict[str, Path]) -> None:
    add_image(library, "a", disk=files["disk"])
    with (library / "a" / "disk").open("rb") as running:
        files["disk"].write_bytes(b"new")
        add_image(library, "a", disk=files["disk"])
        assert running.read() == DISK
    assert read_image(library, "a")[0].path.read_bytes() == b"new"
    assert [path.name for path in library.iterdir()] == ["a"]


@pytest.mark.parametrize("name", ["../a", "a/b", ".hidden", "", "a\n", "/etc", "-rf"])
def test_a_name_cannot_lead_out_of_the_library(library: Path, files: dict[str, Path], name: str) -> None:
    with pytest.raises(BadImage):
        add_image(library, name, disk=files["disk"])
    with pytest.raises(BadImage):
        read_image(library, name)


def test_a_link_out_of_the_library_is_refused(library: Path, files: dict[str, Path], tmp_path: Path) -> None:
    directory = add_image(library, "a", disk=files["disk"])
    (directory / "disk").unlink()
    (directory / "disk").symlink_to(files["disk"])
    with pytest.raises(BadImage, match="not the file"):
        read_image(library, "a")
    directory.rename(tmp_path / "elsewhere")
    directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadImage, match="leads out"):
        read_image(library, "a")


def test_an_image_that_is_not_there_is_not_found(library: Path) -> None:
    with pytest.raises(NotFound, match="ami-tiny"):
        read_image(library, "ami-tiny")
    assert list_images(library) == []


@pytest.mark.parametrize(
    "change",
    [{"surprise": 1}, {"disk": None}, {"min_memory_mb": "96"}, {"disk": {"format": "vmdk"}}],
    ids=["unknown field", "no disk", "a number as text", "unknown format"],
)
def test_a_description_that_says_something_else_is_refused(
    library: Path, files: dict[str, Path], change: dict[str, object]
) -> None:
    directory = add_image(library, "a", disk=files["disk"])
    path = directory / "image.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BadImage, match=r"image\.json"):
        read_image(library, "a")


def test_a_damaged_image_does_not_hide_the_others(
    library: Path, files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    add_image(library, "a", disk=files["disk"])
    add_image(library, "b", disk=files["disk"])
    (library / "a" / "disk").chmod(0o644)
    (library / "a" / "disk").write_bytes(b"cut")
    with caplog.at_level(logging.WARNING):
        assert [image.name for image in list_images(library)] == ["b"]
    assert "not the file" in caplog.text
