"""The bus over RabbitMQ, for roles in several processes or on several hosts.

At the broker: the topic exchange `launcher`; a durable queue per topic and per topic.host; what is rejected or
expires goes by `launcher.dlx` to the queue `launcher.dead`. A queue's arguments never change, because the
broker refuses a queue declared otherwise (406): set limits by policy. Notices go to a queue of the listener's own.

Two connections, because an alarm at the broker blocks the one that publishes and acknowledgements must go on.
All of it is made anew after each loss (`connections.py`).

Facts of aio-pika 10.2 that the code answers to: a frozen broker raises CancelledError in a publisher whom nobody
cancelled; an error at the publisher does not mean that the message was not delivered; a lost connection cancels
callbacks, so they only hand over; settling a message while its channel closes kills the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from random import Random
from typing import Any, Self, TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue, DeliveryMode
from aio_pika.exceptions import CONNECTION_EXCEPTIONS, ChannelInvalidStateError, PublishError

from launcher.bus import (
    CALL_TIMEOUT,
    CAST_LIFETIME,
    DeadLetter,
    Dispatcher,
    OnSpan,
    Reply,
    bury,
    decode_reply,
    encode,
    no_span,
    notice_key,
    routing_key,
)
from launcher.clock import Clock
from launcher.connections import (
    DEAD_EXCHANGE,
    EXCHANGE,
    FAILURES,
    Kept,
    Loss,
    open_channel,
    open_connection,
    pass_on,
    patiently,
    resolve,
)
from launcher.errors import BadMessage, BusUnavailable, NoRoute, RpcTimeout
from launcher.messaging import Call, Cast, Context, Notice, Route

R = TypeVar("R")
Queues = Callable[[AbstractChannel], Awaitable[list[AbstractQueue]]]
log = logging.getLogger(__name__)

QUEUE_ARGUMENTS: dict[str, Any] = {"x-queue-type": "classic", "x-dead-letter-exchange": DEAD_EXCHANGE}
REPLY_TO = "amq.rabbitmq.reply-to"
PREFETCH = 32


class _Intake:
    """Takes what arrives at some queues: hands it to the dispatcher, then settles it with the broker.

    When taken, not when the work is done: the retry is the reconcile loop, and the broker gives an acknowledgement
    half an hour. What comes again because its acknowledgement was lost is known by its message id.
    """

    def __init__(self, queues: Queues, dispatcher: Dispatcher, bus: AmqpBus) -> None:
        self.queues, self.dispatcher, self.bus = queues, dispatcher, bus
        self.taken: deque[str | None] = deque(maxlen=4 * PREFETCH)
        self.settling = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def session(self, lost: Loss) -> AsyncIterator[AbstractChannel]:
        self.settling = asyncio.Lock()
        async with open_channel(self.bus.receiving, lost) as channel:
            await channel.set_qos(PREFETCH)
            underlay = await channel.get_underlay_channel()
            underlay.on_consumer_cancel_callbacks.add(lambda _: resolve(lost, "its queue was deleted"))
            consumers: list[tuple[AbstractQueue, str]] = []
            try:
                for queue in await self.queues(channel):
                    consumers.append((queue, await queue.consume(self.take)))
                yield channel
            finally:
                for queue, tag in consumers:
                    await patiently(queue.cancel(tag))
                await patiently(self.settling.acquire())  # and never released: the channel closes now

    async def take(self, letter: AbstractIncomingMessage) -> None:
        settling, settle = self.settling, self._accept(letter)
        with contextlib.suppress(*CONNECTION_EXCEPTIONS):  # then it is delivered again
            async with settling:
                await settle()

    def _accept(self, letter: AbstractIncomingMessage) -> Callable[[], Awaitable[None]]:
        """Hand a message over; returns how to settle it."""
        if letter.redelivered and letter.message_id in self.taken:
            return letter.ack
        try:
            self.dispatcher.accept(letter.body, self.bus.reply_to(letter))
        except BadMessage as error:
            bury(self.bus.dead, letter.routing_key or "", error, letter.body)
            return lambda: letter.reject(requeue=False)
        self.taken.append(letter.message_id)
        return letter.ack


class AmqpBus:
    """The roles' bus over the broker at `url`; used as `async with AmqpBus(…) as bus`.

    Entering does not insist on a broker: `ready` tells, connecting goes on, and meanwhile whatever is sent raises
    BusUnavailable at once. `cast_lifetime` and `publish_timeout` are in seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        rng: Random,
        cast_lifetime: float = CAST_LIFETIME,
        publish_timeout: float = 5.0,
    ) -> None:
        self.clock, self.rng = clock, rng
        self.cast_lifetime, self.publish_timeout = cast_lifetime, publish_timeout
        self.dead: deque[DeadLetter] = deque(maxlen=100)
        self.answers: dict[str, asyncio.Future[bytes | None]] = {}
        self.numbers = itertools.count()
        self.sending = Kept("bus, sending", lambda lost: open_connection(url, "launcher sends", lost))
        self.receiving = Kept("bus, receiving", lambda lost: open_connection(url, "launcher receives", lost))
        self.casts = Kept("bus, casts", lambda lost: open_channel(self.sending, lost), on=self.sending)
        self.calls = Kept("bus, calls", self._call_channel, on=self.sending)
        self.kept: list[Kept[Any]] = [self.sending, self.receiving, self.casts, self.calls]

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            own = tuple(self.kept)
            for kept in own:
                await stack.enter_async_context(kept)
            for kept in own:
                await kept.first_attempt()
            self.stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stack.aclose()

    @property
    def ready(self) -> bool:
        """Whether the broker can be reached, both ways, and everything served or listened to is heard again."""
        return all(kept.up.is_set() for kept in self.kept)

    async def cast(self, ctx: Context, message: Cast, *, host: str | None = None) -> None:
        body = encode(ctx, message, sent_ms=self.clock.now_ms())
        letter = aio_pika.Message(body, delivery_mode=DeliveryMode.PERSISTENT, expiration=self.cast_lifetime)
        await self._publish(self.casts, EXCHANGE, routing_key(message.topic, host), letter)

    async def call(
        self, ctx: Context, message: Call[R], *, host: str | None = None, timeout: float = CALL_TIMEOUT
    ) -> R:
        now, key, number = self.clock.now_ms(), routing_key(message.topic, host), str(next(self.numbers))
        body = encode(ctx, message, sent_ms=now, deadline_ms=now + timeout * 1000)
        # Not persistent: whoever waits for the answer does not survive the broker's restart either.
        letter = aio_pika.Message(body, correlation_id=number, reply_to=REPLY_TO, expiration=timeout)
        self.answers[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._publish(self.calls, EXCHANGE, key, letter)
                answer = await self.answers[number]
        except TimeoutError:
            raise RpcTimeout(f"{message.method} to {key}: no answer in {timeout:g} s") from None
        finally:
            del self.answers[number]
        if answer is None:
            raise BusUnavailable(f"{message.method} to {key}: may have been run: the connection was lost")
        return decode_reply(message, answer)

    async def notify(self, ctx: Context, message: Notice) -> None:
        letter = aio_pika.Message(encode(ctx, message, sent_ms=self.clock.now_ms()))
        try:
            await self._publish(self.casts, EXCHANGE, notice_key(message), letter, mandatory=False)
        except BusUnavailable as error:
            log.info("a notice was lost: %s", error)

    @contextlib.asynccontextmanager
    async def serve(self, topic: str, host: str, routes: Iterable[Route], on_span: OnSpan) -> AsyncIterator[None]:
        dispatcher = Dispatcher(topic, host, routes, on_span=on_span, clock=self.clock, rng=self.rng)
        keys = (routing_key(topic, None), routing_key(topic, host))

        async def queues(channel: AbstractChannel) -> list[AbstractQueue]:
            found = [await channel.declare_queue(key, durable=True, arguments=QUEUE_ARGUMENTS) for key in keys]
            for queue in found:
                await queue.bind(EXCHANGE, queue.name)
            return found

        async with self._consuming(keys[1], queues, dispatcher):
            yield

    @contextlib.asynccontextmanager
    async def listen(self, routes: Iterable[Route]) -> AsyncIterator[None]:
        routes = list(routes)
        dispatcher = Dispatcher("listener", "", routes, on_span=no_span, clock=self.clock, rng=self.rng)

        async def queues(channel: AbstractChannel) -> list[AbstractQueue]:
            """One queue, by a name that the broker makes up: after a loss another one."""
            queue = await channel.declare_queue(exclusive=True, auto_delete=True)
            for route in routes:
                await queue.bind(EXCHANGE, notice_key(route.message))
            return [queue]

        async with self._consuming("listener", queues, dispatcher):
            yield

    def dead_letters(self) -> list[DeadLetter]:
        return list(self.dead)

    def reply_to(self, letter: AbstractIncomingMessage) -> Reply | None:
        """How to answer the letter, when it wants an answer."""
        if letter.reply_to is None:
            return None
        caller, number = letter.reply_to, letter.correlation_id

        async def reply(body: bytes) -> None:
            answer = aio_pika.Message(body, correlation_id=number)
            try:  # not mandatory: the broker has no queue of the caller's name, and would return what it delivered
                await self._publish(self.casts, "", caller, answer, mandatory=False)
            except BusUnavailable as error:
                log.warning("an answer was lost: %s", error)

        return reply

    @contextlib.asynccontextmanager
    async def _consuming(self, name: str, queues: Queues, dispatcher: Dispatcher) -> AsyncIterator[None]:
        """Take what arrives; at the end take no more, then wait for the work under way."""
        intake = _Intake(queues, dispatcher, self)
        try:
            async with Kept(f"bus, {name}", intake.session, on=self.receiving) as kept:
                await kept.first_attempt()
                self.kept.append(kept)
                yield
        finally:
            self.kept = [kept for kept in self.kept if kept.name != f"bus, {name}"]
            await dispatcher.drain()

    @contextlib.asynccontextmanager
    async def _call_channel(self, lost: Loss) -> AsyncIterator[AbstractChannel]:
        """The broker's direct reply-to wants the calls and their answers on one channel."""
        async with open_channel(self.sending, lost) as channel:
            queue = await channel.declare_queue(REPLY_TO, passive=True)
            await queue.consume(self._take_answer, no_ack=True)
            try:
                yield channel
            finally:
                for answer in self.answers.values():
                    resolve(answer, None)

    async def _take_answer(self, letter: AbstractIncomingMessage) -> None:
        if answer := self.answers.get(letter.correlation_id or ""):
            resolve(answer, letter.body)

    async def _publish(
        self, by: Kept[AbstractChannel], exchange: str, key: str, letter: aio_pika.Message, *, mandatory: bool = True
    ) -> None:
        """Returns when the broker has the message."""
        if by.open is None:
            raise BusUnavailable(f"{key}: not sent, no broker: {by.problem}", hint="is RabbitMQ running?")
        try:
            target = await by.open.get_exchange(exchange, ensure=False)
            await target.publish(letter, key, mandatory=mandatory, timeout=self.publish_timeout)
        except PublishError:
            raise NoRoute(f"nobody is bound to {key}", hint="is the role running? see /healthz") from None
        except ChannelInvalidStateError:
            raise BusUnavailable(f"{key}: not sent: the connection was lost") from None
        except FAILURES as error:
            pass_on(error)
            raise BusUnavailable(f"{key}: may have been sent: {type(error).__name__} {error}".rstrip()) from error
