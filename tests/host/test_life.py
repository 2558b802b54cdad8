"""The life of a real guest, from its first boot to its own power-off."""

from __future__ import annotations

import pytest

from tests.host.test_story import leftovers
from tests.serving import Json, Server
from tests.waiting import eventually, until

BOOT = "cat /proc/sys/kernel/random/boot_id"
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
    """Pause and suspend keep its memory, all keep its disk and its address, and it obeys its power button."""
    async with server.running():
        await server.cli("keypair", "create", "test")
        await server.cli("run", "ami-tiny", "--key", "test", "--name", "vm", "--wait=active,ssh")
        begun = await in_guest(server, f"echo kept > /root/file; {BOOT}")
        await server.cli("pause", "vm", "--wait")
        assert await status(server) == "PAUSED"
        await sound(server)
        await server.cli("unpause", "vm", "--wait")
        await server.cli("suspend", "vm", "--wait")
        assert await status(server) == "SUSPENDED"
        await sound(server)
    (memory,) = (server.state / "instances").glob("instance-*/memory")
    assert memory.stat().st_size > 2**20
    async with server.running():
        await resumes_and_reboots(server, begun)
        assert not memory.exists()
        await stops_grows_and_starts(server)
        await powers_itself_off(server)


async def resumes_and_reboots(server: Server, begun: str) -> None:
    await server.cli("resume", "vm", "--wait")
    assert await in_guest(server, BOOT) == begun, "it went on, it did not boot"
    await sound(server)
    await server.cli("reboot", "vm", "--wait")
    again = await in_guest(server, f"cat /root/file; {BOOT}")
    assert again.split()[0] == "kept"
    assert begun not in again


async def stops_grows_and_starts(server: Server) -> None:
    before = await server.get("/instances/vm")
    await server.cli("stop", "vm", "--wait")
    assert await status(server) == "STOPPED"
    assert len(leftovers(server)) == 4, "all but its machine"
    await sound(server)
    await server.cli("set", "vm", "--flavor", "m1.small")
    await server.cli("start", "vm", "--wait")
    assert (await in_guest(server, "cat /root/file /sys/block/vda/size")).split() == ["kept", str(20 * 2**21)]
    assert (await server.get("/instances/vm"))["addresses"] == before["addresses"]


async def test_a_guest_that_powers_itself_off_while_nobody_watches_is_obeyed(server: Server) -> None:
    """After a restart it was started again, as if it had been killed."""
    log = server.state / "libvirt" / "log" / "qemu"
    async with server.running():
        await server.cli("keypair", "create", "test")
        await server.cli("run", "ami-tiny", "--key", "test", "--name", "vm", "--wait=active,ssh")
        await in_guest(server, "(sleep 2; poweroff) >/dev/null 2>&1 & echo soon")
        (console,) = (server.state / "instances").glob("instance-*/console.log")
        await server.kill()
    await until(lambda: "Power down" in console.read_text(errors="replace"))
    assert "shutting down" not in next(log.glob("instance-*.log")).read_text()
    async with server.running():
        await server.until_instance("vm", status="STOPPED")
        await sound(server)
        assert len(leftovers(server)) == 4, "all but its machine"


async def powers_itself_off(server: Server) -> None:
    """Once it is stopped, once it is its end, protected or not."""

    async def gone() -> bool:
        return leftovers(server) == []

    await in_guest(server, "echo off; poweroff")
    await server.until_instance("vm", status="STOPPED")
    await server.cli("set", "vm", "--on-shutdown", "terminate", "--protect")
    await server.cli("delete", "vm", code=1)
    await server.cli("start", "vm", "--wait")
    await in_guest(server, "echo off; poweroff")
    await eventually(gone, within=30, what="the end of its own")
