"""No space left: what is asked for is refused or fails by name, and works again when there is space."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.killing import leases
from tests.host.test_story import leftovers
from tests.serving import Json, Server
from tests.waiting import eventually, until

pytestmark = pytest.mark.host
BODY = {"image": "ami-tiny", "flavor": "m1.tiny"}


class Volume:
    """A file system of its own size, in memory."""

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path = path
        path.mkdir(parents=True)
        self._mount("-t", "tmpfs", "-o", f"size={megabytes}m", "none")

    def resize(self, megabytes: int) -> None:
        self._mount("-o", f"remount,size={megabytes}m")

    def fill(self) -> None:
        with (self.path / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(b"\0" * 4096)
        assert shutil.disk_usage(self.path).free == 0

    def free(self) -> None:
        (self.path / "filler").unlink()

    def _mount(self, *words: str) -> None:
        subprocess.run(["mount", *words, str(self.path)], check=True)


@pytest.fixture
def state(server: Server) -> Iterator[Volume]:
    volume = Volume(server.state, megabytes=16)
    yield volume
    subprocess.run(["umount", "-l", str(volume.path)], check=True)


@pytest.fixture
def instances(server: Server) -> Iterator[Volume]:
    volume = Volume(server.state / "instances", megabytes=400)
    yield volume
    subprocess.run(["umount", "-l", str(volume.path)], check=True)


async def post(server: Server, **changes: object) -> tuple[int, Json]:
    async with server.http() as http, http.post("/instances", json={**BODY, **changes}) as answer:
        return answer.status, await answer.json()


async def test_a_full_state_volume_refuses_launches_and_recovers(server: Server, state: Volume) -> None:
    server.settings = ["virt.driver=fake", "quotas.instances=10000", "quotas.cores=10000", "quotas.memory_mb=10000000"]
    async with server.running():
        state.fill()

        async def refused() -> Json | None:
            """What the database has allocated already takes some more launches."""
            status, said = await post(server, user_data="A" * 60_000, count=10)
            assert status in (202, 507), said
            return said if status == 507 else None

        assert (await eventually(refused, what="507"))["code"] == "insufficient_space"
        state.free()
        assert (await post(server, name="afterwards"))[0] == 202
        await server.until_instance("afterwards", status="ACTIVE")

        async def at_rest() -> bool:
            found = (await server.get("/instances?limit=1000"))["instances"]
            return {each["status"] for each in found} <= {"ACTIVE", "ERROR"}

        await eventually(at_rest, within=90, what="the others at rest")


FAKE = ["virt.driver=fake", "quotas.instances=10000", "quotas.cores=10000", "quotas.memory_mb=10000000"]


async def test_launches_under_way_outlive_a_full_state_volume(server: Server, state: Volume) -> None:
    """Both databases are on it: no step can be reported, no address leased or released, until there is space."""
    server.settings = [*FAKE, "fake.step_delay_s=0.2", "controller.sweep_s=0"]
    async with server.running():
        assert (await post(server, name="under-way", count=30))[0] == 202

        async def found() -> list[Json]:
            instances: list[Json] = (await server.get("/instances?limit=1000"))["instances"]
            return instances

        async def begun() -> bool:
            return any(each["task_state"] not in (None, "scheduling") for each in await found())

        await eventually(begun, what="the first step")
        state.fill()
        await until(lambda: server.said.count("the state volume is full") >= 10, within=60)
        assert len(await found()) == 30  # reading goes on
        state.free()

        async def at_rest() -> list[Json] | None:
            instances = await found()
            return instances if {each["status"] for each in instances} <= {"ACTIVE", "ERROR"} else None

        ended = await eventually(at_rest, within=120, what="all at rest")
        faults = {each["fault"]["code"] for each in ended if each["fault"]}
        assert faults <= {"insufficient_space", "store_unavailable"}
        active = [each for each in ended if each["status"] == "ACTIVE"]
        assert active
        assert len(leases(server)) == len(active)
        assert "Traceback" not in server.said
        assert "differences: 0" in await server.cli("audit")
        assert (await post(server, name="afterwards"))[0] == 202
        await server.until_instance("afterwards", status="ACTIVE")


async def test_a_start_on_a_full_state_volume_says_so(server: Server, state: Volume) -> None:
    server.settings = FAKE
    state.fill()
    await server.spawn()
    await until(lambda: server.ended)
    assert server.process is not None
    assert server.process.returncode == 1
    assert "Traceback" not in server.said
    assert "launcher serve: no space left" in server.said or "the state volume is full" in server.said, server.said
    state.free()
    async with server.running():
        assert (await post(server, name="afterwards"))[0] == 202
        await server.until_instance("afterwards", status="ACTIVE")


async def test_a_lock_on_the_database_costs_time_only(server: Server) -> None:
    """As a backup with the sqlite3 program may hold it. POST says that it did not accept."""
    server.settings = FAKE
    async with server.running():
        with contextlib.closing(sqlite3.connect(server.state / "controller.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            status, said = await post(server, name="early")
            assert (status, said["code"]) == (503, "store_unavailable")
            other.execute("ROLLBACK")
        assert (await post(server, name="afterwards"))[0] == 202
        await server.until_instance("afterwards", status="ACTIVE")
        assert [each["name"] for each in (await server.get("/instances"))["instances"]] == ["afterwards"]


@pytest.fixture
def volumes(server: Server) -> Iterator[Volume]:
    volume = Volume(server.state / "volumes", megabytes=1100)
    yield volume
    subprocess.run(["umount", "-l", str(volume.path)], check=True)


@pytest.mark.timeout(180)
async def test_a_guest_whose_disk_cannot_grow_waits_and_goes_on(
    server: Server, instances: Volume, volumes: Volume
) -> None:
    """Its own disk, and a volume: QEMU pauses it, and nobody let it run again when there was space."""
    instances.resize(1000)
    server.settings = ["virt.virt_type=qemu"]
    async with server.running():
        await server.cli("keypair", "create", "test")
        await server.cli("run", "ami-tiny", "--key", "test", "--name", "vm", "--wait=active,ssh")
        await server.cli("volume", "create", "data", "--size", "1", "--near", "vm")
        await server.cli("volume", "attach", "data", "vm")
        for full, place in ((instances, "/root/file"), (volumes, "/dev/vdb")):
            full.fill()
            command = f"dd if=/dev/urandom of={place} bs=1M count=6 conv=fsync && echo written"
            writing = asyncio.create_task(server.cli("ssh", "vm", "--", command))
            await said(server, "a disk could not be written")
            assert (await server.get("/instances/vm"))["status"] == "ACTIVE"
            full.free()
            assert "written" in await writing
            await said(server, "it goes on")
        await server.cli("audit")


async def said(server: Server, words: str) -> None:
    """The last thing that was said of the machine."""

    wanted = {"follow": "false", "instance_id": (await server.get("/instances/vm"))["id"]}

    async def look() -> bool:
        async with server.http() as http, http.get("/events", params=wanted) as answer:
            events = [line for line in (await answer.text()).splitlines() if line.startswith("data:")]
        return words in events[-1]

    await eventually(look, within=60, what=words)


async def test_a_full_instances_volume_fails_launches_by_name_and_recovers(server: Server, instances: Volume) -> None:
    server.settings = ["virt.virt_type=qemu"]
    async with server.running():
        assert (await post(server, name="too-much"))[0] == 202
        failed = await server.until_instance("too-much", status="ERROR")
        assert failed["fault"]["code"] == "insufficient_space"
        assert failed["fault"]["step"] == "imaging"
        assert "MiB free in" in failed["fault"]["message"]
        assert leftovers(server) + leases(server) == []
        instances.resize(1000)
        assert (await post(server, name="afterwards"))[0] == 202
        await server.until_instance("afterwards", status="ACTIVE")
        await server.cli("delete", "afterwards", "--wait")
        assert leftovers(server) + leases(server) == []
