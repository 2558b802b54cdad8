"""A compute host that shares nothing with the controller but the bus: the bytes come by the controller's door."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import aiohttp
import pytest

from launcher.clock import SystemClock
from launcher.drivers.images.inject.choice import Ways
from launcher.drivers.images.local import LocalImages
from launcher.drivers.images.store import Injection
from launcher.errors import NotFound
from launcher.image_supply import host_downloads
from launcher.messages.images import OpenContent
from tests.flow.house import House, Json
from tests.flow.test_images import upload

CONTENT = Random(4).randbytes(2_000_000)


@dataclass
class Far:
    """The controller's house, and the image store of a host far from it."""

    house: House
    store: LocalImages

    @property
    def bases(self) -> list[str]:
        return sorted(path.name for path in (self.store.path / "_base").iterdir())


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Far]:
    listener = socket.create_server(("127.0.0.1", 0))
    store = LocalImages(
        tmp_path / "far",
        library=tmp_path / "nowhere",
        ways=Ways([Injection.METADATA]),
        downloads=host_downloads(clock=SystemClock(), rng=Random(1)),
    )
    house = House(tmp_path, image_listener=listener, images=store)  # type: ignore[arg-type]
    async with house.open():
        yield Far(house, store)


async def launched(house: House, count: int) -> list[Json]:
    made = await house.ask("POST", "/instances", {"image": "mine", "flavor": "m1.tiny", "count": count}, status=202)
    return [await house.until(each["id"], "ACTIVE", within=60) for each in made["instances"]]


async def test_fifty_launches_of_a_new_image_fetch_it_once(far: Far) -> None:
    image = await upload(far.house, content=CONTENT)
    await launched(far.house, 50)
    assert far.house.controller.images.door.given == 1
    assert far.bases == [image["sha256"]]
    assert (far.store.path / "_base" / image["sha256"]).read_bytes() == CONTENT
    assert list((far.store.path / "_work").iterdir()) == []


async def test_a_deleted_image_is_given_to_hosts_whose_instances_need_it(far: Far) -> None:
    image = await upload(far.house, content=CONTENT)
    gate = far.house.hold_step("imaging")
    made = await far.house.launch(image="mine")
    await gate.reached.wait()
    await far.house.ask("DELETE", "/images/mine", status=200)
    gate.open.set()
    await far.house.until(made["id"], "ACTIVE")
    assert far.bases == [image["sha256"]]


async def test_bytes_that_changed_on_the_way_are_refused(far: Far) -> None:
    image = await upload(far.house, content=CONTENT)
    path = far.house.vault.path(image["sha256"])
    path.chmod(0o644)
    path.write_bytes(CONTENT[:-1] + b"!")
    made = await far.house.launch(image="mine")
    fault = (await far.house.until(made["id"], "ERROR", within=30))["fault"]
    assert "has changed" in fault["message"]
    assert far.bases == []


async def test_the_door_opens_to_tickets_only(far: Far) -> None:
    first, second = await upload(far.house, "a", CONTENT), await upload(far.house, "b", CONTENT[1:])
    ctx = far.house.compute.own_context()
    ticket = await far.house.bus.call(ctx, OpenContent(sha256=first["sha256"]))
    async with aiohttp.ClientSession() as http:
        for url, token, status in (
            (ticket.url, ticket.token, 200),
            (ticket.url, "guess", 401),
            (ticket.url.replace(first["sha256"], second["sha256"]), ticket.token, 401),
            (ticket.url + "/../../etc/passwd", ticket.token, 404),
        ):
            async with http.get(url, headers={"Authorization": f"Bearer {token}"}) as response:
                assert response.status == status, url
    with pytest.raises(NotFound):
        await far.house.bus.call(ctx, OpenContent(sha256="0" * 64))


async def test_without_a_door_a_far_host_says_what_to_set(tmp_path: Path) -> None:
    store = LocalImages(tmp_path / "far", library=tmp_path / "nowhere", ways=Ways([Injection.METADATA]))
    async with House(tmp_path, images=store, max_attempts=1).open() as house:  # type: ignore[arg-type]
        await upload(house)
        made = await house.launch(image="mine")
        fault = (await house.until(made["id"], "ERROR"))["fault"]
        assert "[images] listen" in fault["hint"]
