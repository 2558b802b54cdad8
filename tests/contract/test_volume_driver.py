"""One suite for every storage of volumes: the fake, and files as raw and as qcow2."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.drivers import process
from launcher.drivers.images import library
from launcher.drivers.volumes.driver import Storage, VolumeDriver
from launcher.drivers.volumes.fake import FakeVolumes
from launcher.drivers.volumes.local import LocalVolumes
from launcher.errors import BadImage, InsufficientSpace, NotFound
from launcher.models import Image, ImageFormat
from launcher.volumes import VolumeRef
from tests.orders import instance_id, make_image

GIB = 2**30


def ref(number: int = 1, *, snapshot: bool = False) -> VolumeRef:
    return VolumeRef(volume_id=instance_id(number), number=number, snapshot=snapshot)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "library"


@pytest.fixture
def local(request: pytest.FixtureRequest, tmp_path: Path, images: Path) -> LocalVolumes:
    return LocalVolumes(tmp_path / "volumes", sources=[images], format=request.param, reserve_mb=1)


@pytest.fixture(params=["fake", *ImageFormat])
async def driver(request: pytest.FixtureRequest, tmp_path: Path, images: Path) -> VolumeDriver:
    made: VolumeDriver = FakeVolumes()
    if request.param != "fake":
        made = LocalVolumes(tmp_path / "volumes", sources=[images], format=request.param, reserve_mb=1)
    await made.start()
    return made


async def size_of(found: Storage) -> int:
    """As QEMU sees it; a fake has none."""
    if not found.path.exists():
        return 0
    said: dict[str, Any] = json.loads(
        await process.run(["qemu-img", "info", "-f", found.format, "--output=json", found.path])
    )
    return int(said["virtual-size"])


async def put(driver: VolumeDriver, volume: VolumeRef, text: str, at: int = 0) -> None:
    """What a guest would write."""
    if isinstance(driver, FakeVolumes):
        driver.volumes[volume.volume_id].content = text
        return
    found = await driver.find(volume)
    pattern = f"write -P {ord(text[0])} {at} 64k"
    await process.run(["qemu-io", "-f", found.format, "-c", pattern, found.path])


async def has(driver: VolumeDriver, volume: VolumeRef, text: str, at: int = 0) -> bool:
    """What a guest would read; "" is zeros."""
    if isinstance(driver, FakeVolumes):
        return driver.volumes[volume.volume_id].content == text
    found = await driver.find(volume)
    pattern = f"read -P {ord(text[0]) if text else 0} {at} 64k"
    said = await process.run(["qemu-io", "-f", found.format, "-c", pattern, found.path])
    return "verification failed" not in said


async def test_a_new_volume_has_its_size_and_reads_as_zeros(driver: VolumeDriver) -> None:
    await driver.create(ref(), 2)
    found = await driver.find(ref())
    assert await size_of(found) in (0, 2 * GIB)
    assert await has(driver, ref(), "")
    assert await driver.list_volumes() == [ref()]
    assert await driver.free_mb() > 0


async def test_everything_may_be_done_twice(driver: VolumeDriver) -> None:
    await driver.create(ref(), 1)
    await put(driver, ref(), "a")
    for _ in range(2):
        await driver.create(ref(), 1)
        assert await has(driver, ref(), "a"), "made again, it is what it was"
    for _ in range(2):
        await driver.copy(ref(), ref(2, snapshot=True), 1)
        await driver.extend(ref(), 3, in_use=False)
    assert await size_of(await driver.find(ref())) in (0, 3 * GIB)
    for _ in range(2):
        await driver.delete(ref())
        await driver.delete(ref(2, snapshot=True))
    assert await driver.list_volumes() == []
    with pytest.raises(NotFound, match="volume-00000001"):
        await driver.find(ref())


async def test_a_copy_is_its_own(driver: VolumeDriver) -> None:
    await driver.create(ref(), 1)
    await put(driver, ref(), "a")
    await driver.copy(ref(), ref(2, snapshot=True), 1)
    await put(driver, ref(), "b")
    await driver.copy(ref(2, snapshot=True), ref(3), 2)
    await driver.delete(ref(2, snapshot=True))
    assert await has(driver, ref(3), "a")
    assert await has(driver, ref(), "b")
    assert await size_of(await driver.find(ref(3))) in (0, 2 * GIB)
    with pytest.raises(NotFound):
        await driver.copy(ref(2, snapshot=True), ref(4), 1)
    assert ref(4) not in await driver.list_volumes()


async def test_a_volume_never_shows_what_a_deleted_one_held(driver: VolumeDriver) -> None:
    for number in (1, 2):
        await driver.create(ref(number), 1)
        assert await has(driver, ref(number), "")
        await put(driver, ref(number), "s")
        await driver.delete(ref(number))


def stored(images: Path, content: Path, **changes: Any) -> Image:
    """A machine image of the library."""
    library.add_image(images, "disk", disk=content)
    return library.read_image(images, "disk")[0].model_copy(update=changes)


@pytest.fixture
async def image(tmp_path: Path, images: Path) -> Image:
    """A qcow2 of 3 MiB with something in it."""
    made = tmp_path / "made.qcow2"
    await process.run(["qemu-img", "create", "-q", "-f", "qcow2", made, "3M"])
    await process.run(["qemu-io", "-f", "qcow2", "-c", "write -P 105 0 64k", made])
    return stored(images, made)


def locally(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    marked: Callable[..., Awaitable[None]] = pytest.mark.parametrize("local", list(ImageFormat), indirect=True)(test)
    return marked


@locally
async def test_a_volume_of_an_image_has_its_content_and_its_own_size(local: LocalVolumes, image: Image) -> None:
    await local.start()
    await local.create(ref(), 1, image=image)
    assert await has(local, ref(), "i")
    assert await has(local, ref(), "", at=2**20)
    assert await size_of(await local.find(ref())) == GIB


@locally
async def test_an_image_that_is_not_what_was_registered_is_refused(
    local: LocalVolumes, image: Image, tmp_path: Path
) -> None:
    await local.start()
    outside = tmp_path / "outside"
    outside.write_bytes(b"root:x:0:0")
    for bad in (
        image.model_copy(update={"sha256": "0" * 64}),
        image.model_copy(update={"format": ImageFormat.RAW}),
        make_image(path=outside),
    ):
        with pytest.raises(BadImage):
            await local.create(ref(), 1, image=bad)
    assert await local.list_volumes() == []


@locally
async def test_what_was_cut_off_leaves_nothing_and_what_is_anothers_is_left_alone(
    local: LocalVolumes, tmp_path: Path
) -> None:
    await local.start()
    half = tmp_path / "volumes" / "_work" / "x" / "volume-00000001"
    half.mkdir(parents=True)
    (half / "volume-id").write_text(ref().volume_id)
    await local.start()
    assert not half.exists()
    await local.create(ref(), 1)
    stranger = VolumeRef(volume_id=instance_id(9), number=1)
    for touching in (local.find(stranger), local.create(stranger, 1), local.copy(ref(), stranger, 1)):
        with pytest.raises(NotFound, match="belongs to the volume"):
            await touching
    await local.delete(stranger)
    assert await local.list_volumes() == [ref()]


@locally
async def test_what_does_not_fit_is_refused_with_the_numbers(local: LocalVolumes, image: Image, tmp_path: Path) -> None:
    await local.start()
    local.reserve_mb = 2**40
    with pytest.raises(InsufficientSpace, match="free in"):
        await local.create(ref(), 1, image=image)
    assert list((tmp_path / "volumes").glob("volume-*")) == []
    assert list((tmp_path / "volumes" / "_work").iterdir()) == []
