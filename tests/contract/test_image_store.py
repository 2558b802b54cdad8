"""What every image store does; then what only files on a disk can get wrong."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from launcher.drivers import process
from launcher.drivers.images import qcow2
from launcher.drivers.images.fake import FakeImages
from launcher.drivers.images.inject.choice import Ways, make_ways
from launcher.drivers.images.inject.injector import Payload
from launcher.drivers.images.library import add_image, read_image
from launcher.drivers.images.local import LocalImages
from launcher.drivers.images.space import Space
from launcher.drivers.images.store import ImageStore, Injected, Injection
from launcher.errors import BadImage, DriverError, HostResourceMissing, InjectionFailed, InsufficientSpace
from launcher.guestdata.guest import Guest
from launcher.models import Firmware, Flavor, ImageFormat, InstanceRef, LaunchOrder
from tests.orders import make_lease, make_order, make_told

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAZ other@here"
MIB, GIB = 2**20, 2**30
NICS = (make_lease(make_order()),)


async def tell() -> Guest:
    return Guest(make_told(public_key=KEY), NICS)


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file system of 2 MiB with a home for root."""
    made = tmp_path_factory.mktemp("disk")
    (made / "tree" / "root").mkdir(parents=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", made / "tree", made / "disk", "2M"], check=True)
    return made / "disk"


@pytest.fixture
def library(tmp_path: Path, disk: Path) -> Path:
    kernel, ramdisk = tmp_path / "vmlinuz", tmp_path / "initrd"
    kernel.write_bytes(b"kernel")
    ramdisk.write_bytes(b"ramdisk")
    add_image(tmp_path / "library", "ami-tiny", disk=disk, kernel=kernel, ramdisk=ramdisk)
    return tmp_path / "library"


@pytest.fixture
def orders(library: Path) -> Orders:
    return Orders(library)


class Orders:
    """Launches of the library's only image."""

    def __init__(self, library: Path) -> None:
        self.image, self.kernel, self.ramdisk = read_image(library, "ami-tiny")

    def __call__(self, number: int = 1, **changes: Any) -> LaunchOrder:
        own = {"image": self.image, "kernel": self.kernel, "ramdisk": self.ramdisk, "public_key": KEY}
        return make_order(number, **{**own, **changes})


def a_ref(number: int) -> InstanceRef:
    return InstanceRef(instance_id=make_order(number).instance_id, number=number)


@pytest.fixture(params=["fake", "metadata", "raw", pytest.param("storage-daemon", marks=pytest.mark.host)])
async def store(request: pytest.FixtureRequest, tmp_path: Path, library: Path) -> AsyncIterator[ImageStore]:
    if request.param == "storage-daemon":
        request.getfixturevalue("sandboxed")
    way = Injection.STORAGE_DAEMON if request.param == "storage-daemon" else Injection.METADATA
    ways = make_ways([way], state=tmp_path)
    format = ImageFormat.RAW if request.param == "raw" else ImageFormat.QCOW2
    files = LocalImages(tmp_path / "instances", library=library, ways=ways, disk_format=format)
    opened: ImageStore = FakeImages() if request.param == "fake" else files
    await opened.start()
    yield opened
    await opened.stop()


# --- every store -----------------------------------------------------------------------------------


async def test_creating_again_gives_the_same_files(store: ImageStore, orders: Orders) -> None:
    first = await store.create_disks(orders())
    assert await store.create_disks(orders(generation=2)) == first
    assert first.root_format is (ImageFormat.RAW if first.root.suffix == ".raw" else ImageFormat.QCOW2)
    assert first.kernel is not None
    assert first.ramdisk is not None
    assert len({first.root, first.kernel, first.ramdisk, first.console_log}) == 4


async def test_disks_of_an_older_generation_are_made_again_once(store: ImageStore, orders: Orders) -> None:
    first = await store.create_disks(orders())
    await store.inject(orders(), NICS, tell)
    for generation in (2, 2, 3):
        await store.renew(orders(generation=generation, public_key=OTHER_KEY))
        assert await store.create_disks(orders(generation=generation)) == first
        await store.inject(orders(generation=generation, public_key=OTHER_KEY), NICS, tell)
    assert await store.list_instances() == [a_ref(1)]


async def test_another_root_comes_and_goes_beside_the_own_one(store: ImageStore, orders: Orders) -> None:
    own = await store.create_disks(orders())
    other = await store.create_disks(orders(generation=2, rescue=True))
    await store.inject(orders(generation=2, rescue=True), NICS, tell)
    assert (other.rescued, other.rescued_format) == (own.root, own.root_format)
    assert (other.root != own.root, other.console_log) == (True, own.console_log)
    assert await store.list_instances() == [a_ref(1)]
    for _ in range(2):
        await store.end_rescue(orders())
    assert await store.create_disks(orders(generation=3)) == own
    await store.create_disks(orders(generation=4, rescue=True))
    await store.delete_disks(a_ref(1))
    assert await store.list_instances() == []


async def test_instances_share_the_image_and_nothing_else(store: ImageStore, orders: Orders) -> None:
    one, two = await store.create_disks(orders(1)), await store.create_disks(orders(2))
    assert (one.kernel, one.ramdisk) == (two.kernel, two.ramdisk)
    assert one.root != two.root
    assert one.console_log != two.console_log


async def test_an_image_without_a_kernel_boots_by_itself(store: ImageStore, orders: Orders) -> None:
    disks = await store.create_disks(orders(kernel=None, ramdisk=None))
    assert (disks.kernel, disks.ramdisk) == (None, None)


async def test_what_uefi_remembers_is_the_instances_own(store: ImageStore, orders: Orders) -> None:
    by_uefi = orders.image.model_copy(update={"firmware": Firmware.UEFI})
    assert (await store.create_disks(orders(1))).firmware_state is None
    disks = await store.create_disks(orders(2, image=by_uefi, kernel=None, ramdisk=None))
    assert disks.firmware_state is not None
    assert disks.firmware_state.parent == disks.root.parent


async def test_what_exists_is_listed_until_it_is_deleted(store: ImageStore, orders: Orders) -> None:
    assert list(await store.list_instances()) == []
    for number in (1, 2):
        await store.create_disks(orders(number))
    assert sorted(await store.list_instances(), key=lambda ref: ref.number) == [a_ref(1), a_ref(2)]
    await store.delete_disks(orders(1))
    await store.delete_disks(orders(1))
    assert list(await store.list_instances()) == [a_ref(2)]


async def test_a_listed_instance_can_be_deleted_by_what_the_list_says(store: ImageStore, orders: Orders) -> None:
    await store.create_disks(orders())
    (ref,) = await store.list_instances()
    await store.delete_disks(ref)
    assert list(await store.list_instances()) == []


async def test_bases_are_listed_and_kept(store: ImageStore, orders: Orders) -> None:
    assert list(await store.list_bases()) == []
    await store.create_disks(orders())
    await store.delete_disks(orders())
    assert set(await store.list_bases()) == {image.sha256 for image in (orders.image, orders.kernel, orders.ramdisk)}


async def test_bases_go_when_space_is_wanted_and_nobody_uses_them(store: ImageStore, orders: Orders) -> None:
    await store.create_disks(orders(1))
    await store.create_disks(orders(2, kernel=None, ramdisk=None))
    assert await store.prune_bases() == 0
    await store.delete_disks(orders(1))
    await store.prune_bases()
    assert list(await store.list_bases()) == [orders.image.sha256]
    await store.delete_disks(orders(2))
    await store.prune_bases()
    assert list(await store.list_bases()) == []


async def test_a_whole_injection_leaves_no_export(store: ImageStore, orders: Orders) -> None:
    await store.create_disks(orders())
    await store.inject(orders(), NICS, tell)
    assert list(await store.list_exports()) == []
    await store.remove_exports()


async def test_what_was_deleted_can_be_made_again(store: ImageStore, orders: Orders) -> None:
    first = await store.create_disks(orders())
    await store.delete_disks(orders())
    assert await store.create_disks(orders()) == first


async def test_a_flavor_smaller_than_the_image_is_refused_with_both_sizes(store: ImageStore, orders: Orders) -> None:
    big = orders.image.model_copy(update={"virtual_size": 3 * GIB})
    small = Flavor(name="m1.small", vcpus=1, memory_mb=512, root_gb=2)
    with pytest.raises(BadImage, match=r"instance-00000001.*3\.0 GiB.*m1\.small.*2\.0 GiB"):
        await store.create_disks(orders(image=big, flavor=small))
    assert list(await store.list_instances()) == []


async def test_a_key_is_injected_once(store: ImageStore, orders: Orders) -> None:
    await store.create_disks(orders())
    done = await store.inject(orders(), NICS, tell)
    assert done.report in ("storage-daemon", "metadata")
    assert done.config_drive is None
    assert await store.inject(orders(), NICS, tell) == done
    with pytest.raises(InjectionFailed, match="another key"):
        await store.inject(orders(public_key="ssh-ed25519 BBBB you@there"), NICS, tell)


async def test_no_key_is_no_injection(store: ImageStore, orders: Orders) -> None:
    await store.create_disks(orders())
    assert await store.inject(orders(public_key=None), NICS, tell) == Injected()


async def test_who_asks_for_a_config_drive_gets_one_once(store: ImageStore, orders: Orders) -> None:
    order = orders(config_drive=True)
    disks = await store.create_disks(order)
    done = await store.inject(order, NICS, tell)
    assert done.ways[-1] is Injection.CONFIG_DRIVE
    assert done.config_drive is not None
    assert done.config_drive.parent == disks.root.parent
    assert await store.inject(order, NICS, tell) == done


async def test_a_key_needs_a_disk(store: ImageStore, orders: Orders) -> None:
    with pytest.raises(InjectionFailed, match="instance-00000001"):
        await store.inject(orders(), NICS, tell)


async def test_a_console_that_has_said_nothing_is_empty(store: ImageStore, orders: Orders) -> None:
    assert await store.read_console(orders(), 100) == b""
    assert await store.free_mb() > 0


async def test_a_flavor_brings_disks_of_its_own(store: ImageStore, orders: Orders) -> None:
    plain = await store.create_disks(orders(1))
    assert (plain.ephemeral, plain.swap) == (None, None)
    own = Flavor(name="m1.disks", vcpus=1, memory_mb=512, root_gb=0, ephemeral_gb=1, swap_mb=64)
    disks = await store.create_disks(orders(2, flavor=own))
    assert disks.ephemeral is not None
    assert disks.swap is not None
    assert len({disks.root, disks.ephemeral, disks.swap}) == 3
    assert await store.create_disks(orders(2, flavor=own)) == disks
    await store.inject(orders(2, flavor=own), NICS, tell)
    for _ in range(2):
        await store.settle(orders(2, flavor=own))


async def test_a_config_drive_is_not_for_everybodys_eyes(files: LocalImages, orders: Orders) -> None:
    await files.create_disks(orders(config_drive=True))
    done = await files.inject(orders(config_drive=True), NICS, tell)
    assert done.config_drive is not None
    assert done.config_drive.stat().st_mode & 0o777 == 0o600


# --- the fake's own switches ------------------------------------------------------------------------


async def test_the_fake_fails_where_it_is_told_to(orders: Orders) -> None:
    async def fail(verb: str, order: InstanceRef) -> None:
        if verb == "inject":
            raise InjectionFailed(f"{order.name}: as ordered")

    fake = FakeImages(before=fail)
    await fake.create_disks(orders())
    with pytest.raises(InjectionFailed, match="as ordered"):
        await fake.inject(orders(), NICS, tell)


# --- files -------------------------------------------------------------------------------------------


@pytest.fixture
async def files(tmp_path: Path, library: Path) -> AsyncIterator[LocalImages]:
    opened = LocalImages(tmp_path / "instances", library=library, ways=Ways([Injection.METADATA]))
    await opened.start()
    yield opened
    await opened.stop()


def contents(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


async def test_a_new_disk_is_an_overlay_of_the_flavors_size(files: LocalImages, orders: Orders) -> None:
    disks = await files.create_disks(orders(flavor=Flavor(name="m1.small", vcpus=1, memory_mb=512, root_gb=10)))
    await process.run(["qemu-img", "check", "-f", "qcow2", disks.root])
    header = qcow2.read_header(disks.root)
    assert header.virtual_size == 10 * GIB
    assert header.backing_file == str(files.path / "_base" / orders.image.sha256)


async def test_root_gb_0_keeps_the_images_size(files: LocalImages, orders: Orders) -> None:
    disks = await files.create_disks(orders())
    await process.run(["qemu-img", "compare", "-f", "qcow2", "-F", "raw", disks.root, orders.image.path])


SWAP_AND_MORE = Flavor(name="m1.disks", vcpus=1, memory_mb=512, root_gb=3, ephemeral_gb=2, swap_mb=64)


@pytest.mark.parametrize("format", list(ImageFormat))
async def test_all_disks_have_the_flavors_sizes_and_what_they_start_from(
    tmp_path: Path, library: Path, orders: Orders, format: ImageFormat
) -> None:
    files = LocalImages(tmp_path / "instances", library=library, ways=Ways([Injection.METADATA]), disk_format=format)
    await files.start()
    disks = await files.create_disks(orders(flavor=SWAP_AND_MORE))
    assert disks.root_format is format
    raw = {}
    for name, path, size in (
        ("root", disks.root, 3 * GIB),
        ("e", disks.ephemeral, 2 * GIB),
        ("s", disks.swap, 64 * MIB),
    ):
        assert path is not None
        raw[name] = tmp_path / f"{name}.raw"
        await process.run(["qemu-img", "convert", "-f", format, "-O", "raw", path, raw[name]])
        assert raw[name].stat().st_size == size
        assert path.stat().st_blocks * 512 < 64 * MIB
    assert raw["root"].read_bytes()[: 2 * MIB] == orders.image.path.read_bytes()
    await process.run(["e2fsck", "-fn", raw["e"]])
    assert "ephemeral0" in await process.run(["blkid", "-o", "value", "-s", "LABEL", raw["e"]])
    assert "swap" in await process.run(["blkid", "-o", "value", "-s", "TYPE", raw["s"]])


async def test_a_raw_disk_of_a_qcow2_image_is_its_content(tmp_path: Path, library: Path, disk: Path) -> None:
    packed = tmp_path / "packed"
    await process.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", disk, packed])
    add_image(library, "packed", disk=packed)
    (image,) = read_image(library, "packed")
    files = LocalImages(
        tmp_path / "instances", library=library, ways=Ways([Injection.METADATA]), disk_format=ImageFormat.RAW
    )
    await files.start()
    disks = await files.create_disks(make_order(image=image))
    assert disks.root.read_bytes() == disk.read_bytes()


async def test_what_a_guest_writes_into_a_raw_disk_never_decides_its_form(
    tmp_path: Path, library: Path, orders: Orders
) -> None:
    """CVE-2014-0134: a qcow2 header in a raw disk named a file of the host. The setting may have changed since, too."""
    ways = Ways([Injection.METADATA])
    files = LocalImages(tmp_path / "instances", library=library, ways=ways, disk_format=ImageFormat.RAW)
    await files.start()
    disks = await files.create_disks(orders())
    with disks.root.open("r+b") as file:
        file.write(b"QFI\xfb\0\0\0\3")
    successor = LocalImages(tmp_path / "instances", library=library, ways=ways, disk_format=ImageFormat.QCOW2)
    await successor.start()
    assert (await successor.create_disks(orders())).root_format is ImageFormat.RAW
    assert (await successor.create_disks(orders(2))).root_format is ImageFormat.QCOW2


async def test_two_launches_do_not_count_on_the_same_bytes(tmp_path: Path) -> None:
    space = Space(tmp_path, reserve_mb=0)
    most = space.left() * 3 // 4
    refused = pytest.raises(InsufficientSpace, match=r"two: .* needed, .* free")
    with space.promised("one", most), refused, space.promised("two", most):
        pass
    with space.promised("two", most):
        pass


async def test_what_a_power_cut_caught_before_it_was_synced_is_made_anew(
    files: LocalImages, tmp_path: Path, library: Path, orders: Orders
) -> None:
    """Three instances: one settled, one of this run of the host, one of a run that a power cut ended."""
    for number in (1, 2, 3):
        await files.create_disks(orders(number))
        await files.inject(orders(number), NICS, tell)
    await files.settle(orders(1))
    mark = files.path / orders(3).name / "unsettled"
    mark.unlink()
    mark.symlink_to("another-run")
    (mark.parent / "instance-id").write_text("")
    successor = LocalImages(tmp_path / "instances", library=library, ways=Ways([Injection.METADATA]))
    await successor.start()
    assert list(await successor.list_instances()) == [a_ref(1), a_ref(2)]
    disks = await successor.create_disks(orders(3))
    await process.run(["qemu-img", "check", "-f", "qcow2", disks.root])


async def test_a_machine_outlives_its_image_in_the_library(files: LocalImages, orders: Orders, library: Path) -> None:
    disks = await files.create_disks(orders())
    shutil.rmtree(library)
    await process.run(["qemu-img", "check", "-f", "qcow2", disks.root])
    await files.create_disks(orders(2))


async def test_a_base_that_vanished_is_taken_in_again(files: LocalImages, orders: Orders) -> None:
    await files.create_disks(orders(1))
    (files.path / "_base" / orders.image.sha256).unlink()
    with pytest.raises(HostResourceMissing, match="vanished"):
        await files.create_disks(orders(2))
    await files.create_disks(orders(2))


async def test_an_image_that_changed_since_it_was_registered_is_refused(files: LocalImages, orders: Orders) -> None:
    orders.image.path.chmod(0o644)
    orders.image.path.write_bytes(b"other".ljust(orders.image.size))
    with pytest.raises(BadImage, match="has changed"):
        await files.create_disks(orders())
    assert contents(files.path) == {"_base", "_work"}
    assert contents(files.path / "_base") == contents(files.path / "_work") == set()


async def test_a_file_outside_the_library_is_never_an_image(
    files: LocalImages, orders: Orders, library: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"of the host")
    (library / "link").symlink_to(secret)
    for path in (secret, library / "link", library / ".." / "secret"):
        with pytest.raises(BadImage, match="not in the image library"):
            await files.create_disks(orders(image=orders.image.model_copy(update={"path": path})))


async def test_an_image_of_another_host_is_missing_here(files: LocalImages, orders: Orders, library: Path) -> None:
    absent = orders.image.model_copy(update={"path": library / "elsewhere" / "disk"})
    with pytest.raises(HostResourceMissing, match="does not exist on this host"):
        await files.create_disks(orders(image=absent))


async def test_qcow2_that_calls_itself_raw_is_refused(files: LocalImages, library: Path, tmp_path: Path) -> None:
    await process.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "disguised", "1M"])
    add_image(library, "disguised", disk=tmp_path / "disguised")
    (image,) = read_image(library, "disguised")
    with pytest.raises(BadImage, match="registered as raw"):
        await files.create_disks(make_order(image=image.model_copy(update={"format": ImageFormat.RAW})))


