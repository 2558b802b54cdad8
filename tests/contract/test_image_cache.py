"""A host's copies of images: taken in once, kept as long as an instance needs them, removed when space is wanted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from launcher.drivers.images.cache import BaseCache
from launcher.drivers.images.inject.choice import Ways
from launcher.drivers.images.library import add_image, read_image
from launcher.drivers.images.local import LocalImages
from launcher.drivers.images.space import Space
from launcher.drivers.images.store import Injection
from launcher.models import Image, LaunchOrder
from tests.orders import make_order

MIB = 2**20


class CountingCache(BaseCache):
    """Remembers what it took in, and copies as from another file system."""

    taken: list[str]

    def _take_in(self, order: LaunchOrder, image: Image) -> None:
        self.taken.append(image.name)
        super()._take_in(order, image)
        base = self.path / image.sha256
        copied = base.read_bytes()
        base.unlink()
        base.write_bytes(copied)


class Host:
    """A host's image store and a library of machine images of one MiB each."""

    def __init__(self, directory: Path, *, limit: int | None = None) -> None:
        self.library = directory / "library"
        self.store = LocalImages(directory / "instances", library=self.library, ways=Ways([Injection.METADATA]))
        old = self.store.cache
        space = Space(old.path.parent, reserve_mb=0)
        self.cache = CountingCache(old.path, work=old.work, sources=old.sources, space=space, limit=limit)
        self.cache.taken = []
        self.store.cache = self.cache

    def image(self, name: str) -> Image:
        disk = self.library.parent / "disk"
        disk.write_bytes(name.encode() * MIB)
        add_image(self.library, name, disk=disk)
        return read_image(self.library, name)[0]

    async def launch(self, number: int, image: Image) -> LaunchOrder:
        order = make_order(number, image=image)
        await self.store.create_disks(order)
        return order

    async def kept(self, *images: Image) -> list[str]:
        present = await self.store.list_bases()
        return [image.name for image in images if image.sha256 in present]


@pytest.fixture
async def host(tmp_path: Path) -> Host:
    host = Host(tmp_path, limit=None)
    await host.store.start()
    return host


async def test_fifty_launches_of_a_new_image_take_it_in_once(host: Host) -> None:
    image = host.image("a")
    await asyncio.gather(*(host.launch(number, image) for number in range(1, 51)))
    assert host.cache.taken == ["a"]
    assert len(await host.store.list_instances()) == 50


async def test_what_an_instance_needs_is_kept_until_it_is_deleted(host: Host, tmp_path: Path) -> None:
    used, unused = host.image("a"), host.image("b")
    order = await host.launch(1, used)
    other = await host.launch(2, unused)
    await host.store.delete_disks(other)
    assert await host.cache.prune() == MIB
    assert await host.kept(used, unused) == ["a"]

    successor = Host(tmp_path)  # the next process counts the same
    await successor.store.start()
    assert await successor.cache.prune() == 0
    await successor.store.delete_disks(order)
    assert await successor.cache.prune() == MIB
    assert await host.store.list_bases() == []


async def test_kernels_and_ramdisks_are_needed_too(host: Host, tmp_path: Path) -> None:
    images = host.image("a"), host.image("k"), host.image("r")
    await host.store.create_disks(make_order(1, image=images[0], kernel=images[1], ramdisk=images[2]))
    assert await host.cache.prune() == 0
    assert await host.kept(*images) == ["a", "k", "r"]


async def test_a_directory_without_links_keeps_what_its_disk_stands_on(host: Host) -> None:
    image = host.image("a")
    order = await host.launch(1, image)
    (host.store.path / order.name / "base").unlink()
    assert await host.cache.prune() == 0
    assert await host.kept(image) == ["a"]


async def test_what_a_launch_is_about_to_use_is_not_removed(host: Host) -> None:
    image = host.image("a")
    async with host.cache.holding(make_order(1, image=image)):
        assert await host.cache.prune() == 0
        assert await host.kept(image) == ["a"]
    assert await host.cache.prune() == MIB


async def test_over_its_limit_the_longest_unused_goes_first(tmp_path: Path) -> None:
    host = Host(tmp_path, limit=3 * MIB)
    await host.store.start()
    images = [host.image(name) for name in "abcd"]
    for number, image in enumerate(images[:3], 1):
        await host.store.delete_disks(await host.launch(number, image))
    await host.store.delete_disks(await host.launch(4, images[0]))  # used again
    assert await host.kept(*images) == ["a", "b", "c"]
    await host.launch(5, images[3])
    assert await host.kept(*images) == ["a", "c", "d"]


async def test_a_limit_never_takes_what_is_used(tmp_path: Path) -> None:
    host = Host(tmp_path, limit=MIB)
    await host.store.start()
    images = [host.image(name) for name in "abc"]
    for number, image in enumerate(images, 1):
        await host.launch(number, image)
    assert await host.kept(*images) == ["a", "b", "c"]


async def test_an_image_that_was_pruned_is_taken_in_again(host: Host) -> None:
    image = host.image("a")
    await host.store.delete_disks(await host.launch(1, image))
    await host.cache.prune()
    await host.launch(2, image)
    assert host.cache.taken == ["a", "a"]


async def test_a_link_to_the_librarys_own_file_takes_no_space(tmp_path: Path) -> None:
    host = Host(tmp_path)
    store = LocalImages(tmp_path / "instances", library=host.library, ways=Ways([Injection.METADATA]), cache_limit=1)
    await store.start()
    images = [host.image(name) for name in "ab"]
    for number, image in enumerate(images, 1):
        order = make_order(number, image=image)
        await store.create_disks(order)
        await store.delete_disks(order)
    assert await host.kept(*images) == ["a", "b"]
