"""RabbitMQ goes away while fifty launches are under way: the process with all roles goes on without it, and returns to
it when it is back. A process whose controller is elsewhere refuses with 503, and nothing was accepted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aio_pika
import aiohttp
import pytest

from tests.host.killing import leases
from tests.rabbitmq import Broker
from tests.serving import Json, Server
from tests.waiting import eventually

pytestmark = [pytest.mark.host, pytest.mark.rabbitmq, pytest.mark.timeout(300)]

LAUNCHES = 50
LATE = 150.0
"""Seconds; a launch whose step was cut is looked at again after 10, a call whose queue went with it ends after 60."""

Outage = Callable[[Broker], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def stopped(broker: Broker) -> AsyncIterator[None]:
    await asyncio.to_thread(broker.stop)
    yield
    await asyncio.to_thread(broker.start)


@asynccontextmanager
async def killed(broker: Broker) -> AsyncIterator[None]:
    await asyncio.to_thread(broker.kill)
    yield
    await asyncio.to_thread(broker.start)


@asynccontextmanager
async def frozen(broker: Broker) -> AsyncIterator[None]:
    """For longer than it takes to give the connections up: 33 s without a heartbeat."""
    began = time.monotonic()
    broker.freeze()
    try:
        yield
        await asyncio.sleep(max(0, 40 - (time.monotonic() - began)))
    finally:
        broker.thaw()


@asynccontextmanager
async def without_queues(broker: Broker) -> AsyncIterator[None]:
    async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
        for queue in ("controller", "scheduler", "network", "compute", "compute.node-1"):
            await channel.queue_delete(queue)
    yield


async def launch(http: aiohttp.ClientSession, body: Json) -> None:
    async with http.post("/instances", json=body) as answer:
        assert answer.status == 202, await answer.text()


async def list_all(http: aiohttp.ClientSession) -> list[Json]:
    async with http.get("/instances?limit=1000") as answer:
        assert answer.status == 200, await answer.text()
        found: list[Json] = (await answer.json())["instances"]
        return found


@asynccontextmanager
async def alarmed(broker: Broker) -> AsyncIterator[None]:
    await asyncio.to_thread(broker.alarm, on=True)
    try:
        yield
    finally:
        await asyncio.to_thread(broker.alarm, on=False)


@pytest.mark.parametrize("outage", [stopped, killed, frozen, alarmed, without_queues], ids=lambda each: each.__name__)
async def test_fifty_launches_outlive_a_broker_that_was(busy: Server, broker: Broker, outage: Outage) -> None:
    """Those under way go on, and those that are asked for meanwhile are accepted and go on as well."""
    body = {"image": "ami-tiny", "flavor": "m1.tiny", "count": LAUNCHES}
    async with busy.http() as http:
        await launch(http, body)

        async def under_way() -> bool:
            return any(each["task_state"] == "imaging" for each in await list_all(http))

        async def all_active() -> bool:
            return [each["status"] for each in await list_all(http)] == ["ACTIVE"] * (LAUNCHES + 1)

        await eventually(under_way, what="launches under way")
        began = time.monotonic()
        async with outage(broker):
            await launch(http, {**body, "count": 1})
            await eventually(all_active, within=LATE, what="all active")
            print(f"{outage.__name__}: all active after {time.monotonic() - began:.1f} s")  # noqa: T201

        async def well() -> bool:
            async with http.get("/healthz") as answer:
                return bool((await answer.json())["status"] == "ok")

        await eventually(well, within=90, what="the broker in use again")
        await launch(http, {**body, "count": 1})
    assert len(leases(busy)) in (LAUNCHES + 1, LAUNCHES + 2)


async def test_without_a_broker_an_api_alone_says_so_and_nothing_was_accepted(
    busy: Server, broker: Broker, tmp_path: Path
) -> None:
    body = {"image": "ami-tiny", "flavor": "m1.tiny"}
    door = Server(tmp_path / "door")
    door.settings = ['host.roles=["api"]', "host.name=door", "virt.driver=fake", f"bus.url={broker.url}"]
    await door.start()
    token = busy.admin["token"]
    try:
        async with door.http(token) as http:
            await asyncio.to_thread(broker.kill)

            async def refused() -> str | None:
                async with http.post("/instances", json=body) as answer:
                    return (await answer.json())["code"] if answer.status == 503 else None

            assert await eventually(refused, what="503") == "bus_unavailable"
            await asyncio.to_thread(broker.start)

            async def accepted() -> bool:
                async with http.post("/instances", json=body, headers={"Idempotency-Key": "1"}) as answer:
                    return answer.status == 202

            await eventually(accepted, within=30, what="202")
            assert len(await list_all(http)) == 1
    finally:
        await door.stop()