async def test_qcow2_bigger_than_it_says_is_refused(files: LocalImages, library: Path, tmp_path: Path) -> None:
    await process.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "bomb", "1T"])
    add_image(library, "bomb", disk=tmp_path / "bomb")
    (image,) = read_image(library, "bomb")
    with pytest.raises(BadImage, match="catalogue says"):
        await files.create_disks(make_order(image=image.model_copy(update={"virtual_size": MIB})))


async def test_a_launch_that_would_fill_the_disk_is_refused_with_the_numbers(
    tmp_path: Path, library: Path, orders: Orders
) -> None:
    full = LocalImages(tmp_path / "full", library=library, ways=Ways([Injection.METADATA]), reserve_mb=1 << 30)
    await full.start()
    with pytest.raises(InsufficientSpace, match=r"instance-00000001: 1048576\.0 GiB needed, .* free in") as refused:
        await full.create_disks(orders())
    assert "launcher image prune" in refused.value.hint
    assert list(await full.list_instances()) == []


async def test_what_a_killed_process_left_half_made_is_gone_after_the_next_start(
    files: LocalImages, tmp_path: Path, library: Path, orders: Orders
) -> None:
    await files.create_disks(orders())
    half = files.path / "_work" / "tmp1234" / "instance-00000002"
    half.mkdir(parents=True)
    (half / "disk").touch()
    successor = LocalImages(tmp_path / "instances", library=library, ways=Ways([Injection.METADATA]))
    await successor.start()
    assert contents(files.path / "_work") == set()
    assert list(await successor.list_instances()) == [a_ref(1)]
    await successor.create_disks(orders())


