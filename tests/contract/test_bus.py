"""What every bus promises, tried on both."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from typing import Annotated

import pytest
from pydantic import BeforeValidator

from launcher.bus import QUEUE_LIMIT, no_span
from launcher.errors import (
    BadMessage,
    BusUnavailable,
    InsufficientSpace,
    NoRoute,
    RemoteError,
    RpcTimeout,
    UnknownMethod,
)
from launcher.messaging import Call, Cast, Context, Notice
from launcher.models import Span
from tests.contract.wire import (
    CTX,
    Add,
    AddElsewhere,
    AnyWire,
    Echo,
    Sum,
    Tick,
    Unheard,
    Work,
    Worker,
    bind_and_leave,
    memory_wire,
    until,
)

# --- calls -------------------------------------------------------------------------------------------


async def test_call_returns_the_reply_as_its_class(wire: AnyWire) -> None:
    async with wire.bus.serve("alpha", "one", Worker().routes, no_span):
        reply = await wire.peer.call(CTX, Add(a=2, b=3))
    assert reply == Sum(total=5, seen_by="one", address=IPv4Address("10.0.0.2"))


async def test_many_calls_at_once_each_get_their_own_reply(wire: AnyWire) -> None:
    async with wire.bus.serve("alpha", "one", Worker().routes, no_span):
        replies = await asyncio.gather(*(wire.peer.call(CTX, Add(a=n, b=0)) for n in range(50)))
    assert [reply.total for reply in replies] == list(range(50))


async def test_a_named_error_is_raised_as_its_class_with_hint_and_field(wire: AnyWire) -> None:
    async def add(_: Context, __: Add) -> Sum:
        raise InsufficientSpace("3.1 GiB needed", hint="free space", field="root_gb")

    async with wire.bus.serve("alpha", "one", [Add.to(add)], no_span):
        with pytest.raises(InsufficientSpace, match=r"3\.1 GiB needed") as caught:
            await wire.peer.call(CTX, Add(a=1, b=1))
    assert (caught.value.hint, caught.value.field) == ("free space", "root_gb")


async def test_an_unexpected_error_does_not_leak_its_text(wire: AnyWire, caplog: pytest.LogCaptureFixture) -> None:
    async def add(_: Context, __: Add) -> Sum:
        raise ValueError("the password is swordfish")

    async with wire.bus.serve("alpha", "one", [Add.to(add)], no_span):
        with pytest.raises(RemoteError, match="ValueError") as caught:
            await wire.peer.call(CTX, Add(a=1, b=1))
    assert "swordfish" not in str(caught.value)
    assert "swordfish" in caplog.text


async def test_an_unknown_method_is_told_to_the_caller(wire: AnyWire) -> None:
    async with wire.bus.serve("alpha", "one", [], no_span):
        with pytest.raises(UnknownMethod, match="add"):
            await wire.peer.call(CTX, Add(a=1, b=1))
    assert wire.bus.dead.count == 0


class NewerAdd(Call[Sum]):
    """As a later version might send it: with an argument that this one does not know."""

    topic = "alpha"
    method = "add"
    a: int
    b: int
    c: str


async def test_unknown_arguments_are_refused_without_showing_their_values(wire: AnyWire) -> None:
    async with wire.bus.serve("alpha", "one", Worker().routes, no_span):
        with pytest.raises(BadMessage, match="add: c: Extra inputs") as caught:
            await wire.peer.call(CTX, NewerAdd(a=1, b=1, c="swordfish"))
    assert "swordfish" not in str(caught.value)


class OlderAdd(Call[str]):
    """As an older version might ask: it expects another reply."""

    topic = "alpha"
    method = "add"
    a: int
    b: int


async def test_an_unreadable_reply_is_refused_at_the_caller(wire: AnyWire) -> None:
    async with wire.bus.serve("alpha", "one", Worker().routes, no_span):
        with pytest.raises(BadMessage, match="add: unreadable answer"):
            await wire.peer.call(CTX, OlderAdd(a=1, b=1))


async def test_a_handler_may_call_on(wire: AnyWire) -> None:
    async def add_elsewhere(ctx: Context, message: AddElsewhere) -> Sum:
        return await wire.bus.call(ctx, Add(a=message.a, b=1))

    async with (
        wire.bus.serve("alpha", "one", Worker().routes, no_span),
        wire.peer.serve("beta", "one", [AddElsewhere.to(add_elsewhere)], no_span),
    ):
        assert (await wire.peer.call(CTX, AddElsewhere(a=41))).total == 42


async def test_a_call_without_an_answer_times_out_and_the_late_answer_is_nobodys(wire: AnyWire) -> None:
    worker = Worker()
    worker.gate.clear()
    async with wire.bus.serve("alpha", "one", worker.routes, worker.spans.append):
        with pytest.raises(RpcTimeout, match=r"add to alpha: no answer in 0\.2 s"):
            await wire.peer.call(CTX, Add(a=1, b=1), timeout=0.2)
        worker.gate.set()
        await until(lambda: len(worker.spans) == 1)
        assert (await wire.peer.call(CTX, Add(a=2, b=2))).total == 4


async def test_a_call_past_its_deadline_is_not_run(wire: AnyWire) -> None:
    await bind_and_leave(wire)
    with pytest.raises(RpcTimeout):
        await wire.peer.call(CTX, Add(a=1, b=1), timeout=0.05)
    worker = Worker()
    async with wire.bus.serve("alpha", "one", worker.routes, no_span):
        await wire.peer.cast(CTX, Work(label="after"))
        await worker.next()
    assert len(worker.contexts) == 1


async def test_a_megabyte_crosses(wire: AnyWire) -> None:
    text = "ä" * 500_000
    async with wire.bus.serve("alpha", "one", Worker().routes, no_span):
        assert await wire.peer.call(CTX, Echo(text=text)) == text


async def test_cancelling_a_call_cancels_it(wire: AnyWire) -> None:
    worker = Worker()
    worker.gate.clear()
    async with wire.bus.serve("alpha", "one", worker.routes, no_span):
        call = asyncio.create_task(wire.peer.call(CTX, Add(a=1, b=1)))
        await until(lambda: len(worker.contexts) == 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        worker.gate.set()


# --- routing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [None, "nowhere"])
async def test_nobody_bound_is_no_route(wire: AnyWire, host: str | None) -> None:
    if host is not None:
        await bind_and_leave(wire)
    with pytest.raises(NoRoute, match="alpha"):
        await wire.peer.cast(CTX, Work(label="x"), host=host)
    with pytest.raises(NoRoute, match="alpha"):
        await wire.peer.call(CTX, Add(a=1, b=1), host=host)


async def test_the_workers_of_a_topic_share_its_queue(wire: AnyWire) -> None:
    one, two = Worker("one"), Worker("two")
    async with (
        wire.bus.serve("alpha", "one", one.routes, no_span),
        wire.peer.serve("alpha", "two", two.routes, no_span),
    ):
        for number in range(20):
            await wire.bus.cast(CTX, Work(label=str(number)))
        await until(lambda: one.taken.qsize() + two.taken.qsize() == 20)
    assert one.taken.qsize() >= 5
    assert two.taken.qsize() >= 5


async def test_a_host_reaches_its_worker_only(wire: AnyWire) -> None:
    async with (
        wire.bus.serve("alpha", "one", Worker("one").routes, no_span),
        wire.peer.serve("alpha", "two", Worker("two").routes, no_span),
    ):
        replies = [await wire.bus.call(CTX, Add(a=1, b=1), host="two") for _ in range(6)]
    assert {reply.seen_by for reply in replies} == {"two"}


async def test_a_message_waits_for_its_worker(wire: AnyWire) -> None:
    await bind_and_leave(wire)
    await wire.peer.cast(CTX, Work(label="shared"))
    await wire.peer.cast(CTX, Work(label="own"), host="one")
    worker = Worker()
    async with wire.bus.serve("alpha", "one", worker.routes, no_span):
        assert {await worker.next(), await worker.next()} == {"shared", "own"}


async def test_an_expired_cast_is_dropped(wire: AnyWire) -> None:
    await bind_and_leave(wire)
    wire.peer.cast_lifetime = 0.0
    await wire.peer.cast(CTX, Work(label="stale"))
    wire.peer.cast_lifetime = 60.0
    await wire.peer.cast(CTX, Work(label="fresh"))
    worker = Worker()
    async with wire.bus.serve("alpha", "one", worker.routes, no_span):
        assert await worker.next() == "fresh"
    assert worker.taken.empty()


async def test_leaving_waits_for_the_work_under_way_and_takes_no_more(wire: AnyWire) -> None:
    worker = Worker()
    worker.gate.clear()
    async with wire.bus.serve("alpha", "one", worker.routes, no_span):
        await wire.peer.cast(CTX, Work(label="begun"))
        await until(lambda: len(worker.contexts) == 1)
        asyncio.get_running_loop().call_later(0.1, worker.gate.set)
    assert await worker.next() == "begun"
    await wire.peer.cast(CTX, Work(label="too late"))
    assert len(worker.contexts) == 1


# --- notices -----------------------------------------------------------------------------------------


async def test_a_notice_reaches_every_listener(wire: AnyWire) -> None:
    one, two, three = Worker(), Worker(), Worker()
    async with wire.bus.listen(one.routes), wire.peer.listen(two.routes), wire.bus.listen(three.routes):
        await wire.bus.notify(CTX, Tick(number=7))
        assert [await each.next() for each in (one, two, three)] == ["7", "7", "7"]


async def test_a_notice_that_nobody_hears_is_fine(wire: AnyWire) -> None:
    await wire.bus.notify(CTX, Tick(number=1))
    worker = Worker()
    async with wire.peer.listen(worker.routes):
        await wire.bus.notify(CTX, Tick(number=2))
        assert await worker.next() == "2"
    await wire.bus.notify(CTX, Tick(number=3))
    assert worker.taken.empty()


# --- poison ------------------------------------------------------------------------------------------


def envelope(**changes: str) -> bytes:
    parts = {
        "method": '"work"',
        "args": '{"label":"x"}',
        "context": CTX.model_dump_json(),
        "sent_ms": "0.0",
        "deadline_ms": "null",
    } | changes
    return ("{" + ",".join(f'"{name}":{value}' for name, value in parts.items()) + "}").encode()


POISON = {
    "not JSON": b"\xff\x00",
    "empty": b"",
    "a list": b"[]",
    "no fields": b"{}",
    "one field more": envelope(surprise="1"),
    "a method of another kind": envelope(method='["work"]'),
    "an unknown method": envelope(method='"drop_tables"'),
    "a hidden attribute": envelope(method='"__init__"'),
    "arguments of another kind": envelope(args="[1]"),
    "an unknown argument": envelope(args='{"label":"x","more":1}'),
    "half a context": envelope(context="{}"),
    "a deadline in words": envelope(deadline_ms='"soon"'),
    "no number": envelope(sent_ms="NaN"),
    "too deep": envelope(args='{"label":' + "[" * 5000 + "]" * 5000 + "}"),
}


@pytest.mark.parametrize("body", POISON.values(), ids=POISON.keys())
async def test_poison_is_a_dead_letter_and_the_role_lives_on(wire: AnyWire, body: bytes) -> None:
    worker = Worker()
    async with wire.bus.serve("alpha", "one", worker.routes, no_span):
        await wire.put("alpha", body)
        await until(lambda: wire.bus.dead.count == 1)
        await wire.peer.cast(CTX, Work(label="healthy"))
        assert await worker.next() == "healthy"
    letter = wire.bus.dead.newest[0]
    assert (letter.routing_key, letter.body) == ("alpha", body)
    assert letter.reason


class Fragile(Cast):
    """Its validator has a bug."""

    topic = "alpha"
    label: Annotated[str, BeforeValidator(lambda value: value.no_such_thing)]


async def test_a_validator_with_a_bug_does_not_end_the_role(wire: AnyWire) -> None:
    worker = Worker()

    async def never(_: Context, __: Fragile) -> None:
        raise AssertionError

    async with wire.bus.serve("alpha", "one", [*worker.routes, Fragile.to(never)], no_span):
        await wire.put("alpha", envelope(method='"fragile"'))
        await until(lambda: wire.bus.dead.count == 1)
        await wire.peer.cast(CTX, Work(label="healthy"))
        assert await worker.next() == "healthy"
    assert wire.bus.dead.newest[0].reason == "fragile: unexpected AttributeError"


async def test_an_unknown_cast_is_a_dead_letter(wire: AnyWire) -> None:
    async with wire.bus.serve("alpha", "one", Worker().routes, no_span):
        await wire.peer.cast(CTX, Unheard(), host="one")
        await until(lambda: wire.bus.dead.count == 1)
    assert wire.bus.dead.newest[0].reason == "alpha answers no method 'unheard'"
    assert wire.bus.dead.newest[0].routing_key == "alpha.one"


async def test_a_listener_survives_poison(wire: AnyWire) -> None:
    worker = Worker()
    async with wire.peer.listen([Tick.to(worker.tick)]):
        await wire.bus.notify(CTX, OtherTick())
        await wire.bus.notify(CTX, Tick(number=1))
        assert await worker.next() == "1"
    assert [letter.routing_key for letter in wire.peer.dead.newest] == ["notice.ticks"]


class OtherTick(Notice):
    topic = "ticks"


# --- traces ------------------------------------------------------------------------------------------


async def test_work_is_a_span_in_the_senders_trace(wire: AnyWire) -> None:
    worker = Worker()
    async with wire.bus.serve("alpha", "one", worker.routes, worker.spans.append):
        await wire.peer.call(CTX, Add(a=1, b=1))
    (span,), (inside,) = worker.spans, worker.contexts
    assert (span.trace_id, span.parent_id) == (CTX.trace_id, CTX.span_id)
    assert inside == CTX.within(span.span_id)
    assert (span.role, span.host, span.name, span.kind, span.error) == ("alpha", "one", "add", "hop", None)
    assert span.queued_ms is not None
    assert span.queued_ms <= span.start_ms <= span.end_ms


async def test_failed_work_is_a_span_with_the_errors_code(wire: AnyWire) -> None:
    async def work(_: Context, __: Work) -> None:
        raise InsufficientSpace("full")

    spans: list[Span] = []
    async with wire.bus.serve("alpha", "one", [Work.to(work)], spans.append):
        await wire.peer.cast(CTX, Work(label="x"))
        await until(lambda: len(spans) == 1)
    assert spans[0].error == "insufficient_space"


async def test_what_is_not_traced_leaves_no_span(wire: AnyWire) -> None:
    worker = Worker()
    async with wire.bus.serve("alpha", "one", worker.routes, worker.spans.append):
        await wire.peer.call(CTX, Echo(text="x"))
    assert worker.spans == []


# --- the bus in memory alone ---------------------------------------------------------------------------


async def test_a_full_queue_refuses() -> None:
    async with memory_wire() as wire:
        await bind_and_leave(wire)
        for _ in range(QUEUE_LIMIT):
            await wire.bus.cast(CTX, Work(label="x"))
        with pytest.raises(BusUnavailable, match="full"):
            await wire.bus.cast(CTX, Work(label="x"))


async def test_a_bug_in_the_span_keeper_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def on_span(_: Span) -> None:
        raise TypeError("a bug")

    async with memory_wire() as wire, wire.bus.serve("alpha", "one", Worker().routes, on_span):
        await wire.bus.cast(CTX, Work(label="x"))
        await until(lambda: "a task of the bus died" in caplog.text)
