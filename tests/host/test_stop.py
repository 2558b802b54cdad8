"""SIGTERM: nothing more is accepted, what runs is finished or handed to the next process, in time."""

from __future__ import annotations

import asyncio
import signal
import time

import aiohttp
import pytest

from launcher import failpoints
from launcher.bus import DRAIN_PATIENCE
from tests.serving import Server
from tests.waiting import eventually, until

pytestmark = pytest.mark.host
DEADLINE = DRAIN_PATIENCE + 10.0
BODY = {"image": "ami-tiny", "flavor": "m1.tiny"}


async def test_what_hangs_longer_than_a_stop_may_take_is_cut_and_resumed(server: Server) -> None:
    server.settings, server.program = ["virt.driver=fake"], "tests.host.impatient"
    server.environment = {failpoints.VARIABLE: "imaging:before:1:sleep=300"}
    await server.start()
    async with server.http() as http, http.post("/instances", json={**BODY, "name": "hangs"}) as answer:
        assert answer.status == 202
    await server.until_instance("hangs", task_state="imaging")
    began = time.monotonic()
    assert await server.stop() == 128 + signal.SIGALRM
    assert time.monotonic() - began < 10
    server.environment = {}
    async with server.running():
        await server.until_instance("hangs", status="ACTIVE")


async def test_a_stop_in_the_middle_ends_in_time_and_the_next_process_goes_on(server: Server) -> None:
    server.settings = ["virt.driver=fake"]
    server.environment = {failpoints.VARIABLE: "imaging:before:1:sleep=300"}
    async with server.running():
        async with server.http() as http:
            async with http.post("/instances", json={**BODY, "name": "hangs"}) as answer:
                assert answer.status == 202
            await server.until_instance("hangs", task_state="imaging")
            async with http.post("/instances", json={**BODY, "name": "quick"}) as answer:
                assert answer.status == 202
            began = time.monotonic()
            stopping = asyncio.create_task(server.stop())

            async def refused() -> bool:
                try:
                    async with http.post("/instances", json=BODY):
                        return False
                except aiohttp.ClientConnectionError:
                    return True

            await eventually(refused, what="a closed door")
            assert time.monotonic() - began < 5
        assert await stopping == 0
        assert time.monotonic() - began < DEADLINE
    server.environment = {}
    async with server.running():
        for name in ("hangs", "quick"):
            await server.until_instance(name, status="ACTIVE")
        await until(lambda: "start: " in server.said, within=30)
        assert "1 resumed (instance-00000001)" in server.said
        assert "differences: 0" in await server.cli("audit")
