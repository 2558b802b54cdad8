"""The life of a real guest, from its first boot to its own power-off."""

from __future__ import annotations

import pytest

from tests.host.test_story import leftovers
from tests.serving import Json, Server
from tests.waiting import eventually

pytestmark = [pytest.mark.host, pytest.mark.timeout(300)]


async def in_guest(server: Server, command: str) -> str:
    """What it says, once it lets us in."""

    async def say() -> str | None:
        try:
            return (await server.cli("ssh", "vm", "--", command)).strip()
        except AssertionError:
            return None

    return await eventually(say, within=60, what=f"the guest's answer to {command}")


async def status(server: Server) -> str:
    return str((await server.get("/instances/vm"))["status"])


async def sound(server: Server) -> None:
    found: Json = await server.cli_json("audit")
    assert (found["findings"], found["silent"]) == ([], [])


async def test_a_guest_lives_through_everything_that_is_done_to_it(server: Server) -> None:
    """Pause and suspend keep its memory, a reboot and a stop its disk; all keep its address, and it obeys each time."""
    boot = "cat /proc/sys/kernel/random/boot_id"
    async with server.running():
        await server.cli("keypair", "create", "test")
        await server.cli("run", "ami-tiny", "--key", "test", "--name", "vm", "--wait=active,ssh")
        first = await server.get("/instances/vm")
        begun = await in_guest(server, f"echo kept > /root/file; {boot}")

        await server.cli("pause", "vm", "--wait")
        assert await status(server) == "PAUSED"
        await sound(server)
        await server.cli("unpause", "vm", "--wait")

        await server.cli("suspend", "vm", "--wait")
        assert await status(server) == "SUSPENDED"
        directory = server.state / "instances" / f"instance-{first['number']:08x}"
        assert (directory / "memory").stat().st_size > 2**20
        await sound(server)
    async with server.running():
        await server.cli("resume", "vm", "--wait")
        assert not (directory / "memory").exists()
        assert await in_guest(server, boot) == begun, "it went on, it did not boot"
        await sound(server)

        await server.cli("reboot", "vm", "--wait")
        again = await in_guest(server, f"cat /root/file; {boot}")
        assert again.split()[0] == "kept"
        assert begun not in again

        await server.cli("stop", "vm", "--wait")
        assert await status(server) == "STOPPED"
        assert "is done" in await server.cli("events", "vm")
        assert len(leftovers(server)) == 4, "all but its machine"
        await sound(server)
        await server.cli("start", "vm", "--wait")
        assert (await in_guest(server, "cat /root/file")) == "kept"
        assert (await server.get("/instances/vm"))["addresses"] == first["addresses"]

        await in_guest(server, "echo off; poweroff")

        async def stopped() -> bool:
            return await status(server) == "STOPPED"

        await eventually(stopped, within=30, what="the guest's own end")
        await server.cli("delete", "vm", "--wait")
        assert leftovers(server) == []
