"""An image cache without space: a copy that does not fit leaves nothing, and is made when there is room."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from launcher.drivers.images import qcow2
from launcher.drivers.images.config_drive import ConfigDrives, FileSystem
from launcher.drivers.images.inject.choice import Ways
from launcher.drivers.images.library import sha256_of
from launcher.drivers.images.local import LocalImages
from launcher.drivers.images.local_vault import LocalVault
from launcher.drivers.images.store import Injection
from launcher.errors import InsufficientSpace, LauncherError
from launcher.guestdata.guest import Guest
from launcher.images import Ticket
from launcher.models import Flavor, ImageFormat, LaunchOrder
from tests.orders import make_image, make_lease, make_order, make_told
from tests.small_volume import small_volume

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
    with small_volume(tmp_path / "instances", 3) as path:
        yield path


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


async def runs_out(volume: Path, work: Callable[[], Awaitable[object]]) -> None:
    """It fails by name, leaves nothing, and succeeds when there is room."""
    filler = volume / "filler"
    with filler.open("wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(volume).free - 16 * 1024)))
    before = set(volume.rglob("*"))
    for _ in range(2):
        with pytest.raises((OSError, InsufficientSpace)) as failure:
            await work()
        assert isinstance(failure.value, Exception)
        assert isinstance(LauncherError.named(failure.value), InsufficientSpace)
        assert set(volume.rglob("*")) == before
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=32m", volume], check=True)
    await work()


@pytest.mark.parametrize("disk", ["raw", "ephemeral"])
async def test_a_disk_that_does_not_fit_leaves_nothing(volume: Path, order: LaunchOrder, disk: str) -> None:
    subprocess.run(["mount", "-o", "remount,size=7m", volume], check=True)
    flavor = Flavor(name="m1.more", vcpus=1, memory_mb=64, root_gb=0, ephemeral_gb=4 if disk == "ephemeral" else 0)
    store = LocalImages(
        volume,
        library=order.image.path.parent,
        ways=Ways([Injection.METADATA]),
        reserve_mb=-100,
        disk_format=ImageFormat.RAW if disk == "raw" else ImageFormat.QCOW2,
    )
    await store.start()
    async with store.cache.holding(order):
        pass
    await runs_out(volume, lambda: store.create_disks(order.model_copy(update={"flavor": flavor})))


@pytest.mark.parametrize("file_system", list(FileSystem))
async def test_a_config_drive_that_does_not_fit_leaves_nothing(
    volume: Path, order: LaunchOrder, file_system: FileSystem
) -> None:
    subprocess.run(["mount", "-o", "remount,size=7m", volume], check=True)
    wanted = order.model_copy(update={"config_drive": True})
    nics = (make_lease(order),)

    async def tell() -> Guest:
        return Guest(make_told(user_data="AAAA" * 21845), nics)

    store = LocalImages(
        volume,
        library=order.image.path.parent,
        ways=Ways([Injection.METADATA]),
        config_drives=ConfigDrives(file_system=file_system, rng=Random(1)),
        reserve_mb=-100,
    )
    await store.start()
    await store.create_disks(wanted)
    await runs_out(volume, lambda: store.inject(wanted, nics, tell))
    await store.settle(wanted)


@pytest.mark.parametrize("full", ["instances", "vault"])
async def test_an_image_of_an_instance_that_does_not_fit_leaves_nothing(
    volume: Path, order: LaunchOrder, tmp_path: Path, full: str
) -> None:
    """Neither the copy of its disk, nor what of it has reached the vault."""
    subprocess.run(["mount", "-o", "remount,size=9m", volume], check=True)
    homes = {"instances": tmp_path / "instances-too", "vault": tmp_path / "vault"} | {full: volume / full}
    vault = LocalVault(homes["vault"])
    await vault.start()
    store = LocalImages(
        homes["instances"],
        library=order.image.path.parent,
        vault=homes["vault"],
        ways=Ways([Injection.METADATA]),
        reserve_mb=-100,
    )
    await store.start()
    await store.create_disks(order)
    ticket = Ticket(image_id="x", most=2**30, path=vault.arrival("x"))
    await runs_out(volume, lambda: store.save_image(order, ticket, None))
    assert qcow2.read_header(vault.arrival("x")).backing_file is None
    assert not list(homes["instances"].glob("*/image"))
