"""Volumes without space: what does not fit is told by its name, leaves nothing, and is made when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.drivers.images import library
from launcher.drivers.volumes.local import LocalVolumes
from launcher.errors import InsufficientSpace, LauncherError
from launcher.models import ImageFormat
from tests.contract.test_volume_driver import ref
from tests.small_volume import small_volume

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

MIB = 2**20


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with small_volume(tmp_path / "volumes", 5) as path:
        yield path


@pytest.mark.parametrize("format", ImageFormat)
@pytest.mark.parametrize("made_of", ["image", "snapshot"])
async def test_a_volume_that_does_not_fit_leaves_nothing(
    place: Path, tmp_path: Path, format: ImageFormat, made_of: str
) -> None:
    """Somebody else has filled the place since the look at its free space."""
    source = tmp_path / "source"
    source.write_bytes(b"\1" * 4 * MIB)
    library.add_image(tmp_path / "library", "four", disk=source)
    (image,) = library.read_image(tmp_path / "library", "four")
    driver = LocalVolumes(place, sources=[tmp_path / "library"], format=format, reserve_mb=-100)
    await driver.start()
    if made_of == "snapshot":
        subprocess.run(["mount", "-o", "remount,size=16m", place], check=True)
        await driver.create(ref(), 1, image=image)
        subprocess.run(["mount", "-o", "remount,size=6m", place], check=True)

    async def make() -> None:
        await (driver.create(ref(2), 1, image=image) if made_of == "image" else driver.copy(ref(), ref(2), 1))

    before = set(place.rglob("*"))
    for _ in range(2):
        with pytest.raises((OSError, InsufficientSpace)) as failure:
            await make()
        assert isinstance(failure.value, Exception)
        assert isinstance(LauncherError.named(failure.value), InsufficientSpace)
        assert set(place.rglob("*")) == before
    subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
    await make()
    assert (await driver.find(ref(2))).format is format
