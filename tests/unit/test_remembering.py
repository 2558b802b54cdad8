"""What is written once and copied afterwards, and what never is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from launcher.drivers.images.inject.injector import Payload, Place
from launcher.drivers.images.inject.remembering import LARGEST, Remembering
from launcher.drivers.images.store import Injection
from launcher.models import GuestFile, ImageFormat

KEY, OTHER = "ssh-ed25519 AAAA mine", "ssh-ed25519 BBBB other"
FRESH = b"an overlay of base 1234"


class Stamping:
    """An injector that counts, and whose outcome shows in the disk."""

    name = Injection.STORAGE_DAEMON

    def __init__(self) -> None:
        self.times = 0

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def inject(self, place: Place, payload: Payload) -> None:
        self.times += 1
        place.disk.write_bytes(place.disk.read_bytes() + repr(payload).encode())

    async def list_leftovers(self) -> Sequence[str]:
        return ()

    async def remove_leftovers(self) -> None: ...


class Host:
    def __init__(self, path: Path) -> None:
        self.path, self.inner, self.disks = path, Stamping(), 0
        self.injector = Remembering(self.inner, path / "injected", limit=2)

    async def inject(
        self, payload: Payload, content: bytes = FRESH, *, format: ImageFormat = ImageFormat.QCOW2, partition: int = 0
    ) -> bytes:
        """Into a new disk; what is in it afterwards."""
        self.disks += 1
        disk = self.path / f"instance-{self.disks}" / "disk"
        disk.parent.mkdir()
        disk.write_bytes(content)
        await self.injector.inject(Place(disk, format, partition), payload)
        assert [path.name for path in disk.parent.iterdir()] == ["disk"]
        return disk.read_bytes()


@pytest.fixture
async def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    await made.injector.start()
    return made


async def test_an_equal_disk_gets_the_same_by_a_copy(host: Host) -> None:
    first = await host.inject(Payload(KEY))
    assert await host.inject(Payload(KEY)) == first == FRESH + repr(Payload(KEY)).encode()
    assert host.inner.times == 1


async def test_another_key_disk_or_partition_is_written_anew(host: Host) -> None:
    await host.inject(Payload(KEY))
    assert OTHER.encode() in await host.inject(Payload(OTHER))
    assert (await host.inject(Payload(KEY), b"another base")).startswith(b"another base")
    await host.inject(Payload(KEY), partition=1)
    assert host.inner.times == 4


@pytest.mark.parametrize(
    "payload",
    [
        Payload(KEY, password_hash="$6$secret"),
        Payload(KEY, files=(GuestFile(path="/etc/motd", content="c2VjcmV0"),)),
        Payload(KEY, interfaces="iface eth0 inet static"),
    ],
)
async def test_what_is_a_guests_own_is_not_kept(host: Host, payload: Payload) -> None:
    await host.inject(payload)
    await host.inject(payload)
    assert host.inner.times == 2
    assert list(host.injector.path.iterdir()) == []


async def test_raw_and_large_disks_are_not_copied_around(host: Host) -> None:
    for _ in range(2):
        await host.inject(Payload(KEY), format=ImageFormat.RAW)
        await host.inject(Payload(KEY), bytes(LARGEST + 1))
    assert host.inner.times == 4
    assert list(host.injector.path.iterdir()) == []


async def test_what_was_not_used_for_longest_goes(host: Host) -> None:
    for key in ("one", "two", "one", "three", "one"):
        await host.inject(Payload(key))
    assert host.inner.times == 3
    await host.inject(Payload("two"))
    assert host.inner.times == 4
    assert len(list(host.injector.path.iterdir())) == 2


async def test_a_copy_that_cannot_be_made_is_written_instead(host: Host) -> None:
    first = await host.inject(Payload(KEY))
    for kept in host.injector.path.iterdir():
        kept.unlink()
    assert await host.inject(Payload(KEY)) == first
    assert host.inner.times == 2


async def test_what_an_earlier_run_left_is_not_trusted(host: Host) -> None:
    """A power cut may have torn it."""
    await host.inject(Payload(KEY))
    await host.injector.start()
    assert list(host.injector.path.iterdir()) == []
    await host.inject(Payload(KEY))
    assert host.inner.times == 2
