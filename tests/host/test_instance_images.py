"""An image of a real guest that runs on: another boots from it, whatever was killed on the way."""

from __future__ import annotations

import contextlib
import sqlite3

import aiohttp
import pytest

from launcher import failpoints
from launcher.drivers import process
from tests.serving import Json, Server
from tests.waiting import eventually, until

pytestmark = [pytest.mark.host, pytest.mark.timeout(400)]

WRITER = """
cat > /tmp/writer << 'END'
n=0
while [ ! -e /tmp/enough ]; do
  n=$((n + 1))
  echo $n > /root/new && mv /root/new /root/count && sync && echo $n > /tmp/synced
done
END
sh /tmp/writer < /dev/null > /dev/null 2>&1 &
"""
POINTS = [
    f"{point}:1:kill"
    for point in ("image.copy:after", "image.bring:after", "image.active:before", "image.active:after")
]
"""Before and after each of the rest, `tests/flow/test_instance_images.py` cuts it off."""


async def in_guest(server: Server, name: str, script: str) -> str:
    return (await server.cli("ssh", name, "--", script)).strip()


async def synced(server: Server) -> int:
    return int(await in_guest(server, "one", "cat /tmp/synced 2> /dev/null || true") or 0)


async def sound(server: Server) -> None:
    found = await server.cli_json("audit")
    assert (found["findings"], found["silent"]) == ([], [])


async def test_a_copy_of_a_running_guest_boots_and_has_what_was_written(server: Server) -> None:
    async with server.running():
        await server.cli("keypair", "create", "test")
        await server.cli("run", "ami-tiny", "--key", "test", "--name", "one", "--wait=active,ssh")
        await in_guest(server, "one", f"echo kept > /root/file; sync; {WRITER}")
        await until_more(server, 0)
        before = await synced(server)
        made = await server.cli_json("image", "create", "copy", "--from", "one")
        await until_more(server, await synced(server))
        await _is_flat(server, made["images"][0])
        await server.cli("run", "copy", "--key", "test", "--name", "two", "--wait=active,ssh")
        kept, count, hostname = (await in_guest(server, "two", "cat /root/file /root/count; hostname")).split()
        assert (kept, hostname.partition(".")[0]) == ("kept", "two")
        assert int(count) >= before
        await sound(server)
        await server.cli("delete", "two", "--wait")
        await server.cli("image", "delete", "copy")
        await in_guest(server, "one", "touch /tmp/enough")
        server.preloaded = True
        for failpoint in POINTS:
            await _killed_there(server, failpoint)
        await server.cli("stop", "one", "--force", "--wait")
        await _is_flat(server, (await server.cli_json("image", "create", "cold", "--from", "one"))["images"][0])
        await server.cli("delete", "one", "--wait")
        await sound(server)


async def until_more(server: Server, than: int) -> None:
    async def more() -> bool:
        return await synced(server) > than

    await eventually(more, within=30, what="the guest writing on")


async def _is_flat(server: Server, image: Json) -> None:
    assert (image["state"], image["format"]) == ("active", "qcow2")
    said = await process.run(["qemu-img", "info", "-f", "qcow2", str(server.state / "vault" / image["sha256"])])
    assert "backing" not in said
    await process.run(["qemu-img", "check", "-q", "-f", "qcow2", str(server.state / "vault" / image["sha256"])])


async def _killed_there(server: Server, failpoint: str) -> None:
    """The guest runs on, the next server makes the image, and nothing else is left."""
    await server.stop()
    server.environment = {failpoints.VARIABLE: failpoint}
    await server.start()
    name = failpoint.replace(":", "-")
    async with server.http() as http:
        with contextlib.suppress(aiohttp.ClientError):
            await http.post("/images", json={"name": name, "source": "instance:one"})
    await until(lambda: server.ended, within=30)
    server.environment = {}
    await server.start()

    async def active() -> bool:
        state = (await server.get(f"/images/{name}"))["state"]
        assert state != "error"
        return bool(state == "active" and (await server.get("/instances/one"))["task_state"] is None)

    await eventually(active, within=30, what=failpoint)
    assert list((server.state / "vault" / "arriving").iterdir()) == []
    assert list((server.state / "instances").glob("instance-*/image")) == []
    await sound(server)
    await server.cli("image", "delete", name)
    with contextlib.closing(sqlite3.connect(f"file:{server.state}/controller.db?mode=ro", uri=True)) as db:
        assert db.execute("SELECT count(*) FROM images WHERE state IN ('saving', 'error')").fetchone() == (0,)
