"""An image cache without space: a copy that does not fit leaves nothing, and is made when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.drivers.images.inject.choice import Ways
from launcher.drivers.images.library import sha256_of
from launcher.drivers.images.local import LocalImages
from launcher.drivers.images.store import Injection
from launcher.errors import InsufficientSpace, LauncherError
from launcher.models import LaunchOrder
from tests.orders import make_image, make_order

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

MIB = 2**20


@pytest.fixture
def order(tmp_path: Path) -> LaunchOrder:
    """Of an image of 4 MiB."""
    source = tmp_path / "library" / "image"
    source.parent.mkdir()
    source.write_bytes(b"\1" * 4 * MIB)
    image = make_image(path=source, size=4 * MIB, virtual_size=4 * MIB, sha256=sha256_of(source))
    return make_order(1, image=image)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "instances"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


async def test_a_copy_that_does_not_fit_leaves_nothing_and_is_made_when_there_is_room(
    volume: Path, order: LaunchOrder
) -> None:
    """Somebody else has filled the volume since the look at its free space: nothing is reserved for sure."""
    store = LocalImages(volume, library=order.image.path.parent, ways=Ways([Injection.METADATA]), reserve_mb=-100)
    await store.start()
    for _ in range(2):
        with pytest.raises(OSError, match="No space left") as failure:
            await store.create_disks(order)
        named = LauncherError.named(failure.value)
        assert isinstance(named, InsufficientSpace)
        assert str(volume) in named.message
        assert [path.name for path in volume.rglob("*")] == ["_work", "_base"]
    subprocess.run(["mount", "-o", "remount,size=16m", volume], check=True)
    disks = await store.create_disks(order)
    assert disks.root.exists()
    assert await store.list_bases() == [order.image.sha256]