async def test_the_directory_of_another_instance_is_neither_used_nor_removed(
    files: LocalImages, orders: Orders
) -> None:
    old = orders(1, instance_id="99999999-0000-4000-8000-000000000001")
    disks = await files.create_disks(old)
    with pytest.raises(HostResourceMissing, match="belongs to the instance 99999999"):
        await files.create_disks(orders(1))
    await files.delete_disks(orders(1))
    assert disks.root.exists()


async def test_a_strangers_directory_is_not_listed(files: LocalImages, orders: Orders) -> None:
    await files.create_disks(orders(1))
    for name, text in (
        ("instance-00000002", None),
        ("instance-00000003", "no id"),
        ("instance-zz", "x"),
        ("instance-4", orders(4).instance_id),
        ("instance-00000000", orders(5).instance_id),
        ("other-00000006", orders(6).instance_id),
    ):
        (files.path / name).mkdir()
        if text is not None:
            (files.path / name / "instance-id").write_text(text)
    assert list(await files.list_instances()) == [a_ref(1)]


async def test_a_cancelled_launch_leaves_no_thread_at_work(files: LocalImages, orders: Orders) -> None:
    launch = asyncio.create_task(files.create_disks(orders()))
    await asyncio.sleep(0)
    launch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launch
    before = contents(files.path)
    await files.delete_disks(orders())
    assert contents(files.path) <= before
    assert contents(files.path / "_work") == set()


