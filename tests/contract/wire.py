"""Two participants on a bus, and a role reduced to its routes: what the bus's tests are made of."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Generic, TypeVar

import aio_pika

from launcher.accounts import UserRole
from launcher.amqp import AmqpBus
from launcher.bus import MemoryBus, _Delivery, no_span
from launcher.clock import SystemClock
from launcher.connections import EXCHANGE
from launcher.messaging import Call, Cast, Context, Notice, Route
from launcher.models import Model, Span

B_co = TypeVar("B_co", bound=MemoryBus | AmqpBus, covariant=True)

QUEUES = ("alpha", "alpha.one", "alpha.two", "beta", "beta.one", "launcher.dead")
CTX = Context(
    request_id="req-1",
    project_id="p",
    user_id="u",
    role=UserRole.MEMBER,
    trace_id="0" * 31 + "1",
    span_id="0" * 15 + "2",
)


@dataclass(frozen=True)
class Wire(Generic[B_co]):
    """Two participants of one bus (on AMQP as good as two processes), and a way to put bytes on it unasked."""

    bus: B_co
    peer: B_co
    put: Callable[[str, bytes], Awaitable[None]]


AnyWire = Wire[MemoryBus | AmqpBus]


class Sum(Model):
    total: int
    seen_by: str
    address: IPv4Address | None = None


class Add(Call[Sum]):
    topic = "alpha"
    traced = True
    a: int
    b: int


class AddElsewhere(Call[Sum]):
    """Answered by asking `alpha`."""

    topic = "beta"
    a: int


class Echo(Call[str]):
    topic = "alpha"
    text: str


class Work(Cast):
    topic = "alpha"
    traced = True
    label: str


class Unheard(Cast):
    """Nobody has a route for it."""

    topic = "alpha"


class Tick(Notice):
    topic = "ticks"
    number: int


class Worker:
    """A role reduced to its routes. What it has taken can be waited for."""

    def __init__(self, name: str = "one") -> None:
        self.name = name
        self.taken: asyncio.Queue[str] = asyncio.Queue()
        self.contexts: list[Context] = []
        self.spans: list[Span] = []
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def routes(self) -> list[Route]:
        return [Add.to(self.add), Echo.to(self.echo), Work.to(self.work), Tick.to(self.tick)]

    async def add(self, ctx: Context, message: Add) -> Sum:
        self.contexts.append(ctx)
        await self.through_the_gate()
        return Sum(total=message.a + message.b, seen_by=self.name, address=IPv4Address("10.0.0.2"))

    async def echo(self, _: Context, message: Echo) -> str:
        return message.text

    async def work(self, ctx: Context, message: Work) -> None:
        self.contexts.append(ctx)
        await self.through_the_gate()
        self.taken.put_nowait(message.label)

    async def tick(self, _: Context, message: Tick) -> None:
        self.taken.put_nowait(str(message.number))

    async def through_the_gate(self) -> None:
        """Where a test holds the work; bounded, because leaving the bus waits for it."""
        async with asyncio.timeout(20):
            await self.gate.wait()

    async def next(self, limit: float = 10) -> str:
        async with asyncio.timeout(limit):
            return await self.taken.get()


async def until(condition: Callable[[], bool], limit: float = 10) -> None:
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110 - what the broker does sets no event of ours
            await asyncio.sleep(0.01)


async def bind_and_leave(wire: AnyWire) -> None:
    """The queues are there, and nobody is at them."""
    async with wire.bus.serve("alpha", "one", [], no_span):
        pass


@contextlib.asynccontextmanager
async def memory_wire() -> AsyncIterator[Wire[MemoryBus]]:
    bus = MemoryBus(clock=SystemClock(), rng=random.Random(1))

    async def put(key: str, body: bytes) -> None:
        bus._put(key, _Delivery(body, math.inf))

    yield Wire(bus, bus, put)


@contextlib.asynccontextmanager
async def amqp_wire(url: str) -> AsyncIterator[Wire[AmqpBus]]:
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        for name in QUEUES:
            await channel.queue_delete(name)

        async def put(key: str, body: bytes) -> None:
            exchange = await channel.get_exchange(EXCHANGE)
            await exchange.publish(aio_pika.Message(body), key)

        async with amqp_bus(url) as bus, amqp_bus(url) as peer:
            yield Wire(bus, peer, put)


def amqp_bus(url: str, *, publish_timeout: float = 5.0) -> AmqpBus:
    return AmqpBus(url, clock=SystemClock(), rng=random.Random(1), publish_timeout=publish_timeout)
