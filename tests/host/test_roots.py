"""A real guest on another root: for a while with its own beside it, then on a new one for good."""

from __future__ import annotations

import pytest

from tests.serving import Server
from tests.waiting import eventually

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]


async def in_guest(server: Server, script: str) -> str:
    """What it says, once it lets us in."""

    async def say() -> str | None:
        try:
            return (await server.cli("ssh", "vm", "--", script)).strip() or "nothing"
        except AssertionError:
            return None

    return await eventually(say, within=90, what=f"the guest's answer to {script}")


async def sound(server: Server) -> None:
    found = await server.cli_json("audit")
    assert (found["findings"], found["silent"]) == ([], [])


async def test_a_guest_is_rescued_and_rebuilt(server: Server) -> None:
    """Whatever root it has, it has its key; a restart of the server finds it as it is."""
    async with server.running():
        await server.cli("keypair", "create", "test")
        await server.cli("run", "ami-tiny", "--key", "test", "--name", "vm", "--wait=active,ssh")
        await in_guest(server, "echo kept > /root/file; sync")
        await server.cli("rescue", "vm", "--wait")
        look = "ls /root/file 2>&1; cat /sys/block/vdb/serial; echo; mount /dev/vdb /mnt; cat /mnt/root/file"
        seen = await in_guest(server, f"mkdir -p /mnt; {look}")
        assert seen.split()[-2:] == ["own-root", "kept"]
        assert "No such file" in seen
        await in_guest(server, "echo mended > /mnt/root/file; umount /mnt; sync")
        await sound(server)
    async with server.running():
        assert (await server.get("/instances/vm"))["status"] == "RESCUED"
        await sound(server)
        await server.cli("unrescue", "vm", "--wait")
        assert await in_guest(server, "cat /root/file") == "mended"
        assert not list((server.state / "instances").glob("*/rescue"))
        await server.cli("rebuild", "vm", "--wait")
        assert "No such file" in await in_guest(server, "ls /root/file 2>&1 || true")
        await sound(server)
        await server.cli("delete", "vm", "--wait")
        assert not list((server.state / "instances").glob("instance-*"))