async def test_the_end_of_the_console_is_what_is_read(files: LocalImages, orders: Orders) -> None:
    disks = await files.create_disks(orders())
    disks.console_log.write_bytes(b"first\nsecond\n")
    assert await files.read_console(orders(), 7) == b"second\n"
    assert await files.read_console(orders(), 100) == b"first\nsecond\n"


async def test_a_disk_whose_key_was_recorded_is_never_opened_again(
    tmp_path: Path, library: Path, orders: Orders
) -> None:
    first = LocalImages(tmp_path / "instances", library=library, ways=Ways([Injection.METADATA]))
    await first.start()
    await first.create_disks(orders())
    await first.inject(orders(), NICS, tell)
    successor = LocalImages(tmp_path / "instances", library=library, ways=NeverAsked([Injection.METADATA]))
    await successor.start()
    assert await successor.inject(orders(), NICS, tell) == Injected((Injection.METADATA,))


async def test_a_record_torn_by_a_power_cut_is_none(files: LocalImages, orders: Orders) -> None:
    disks = await files.create_disks(orders())
    (disks.root.parent / "injection").write_text("")
    assert await files.inject(orders(), NICS, tell) == Injected((Injection.METADATA,))


class NeverAsked(Ways):
    """Must not be asked."""

    def choose(self, order: LaunchOrder, payload: Payload) -> tuple[Injection, ...]:
        raise DriverError(f"{order.name} was opened again")


