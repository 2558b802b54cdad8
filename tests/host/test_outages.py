"""RabbitMQ goes away while fifty launches are under way; all of them end in a running machine when it is back.

What is asked of the API meanwhile is refused with 503: it asks the controller over the same broker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

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

Outage = Callable[[Broker], Awaitable[None]]


async def stopped(broker: Broker) -> None:
    await asyncio.to_thread(broker.stop)
    await asyncio.to_thread(broker.start)


async def killed(broker: Broker) -> None:
    await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(broker.start)


async def frozen(broker: Broker) -> None:
    """For longer than it takes to give it up: 33 s without a heartbeat."""
    broker.freeze()
    try:
        await asyncio.sleep(40)
    finally:
        broker.thaw()


async def without_queues(broker: Broker) -> None:
    async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
        for queue in ("controller", "scheduler", "network", "compute", "compute.node-1"):
            await channel.queue_delete(queue)


@pytest.fixture
async def busy(server: Server, broker: Broker) -> Server:
    server.settings = [
        "virt.driver=fake",
        "host.name=node-1",
        "fake.step_delay_s=0.2",
        "quotas.instances=1000",
        "quotas.cores=1000",
        "quotas.memory_mb=1000000",
        f"bus.url={broker.url}",
    ]
    await server.start()
    return server


async def list_all(http: aiohttp.ClientSession) -> list[Json]:
    """Empty while the API has no broker."""
    async with http.get("/instances?limit=1000") as answer:
        found: list[Json] = (await answer.json())["instances"] if answer.status == 200 else []
        return found


@pytest.mark.parametrize("outage", [stopped, killed, frozen, without_queues], ids=lambda outage: outage.__name__)
async def test_fifty_launches_outlive_a_broker_that_was(busy: Server, broker: Broker, outage: Outage) -> None:
    body = {"image": "ami-tiny", "flavor": "m1.tiny", "count": LAUNCHES}
    async with busy.http() as http:
        async with http.post("/instances", json=body) as answer:
            assert answer.status == 202

        async def under_way() -> bool:
            return any(each["task_state"] == "imaging" for each in await list_all(http))

        async def all_active() -> bool:
            return [each["status"] for each in await list_all(http)] == ["ACTIVE"] * LAUNCHES

        await eventually(under_way, what="launches under way")
        await outage(broker)
        began = time.monotonic()
        await eventually(all_active, within=LATE, what="all active")
        print(f"{outage.__name__}: all active {time.monotonic() - began:.1f} s after it was back")  # noqa: T201
        async with http.post("/instances", json={**body, "count": 1}) as answer:
            assert answer.status == 202
    assert len(leases(busy)) in (LAUNCHES, LAUNCHES + 1)


async def test_without_a_broker_the_api_says_so_and_nothing_was_accepted(busy: Server, broker: Broker) -> None:
    body = {"image": "ami-tiny", "flavor": "m1.tiny"}
    async with busy.http() as http:
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
