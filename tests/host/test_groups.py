"""Security groups of running guests, with real packets: one guest knocks at another's port."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.serving import Server
from tests.waiting import eventually

pytestmark = pytest.mark.host

AT_ONCE = 5.0
"""Seconds within which a change must be felt: less than between two heartbeats, which would make up for a lost one."""


async def knocks(server: Server, address: str) -> bool:
    """Whether the other guest's sshd greets the first one, which is asked over ssh."""
    said = await server.cli("ssh", "inside", "--", f"nc -w 1 {address} 22 </dev/null | head -c 4; echo")
    return "SSH-" in said


async def becomes(server: Server, address: str, wanted: bool) -> float:
    """Seconds until a knock is answered, or until it is no more."""
    begun = time.monotonic()

    async def look() -> bool:
        return await knocks(server, address) is wanted

    await eventually(look, within=60, what=f"the port {'open' if wanted else 'closed'}")
    return time.monotonic() - begun


async def test_a_port_of_a_running_guest_is_opened_and_closed_at_once(server: Server, tmp_path: Path) -> None:
    server.settings = ["firewall.allow_project_net_traffic=false"]
    async with server.running():
        await server.cli("keypair", "create", "test", "--file", str(tmp_path / "test.pem"))
        await server.cli("group", "create", "ssh", "--rule", "tcp:22")
        await server.cli("group", "create", "web")
        await server.cli("run", "ami-tiny", "--name", "web", "--group", "web", "--wait=active")
        await server.cli(
            *("run", "ami-tiny", "--name", "inside", "--key", "test", "--group", "ssh", "--wait=active,ssh")
        )
        address = (await server.get("/instances/web"))["addresses"][0]

        async def booted() -> bool:
            return "ami-tiny: sshd" in await server.cli("console", "web")

        await eventually(booted, within=60, what="the other guest's boot")
        assert not await knocks(server, address)
        felt = []
        for words, wanted in (
            ("group allow web tcp 22 --from-group ssh", True),
            ("group revoke web tcp 22 --from-group ssh", False),
            ("group set web ssh", True),
            ("group set web web", False),
        ):
            await server.cli(*words.split())
            felt.append(await becomes(server, address, wanted))
        await server.cli("network", "explain", "web", "--from", address, "--port", "22", code=1)
        assert max(felt) < AT_ONCE, felt