async def test_a_disk_grows_to_its_new_flavors_size_and_keeps_what_was_written(
    files: LocalImages, orders: Orders
) -> None:
    disks = await files.create_disks(orders())
    await process.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", disks.root])
    for root_gb in (10, 10, 0):
        grown = await files.create_disks(orders(flavor=Flavor(name="big", vcpus=1, memory_mb=512, root_gb=root_gb)))
        assert (grown, qcow2.read_header(grown.root).virtual_size) == (disks, 10 * GIB)
    await process.run(["qemu-img", "check", "-f", "qcow2", disks.root])
    await process.run(["qemu-io", "-f", "qcow2", "-c", "read -P 7 0 64k", disks.root])


@pytest.mark.parametrize("store", ["metadata"], indirect=True)
async def test_empty_disks_go_when_nothing_stands_on_them(store: LocalImages, orders: Orders) -> None:
    flavor = Flavor(name="m1.more", vcpus=1, memory_mb=64, root_gb=0, ephemeral_gb=1, swap_mb=16)
    await store.create_disks(orders(flavor=flavor))
    blanks = store.path / "_blank"
    await store.prune_bases()
    assert len(list(blanks.iterdir())) == 2
    await store.delete_disks(a_ref(1))
    assert await store.prune_bases() > 0
    assert list(blanks.iterdir()) == []
    await store.create_disks(orders(flavor=flavor))
    assert len(list(blanks.iterdir())) == 2
