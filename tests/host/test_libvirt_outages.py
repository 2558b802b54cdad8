"""libvirtd dies, freezes and comes back under a whole launcher with launches under way and real guests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from tests.host.libvirtd import Daemon
from tests.host.test_story import leftovers, qemus
from tests.serving import Json, Server
from tests.waiting import eventually, until

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]

LAUNCHES = 3
LATE = 150.0
"""Seconds; libvirt gives a start up after 30, and a launch is looked at again after 10."""


@pytest.fixture
async def launcher(server: Server, daemon: Daemon) -> AsyncIterator[Server]:
    """A launcher on a libvirtd of its own."""
    server.settings = [f"virt.uri={daemon.uri}", "virt.virt_type=qemu", "controller.sweep_s=3"]
    await server.start()
    yield server
    daemon.signal(signal.SIGCONT)
    print(server.said[-8000:])  # noqa: T201 - shown when the test failed


Outage = Callable[[Daemon], Awaitable[None]]


class Answers:
    """How long the API took to answer, asked all the time."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    @contextlib.asynccontextmanager
    async def watched(self, http: aiohttp.ClientSession) -> AsyncIterator[Answers]:
        task = asyncio.create_task(self._ask(http))
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _ask(self, http: aiohttp.ClientSession) -> None:
        while True:
            began = time.monotonic()
            async with http.get("/instances") as answer:
                assert answer.status == 200
                await answer.read()
            self.seconds.append(time.monotonic() - began)
            await asyncio.sleep(0.05)  # a pace, not a wait

    @property
    def slowest(self) -> float:
        return max(self.seconds)


async def launch(http: aiohttp.ClientSession, count: int = LAUNCHES) -> list[Json]:
    body = {"image": "ami-tiny", "flavor": "m1.tiny", "name": "vm", "count": count}
    async with http.post("/instances", json=body) as answer:
        assert answer.status == 202, await answer.text()
        found: list[Json] = (await answer.json())["instances"]
        return found


async def until_spawning(http: aiohttp.ClientSession) -> None:
    async with http.get("/events") as stream:
        async for line in stream.content:
            if line.startswith(b"data:") and json.loads(line[5:])["task_state"] == "spawning":
                return


async def all_at_rest(http: aiohttp.ClientSession) -> list[Json]:
    async def look() -> list[Json] | None:
        async with http.get("/instances") as answer:
            found: list[Json] = (await answer.json())["instances"]
        return found if all(each["status"] in ("ACTIVE", "ERROR") for each in found) else None

    return await eventually(look, within=LATE, what="all at rest")


async def sound(server: Server, daemon: Daemon, found: list[Json]) -> None:
    """One machine of the right generation for each that is active, nothing for others, and an audit that says so."""
    wanted = {each["id"]: each["generation"] for each in found if each["status"] == "ACTIVE"}

    async def right() -> bool:
        return {each.instance_id: each.generation for each in await daemon.domains()} == wanted

    await eventually(right, within=LATE, what=f"exactly the domains {wanted}")
    assert len(await asyncio.to_thread(qemus, server)) == len(wanted)
    assert all(each["fault"]["step"] for each in found if each["status"] == "ERROR")

    async def clean() -> bool:
        async with server.http() as http, http.get("/audit") as answer:
            said: Json = await answer.json()
        return not said["findings"] + said["silent"]

    await eventually(clean, within=LATE, what="an audit without findings")
    await server.cli("audit")


async def end_all(server: Server, http: aiohttp.ClientSession, found: list[Json]) -> None:
    for each in found:
        async with http.delete(f"/instances/{each['id']}") as answer:
            assert answer.status == 202

    async def none() -> bool:
        async with http.get("/instances") as answer:
            return not (await answer.json())["instances"]

    await eventually(none, within=LATE, what="all deleted")
    assert leftovers(server) == []
    assert await asyncio.to_thread(qemus, server) == []


async def killed(daemon: Daemon) -> None:
    await daemon.kill()
    await daemon.start()


async def frozen(daemon: Daemon) -> None:
    """Shorter than it takes to give the connection up, which is 20 s."""
    daemon.signal(signal.SIGSTOP)
    await asyncio.sleep(15)
    daemon.signal(signal.SIGCONT)


async def given_up(daemon: Daemon) -> None:
    """Longer than that."""
    daemon.signal(signal.SIGSTOP)
    await asyncio.sleep(30)
    daemon.signal(signal.SIGCONT)


async def away(daemon: Daemon) -> None:
    """Longer than a call waits for a connection."""
    await daemon.kill()
    await asyncio.sleep(30)
    await daemon.start()


OUTAGES = [*((killed, offset) for offset in (0.0, 0.2, 0.5, 1.0, 1.6)), (frozen, 0.3), (given_up, 0.3), (away, 0.3)]


@pytest.mark.parametrize(("outage", "offset"), OUTAGES, ids=lambda value: getattr(value, "__name__", str(value)))
async def test_launches_outlive_a_libvirtd_that_was(
    launcher: Server, daemon: Daemon, outage: Outage, offset: float
) -> None:
    """`offset` is the seconds since the first domain is being started."""
    async with launcher.http() as http, Answers().watched(http) as answers:
        spawning = asyncio.create_task(until_spawning(http))
        await launch(http)
        await spawning
        await asyncio.sleep(offset)  # the moment is the point
        await outage(daemon)
        began = time.monotonic()
        found = await all_at_rest(http)
        took = time.monotonic() - began
        await sound(launcher, daemon, found)
        states = [each["status"] for each in found]
        print(f"{outage.__name__} {offset}: {states} {took:.1f} s after; answers <= {answers.slowest:.2f} s")  # noqa: T201
        assert states == ["ACTIVE"] * LAUNCHES
        assert answers.slowest < 1.0
        await end_all(launcher, http, found)


async def test_guests_outlive_restarts_of_libvirtd_and_their_ends_are_told_afterwards(
    launcher: Server, daemon: Daemon
) -> None:
    """One is killed from outside, one powers itself off; the events come by the new connection."""
    await launcher.cli("keypair", "create", "test")
    for name in ("killed", "off"):
        await launcher.cli("run", "ami-tiny", "--key", "test", "--name", name, "--wait=active,ssh")
    async with launcher.http() as http, Answers().watched(http) as answers:
        guests = await asyncio.to_thread(qemus, launcher)
        for restarts in (1, 2):
            await killed(daemon)
            await until(lambda restarts=restarts: launcher.said.count("connected to") == restarts)  # type: ignore[misc]
        assert await asyncio.to_thread(qemus, launcher) == guests
        await sound(launcher, daemon, await all_at_rest(http))
        await launcher.cli("ssh", "off", "--", "(sleep 1; poweroff -f) >/dev/null 2>&1 &")
        stopped = await launcher.until_instance("off", status="STOPPED", within=LATE)
        pid = int((daemon.directory / "run" / "qemu" / "instance-00000001.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        await launcher.until_instance("killed", status="STOPPED", within=LATE)
        assert [event["message"] for event in await events(launcher, stopped["id"])][-1] == "stopped: shutdown"
        assert answers.slowest < 1.0
        await sound(launcher, daemon, [])
        await end_all(launcher, http, (await launcher.get("/instances"))["instances"])


async def events(server: Server, instance_id: str) -> list[Json]:
    async with server.http() as http, http.get(f"/events?instance_id={instance_id}&follow=false") as answer:
        lines = (await answer.text()).splitlines()
    return [json.loads(line[5:]) for line in lines if line.startswith("data:")]
