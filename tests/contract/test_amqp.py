"""What only a broker can do to us: it goes away, it freezes, it forgets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import warnings

import aio_pika
import pytest
from pamqp.commands import Basic

from launcher.amqp import AmqpBus
from launcher.bus import no_span
from launcher.connections import EXCHANGE
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
        await until(lambda: amqp.bus.dead.count == 1)
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
            with pytest.raises(RpcTimeout):
                await bus.call(CTX, Add(a=1, b=1), timeout=0.3)
            began = time.monotonic()
            with pytest.raises(BusUnavailable, match="may have been sent: TimeoutError"):
                await bus.cast(CTX, Work(label="x"))
            assert 0.9 < time.monotonic() - began < 3
            began = time.monotonic()
            for send in (bus.cast(CTX, Work(label="x")), bus.call(CTX, Add(a=1, b=1))):
                with pytest.raises(BusUnavailable, match="not sent, no broker: no confirmation in 1 s"):
                    await send
            assert time.monotonic() - began < 0.5
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


async def test_without_a_broker_the_roles_of_one_process_go_on() -> None:
    (nobodys,) = free_ports(1)
    worker = Worker()
    async with (
        amqp_bus(f"amqp://guest:guest@127.0.0.1:{nobodys}/") as bus,
        bus.serve("alpha", "one", worker.routes, no_span),
        bus.listen([Tick.to(worker.tick)]),
    ):
        assert not bus.ready
        assert (await bus.call(CTX, Add(a=1, b=2))).total == 3
        assert (await bus.call(CTX, Add(a=1, b=2), host="one")).total == 3
        with pytest.raises(BusUnavailable):
            await bus.call(CTX, Add(a=1, b=2), host="two")
        await bus.cast(CTX, Work(label="cast"))
        assert await worker.next() == "cast"
        await bus.notify(CTX, Tick(number=3))
        assert await worker.next() == "3"


async def test_a_frozen_broker_costs_the_first_call_some_time_and_runs_none_twice(broker: Broker) -> None:
    worker = Worker()
    async with (
        amqp_bus(broker.url, publish_timeout=1) as bus,
        bus.serve("alpha", "one", worker.routes, no_span),
    ):
        await eventually_answered(bus)
        broker.freeze()
        try:
            began = time.monotonic()
            assert (await bus.call(CTX, Add(a=2, b=2))).total == 4
            assert 0.9 < time.monotonic() - began < 3
            began = time.monotonic()
            await bus.cast(CTX, Work(label="cast"))
            assert await worker.next() == "cast"
            assert (await bus.call(CTX, Add(a=2, b=3))).total == 5
            assert time.monotonic() - began < 0.5
        finally:
            broker.thaw()
        await until(lambda: bus.ready, limit=60)
        asked = len(worker.contexts)
        assert asked == 4
        await bus.cast(CTX, Work(label="after"))
        assert await worker.next() == "after"
        assert len(worker.contexts) == asked + 1


async def test_a_call_that_a_role_of_this_process_works_at_outlives_the_broker(broker: Broker) -> None:
    worker = Worker()
    worker.gate.clear()
    async with amqp_bus(broker.url) as bus, bus.serve("alpha", "one", worker.routes, no_span):
        call = asyncio.create_task(bus.call(CTX, Add(a=1, b=1)))
        await until(lambda: len(worker.contexts) == 1)
        broker.kill()
        await until(lambda: not bus.ready)
        worker.gate.set()
        assert (await asyncio.wait_for(call, 5)).total == 2
        assert len(worker.contexts) == 1
        await asyncio.to_thread(broker.start)
        await until(lambda: bus.ready, limit=20)


async def test_an_alarm_at_the_broker_stops_nobody_here(broker: Broker) -> None:
    worker = Worker()
    async with amqp_bus(broker.url, publish_timeout=1) as bus, bus.serve("alpha", "one", worker.routes, no_span):
        await eventually_answered(bus)
        await asyncio.to_thread(broker.alarm, on=True)
        try:
            for label in ("first", "second", "third"):
                await bus.cast(CTX, Work(label=label))
                assert await worker.next() == label
                assert (await bus.call(CTX, Add(a=1, b=1))).total == 2
            assert not bus.ready
        finally:
            await asyncio.to_thread(broker.alarm, on=False)
        await until(lambda: bus.ready, limit=60)
        await eventually_answered(bus)
        assert worker.taken.empty()


async def test_a_connection_that_only_the_broker_believes_in_is_no_hindrance(
    amqp: Wire[AmqpBus], broker: Broker
) -> None:
    """A queue of a fixed name would stay locked by the old connection until the broker's heartbeat has noticed."""
    worker = Worker()
    async with (
        Cable(broker.url) as cable,
        amqp_bus(cable.url) as bus,
        bus.serve("alpha", "one", worker.routes, no_span),
        bus.listen(worker.routes),
    ):
        await eventually_answered(amqp.peer)
        cable.strand()
        await until(lambda: not bus.ready)
        began = time.monotonic()
        await until(lambda: bus.ready)
        assert time.monotonic() - began < 5
        await amqp.peer.notify(CTX, Tick(number=4))
        assert await worker.next() == "4"
        await eventually_answered(amqp.peer)


async def test_a_deleted_exchange_is_made_again_and_bound_to(
    amqp: Wire[AmqpBus], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.intake.REBIND_INTERVAL", 0.2)
    worker = Worker()
    async with amqp_bus(broker.url) as bus, bus.serve("alpha", "one", worker.routes, no_span):
        await eventually_answered(amqp.peer)
        async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
            await channel.exchange_delete("launcher")
        await eventually_answered(amqp.peer)
        assert len(worker.contexts) == 2


async def test_a_call_that_was_in_a_deleted_queue_is_made_without_it(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited for its time-out of 60 s."""
    monkeypatch.setattr("launcher.intake.PREFETCH", 1)
    worker = Worker()
    async with amqp_bus(broker.url) as bus, bus.serve("alpha", "one", worker.routes, no_span):
        await eventually_answered(bus)
        async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
            calls = [asyncio.create_task(bus.call(CTX, Add(a=1, b=number))) for number in range(200)]
            await asyncio.sleep(0)
            await channel.queue_delete("alpha")
        async with asyncio.timeout(15):
            assert [(await call).total for call in calls] == [1 + number for number in range(200)]
        assert len(worker.contexts) == 201


UNREADABLE = {
    "no UTF-8": b"\x04\x00\x02\xff\xfe",
    "a date beyond all years": b"\x00\x40" + b"\xff" * 8,
    "a header whose name is no UTF-8": b"\x20\x00\x00\x00\x00\x05\x02\xff\xfet\x01",
}


@pytest.mark.parametrize("properties", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_properties_that_nobody_can_decode_are_a_dead_letter(
    amqp: Wire[AmqpBus], broker: Broker, monkeypatch: pytest.MonkeyPatch, properties: bytes
) -> None:
    worker = Worker()
    async with amqp.bus.serve("alpha", "one", worker.routes, no_span):
        async with await aio_pika.connect(broker.url) as connection, connection.channel() as channel:
            exchange = await channel.get_exchange(EXCHANGE, ensure=False)
            with monkeypatch.context() as patched:
                patched.setattr(Basic.Properties, "marshal", lambda _: properties)
                await exchange.publish(aio_pika.Message(b"{}"), "alpha")
        await until(lambda: amqp.bus.dead.count == 1)
        assert amqp.bus.ready
        assert (await amqp.peer.call(CTX, Add(a=1, b=2))).total == 3
    assert "cannot be decoded" in amqp.bus.dead.newest[0].reason
    assert amqp.bus.dead.count == 1
