"""What only a broker can do to us: it goes away, it freezes, it forgets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import warnings

import aio_pika
import pytest

from launcher.amqp import AmqpBus
from launcher.bus import no_span
from launcher.errors import BusUnavailable, NoRoute, RpcTimeout
from tests.contract.wire import CTX, Add, Tick, Wire, Work, Worker, amqp_bus, until
from tests.rabbitmq import Broker, Cable, free_ports

pytestmark = pytest.mark.rabbitmq


class Waiting(Work):
    topic = "beta"


async def eventually_answered(caller: AmqpBus, limit: float = 15) -> None:
    """Call until it works, while the bus finds its way back."""
    async with asyncio.timeout(limit):
        while True:
            with contextlib.suppress(BusUnavailable, RpcTimeout, NoRoute):
                assert (await caller.call(CTX, Add(a=1, b=1), timeout=1)).total == 2
                return
            await asyncio.sleep(0.1)


async def test_poison_is_kept_by_the_broker(amqp: Wire[AmqpBus], broker: Broker) -> None:
    async with amqp.bus.serve("alpha", "one", [], no_span):
        await amqp.put("alpha", b"poison")
        await until(lambda: len(amqp.bus.dead_letters()) == 1)
    async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
        queue = await channel.get_queue("launcher.dead")
        letter = await queue.get(timeout=5)
    assert letter.body == b"poison"
    deaths = letter.headers["x-death"]
    assert isinstance(deaths, list)
    assert isinstance(deaths[0], dict)
    assert (deaths[0]["reason"], deaths[0]["queue"]) == ("rejected", "alpha")


async def test_calls_go_on_after_the_connection_was_cut(amqp: Wire[AmqpBus], broker: Broker) -> None:
    async with Cable(broker.url) as cable, amqp_bus(cable.url) as bus:
        worker = Worker()
        async with bus.serve("alpha", "one", worker.routes, no_span), bus.listen(worker.routes):
            await eventually_answered(bus)
            for _ in range(2):
                cable.pull()
                await until(lambda: not bus.ready)
                await until(lambda: bus.ready)
                await eventually_answered(bus)
            await bus.notify(CTX, Tick(number=9))
            assert await worker.next() == "9"


async def test_a_call_under_way_fails_when_its_connection_is_cut(amqp: Wire[AmqpBus], broker: Broker) -> None:
    worker = Worker()
    worker.gate.clear()
    async with (
        Cable(broker.url) as cable,
        amqp_bus(cable.url) as caller,
        amqp.bus.serve("alpha", "one", worker.routes, no_span),
    ):
        call = asyncio.create_task(caller.call(CTX, Add(a=1, b=1)))
        await until(lambda: len(worker.contexts) == 1)
        cable.pull()
        with pytest.raises(BusUnavailable, match="may have been run"):
            await asyncio.wait_for(call, 5)
        worker.gate.set()


async def test_what_was_taken_is_not_taken_again_when_its_acknowledgement_was_lost(
    amqp: Wire[AmqpBus], broker: Broker
) -> None:
    worker = Worker()
    async with (
        Cable(broker.url) as cable,
        amqp_bus(cable.url) as bus,
        bus.serve("alpha", "one", worker.routes, no_span),
    ):
        cable.deaf = True
        await amqp.peer.cast(CTX, Work(label="once"))
        assert await worker.next() == "once"
        cable.pull()
        await until(lambda: bus.ready)
        await amqp.peer.cast(CTX, Work(label="then"))
        assert await worker.next() == "then"


async def test_a_deleted_queue_is_made_again(amqp: Wire[AmqpBus], broker: Broker) -> None:
    async with amqp.bus.serve("alpha", "one", Worker().routes, no_span):
        async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
            await channel.queue_delete("alpha")
        await eventually_answered(amqp.peer)


async def test_a_frozen_broker_is_unavailable_in_time(amqp: Wire[AmqpBus], broker: Broker) -> None:
    async with (
        amqp.bus.serve("alpha", "one", Worker().routes, no_span),
        amqp_bus(broker.url, publish_timeout=1) as bus,
    ):
        broker.freeze()
        try:
            for send in (bus.cast(CTX, Work(label="x")), bus.call(CTX, Add(a=1, b=1))):
                began = time.monotonic()
                with pytest.raises(BusUnavailable, match="may have been sent: TimeoutError"):
                    await send
                assert 0.9 < time.monotonic() - began < 3
            with pytest.raises(RpcTimeout):
                await bus.call(CTX, Add(a=1, b=1), timeout=0.3)
        finally:
            broker.thaw()
        await eventually_answered(bus)


async def test_a_broker_that_stays_frozen_is_given_up(
    amqp: Wire[AmqpBus], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library then raises CancelledError in a task that nobody cancelled."""
    monkeypatch.setattr("launcher.connections.HEARTBEAT", 1)
    worker = Worker()
    worker.gate.clear()
    async with (
        amqp.bus.serve("alpha", "one", worker.routes, no_span),
        amqp_bus(broker.url, publish_timeout=60) as bus,
    ):
        call = asyncio.create_task(bus.call(CTX, Add(a=1, b=1)))
        await until(lambda: len(worker.contexts) == 1)
        broker.freeze()
        try:
            async with asyncio.timeout(15):
                with pytest.raises(BusUnavailable, match="may have been sent"):
                    await bus.cast(CTX, Work(label="x"))
                with pytest.raises(BusUnavailable, match="may have been run"):
                    await call
        finally:
            broker.thaw()
            worker.gate.set()
        await eventually_answered(bus)


async def test_a_failed_connection_is_not_left_to_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread that has no event loop the library's own clean-up cannot run, and warns."""
    monkeypatch.setattr("launcher.connections.RETRY_INTERVAL", 0.01)
    (nobodys,) = free_ports(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with amqp_bus(f"amqp://guest:guest@127.0.0.1:{nobodys}/") as bus:
            for _ in range(10):
                await asyncio.to_thread(gc.collect)
            assert not bus.ready
    assert [str(warning.message) for warning in caught] == []


async def test_a_broker_that_comes_later_is_waited_for(broker: Broker) -> None:
    broker.stop()
    worker = Worker()
    async with amqp_bus(broker.url) as bus, bus.serve("beta", "one", worker.routes, no_span):
        assert not bus.ready
        with pytest.raises(BusUnavailable, match="not sent, no broker"):
            await bus.cast(CTX, Work(label="x"))
        await bus.notify(CTX, Tick(number=1))
        await asyncio.to_thread(broker.start)
        async with bus.serve("alpha", "one", worker.routes, no_span):
            await eventually_answered(bus)
            await until(lambda: bus.ready)


async def test_everything_goes_on_after_the_broker_was_killed(broker: Broker, amqp: Wire[AmqpBus]) -> None:
    async with amqp.bus.serve("beta", "one", [], no_span):
        pass
    await amqp.bus.cast(CTX, Waiting(label="kept"))
    worker = Worker()
    async with amqp.bus.serve("alpha", "one", worker.routes, no_span), amqp.peer.listen(worker.routes):
        await eventually_answered(amqp.peer)
        broker.kill()
        await until(lambda: not amqp.peer.ready)
        began = time.monotonic()
        with pytest.raises(BusUnavailable, match="not sent"):
            await amqp.peer.cast(CTX, Work(label="x"))
        assert time.monotonic() - began < 1
        await asyncio.to_thread(broker.start)
        await eventually_answered(amqp.peer)
        async with amqp.bus.serve("beta", "one", [Waiting.to(worker.work)], no_span):
            assert await worker.next() == "kept"
