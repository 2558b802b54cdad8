"""The bus over RabbitMQ, for roles in several processes or on several hosts.

At the broker: the topic exchange `launcher`; a durable queue per topic and per topic.host; what is rejected or
expires goes by `launcher.dlx` to the queue `launcher.dead`. A queue's arguments never change, because the
broker refuses a queue declared otherwise (406): set limits by policy. Notices go to a queue of the listener's own.

Two connections, because an alarm at the broker blocks the one that publishes and acknowledgements must go on.
All of it is made anew after each loss (`connections.py`). Bindings are asked for again and again: a deleted exchange
takes them along and nobody is told.

What the broker does not take (it is down, frozen, full, or has lost the queue) goes to the role in this process, if
it is here: the same bytes, handed over as from a queue. Every message has an id, so that what the broker delivers later
is known (docs/decisions/0013-without-a-broker.md).

Facts of aio-pika 10.2 that the code answers to: a frozen broker raises CancelledError in a publisher whom nobody
cancelled; an error at the publisher does not mean that the message was not delivered; a lost connection cancels
callbacks, so they only hand over; settling a message while its channel closes kills the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from random import Random
from typing import Any, Self, TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue, DeliveryMode
from aio_pika.exceptions import ChannelInvalidStateError, PublishError

from launcher.bus import (
    CALL_TIMEOUT,
    CAST_LIFETIME,
    Dispatcher,
    OnSpan,
    Reply,
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
    resolve,
)
from launcher.dead_letters import DeadLetters
from launcher.errors import BusUnavailable, NoRoute, RpcTimeout
from launcher.identity import new_span_id
from launcher.intake import Intake, Keys, Queues
from launcher.messaging import Call, Cast, Context, Notice, Route

R = TypeVar("R")
log = logging.getLogger(__name__)

QUEUE_ARGUMENTS: dict[str, Any] = {"x-queue-type": "classic", "x-dead-letter-exchange": DEAD_EXCHANGE}
REPLY_TO = "amq.rabbitmq.reply-to"
GIVEN_KEPT = 64


class AmqpBus:
    """The roles' bus over the broker at `url`; used as `async with AmqpBus(…) as bus`.

    Entering does not insist on a broker: `ready` tells, connecting goes on, and meanwhile what is sent goes to the
    roles in this process or raises BusUnavailable at once. `cast_lifetime` and `publish_timeout` are in seconds.
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
        self.dead = DeadLetters()
        self.answers: dict[str, tuple[str, asyncio.Future[bytes | None]]] = {}
        self.given: dict[str, bytes] = {}
        self.here: set[str] = set()
        self.name, self.numbers = new_span_id(rng), itertools.count()
        self.served: dict[str, Intake] = {}
        self.listening: list[tuple[set[str], Intake]] = []
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
        key = routing_key(message.topic, host)
        letter = self._letter(encode(ctx, message, sent_ms=self.clock.now_ms()), expiration=self.cast_lifetime)
        letter.delivery_mode = DeliveryMode.PERSISTENT
        try:
            await self._publish(self.casts, EXCHANGE, key, letter)
        except (BusUnavailable, NoRoute):
            if key not in self.served:
                raise
            self.served[key].hand_over(letter.message_id, letter.body, None)

    async def call(
        self, ctx: Context, message: Call[R], *, host: str | None = None, timeout: float = CALL_TIMEOUT
    ) -> R:
        now, key = self.clock.now_ms(), routing_key(message.topic, host)
        body = encode(ctx, message, sent_ms=now, deadline_ms=now + timeout * 1000)
        # Not persistent: whoever waits for the answer does not survive the broker's restart either.
        letter = self._letter(body, expiration=timeout, reply_to=REPLY_TO)
        letter.correlation_id = letter.message_id
        try:
            async with asyncio.timeout(timeout):
                answer = await self._ask(key, letter)
        except TimeoutError:
            raise RpcTimeout(f"{message.method} to {key}: no answer in {timeout:g} s") from None
        return decode_reply(message, answer)

    async def _ask(self, key: str, letter: aio_pika.Message) -> bytes:
        """The answer: by the broker, or without it from a role in this process."""
        number = letter.correlation_id or ""
        try:
            answer = self._expect(number, key)
            try:
                await self._publish(self.calls, EXCHANGE, key, letter)
                by_broker = await answer
            except (BusUnavailable, NoRoute):
                if key not in self.served:
                    raise
                by_broker = None
            if by_broker is not None:
                return by_broker
            if key not in self.served:
                raise BusUnavailable(f"{key}: may have been run: the connection was lost")
            return await self._ask_here(key, letter)
        finally:
            self.answers.pop(number, None)
            self.given.pop(number, None)
            self.here.discard(number)

    async def _ask_here(self, key: str, letter: aio_pika.Message) -> bytes:
        """The role may have had the message by the broker, and be at work for it or have answered into the void."""
        role, number = self.served[key], letter.correlation_id or ""
        self.here.add(number)
        while number not in self.given:
            answer = self._expect(number, key)
            role.hand_over(letter.message_id, letter.body, self._give(number))
            await answer
        return self.given[number]

    async def notify(self, ctx: Context, message: Notice) -> None:
        letter = self._letter(encode(ctx, message, sent_ms=self.clock.now_ms()))
        try:
            await self._publish(self.casts, EXCHANGE, notice_key(message), letter, mandatory=False)
        except BusUnavailable as error:
            log.debug("a notice stays in this process: %s", error)
            for topics, intake in self.listening:
                if message.topic in topics:
                    intake.hand_over(letter.message_id, letter.body, None)

    @contextlib.asynccontextmanager
    async def serve(self, topic: str, host: str, routes: Iterable[Route], on_span: OnSpan) -> AsyncIterator[None]:
        dispatcher = Dispatcher(topic, host, routes, on_span=on_span, clock=self.clock, rng=self.rng)
        keys = (routing_key(topic, None), routing_key(topic, host))

        async def queues(channel: AbstractChannel) -> list[AbstractQueue]:
            return [await channel.declare_queue(key, durable=True, arguments=QUEUE_ARGUMENTS) for key in keys]

        intake = self._intake(dispatcher, queues, lambda queue: [queue.name])
        async with self._consuming(keys[1], intake):
            self.served |= dict.fromkeys(keys, intake)
            try:
                yield
            finally:
                self.served = {key: found for key, found in self.served.items() if found is not intake}

    @contextlib.asynccontextmanager
    async def listen(self, routes: Iterable[Route]) -> AsyncIterator[None]:
        routes = list(routes)
        dispatcher = Dispatcher("listener", "", routes, on_span=no_span, clock=self.clock, rng=self.rng)

        async def queues(channel: AbstractChannel) -> list[AbstractQueue]:
            """One queue, by a name that the broker makes up: after a loss another one."""
            return [await channel.declare_queue(exclusive=True, auto_delete=True)]

        intake = self._intake(dispatcher, queues, lambda _: [notice_key(route.message) for route in routes])
        entry = ({route.message.topic for route in routes}, intake)
        async with self._consuming("listener", intake):
            self.listening.append(entry)
            try:
                yield
            finally:
                self.listening.remove(entry)

    def reply_to(self, letter: AbstractIncomingMessage) -> Reply | None:
        """How to answer the letter, when it wants an answer."""
        if letter.reply_to is None:
            return None
        caller, number = letter.reply_to, letter.correlation_id or ""

        async def reply(body: bytes) -> None:
            if number in self.answers:
                await self._give(number)(body)
            if number in self.here:
                return
            answer = self._letter(body)
            answer.correlation_id = number
            try:  # not mandatory: the broker has no queue of the caller's name, and would return what it delivered
                await self._publish(self.casts, "", caller, answer, mandatory=False)
            except BusUnavailable as error:
                log.info("an answer was lost: %s", error)

        return reply

    def _give(self, number: str) -> Reply:
        """Keep the answer to a call from this process, and tell it when it waits for that and not for the broker."""

        async def give(body: bytes) -> None:
            self.given[number] = body
            if len(self.given) > GIVEN_KEPT:
                del self.given[next(iter(self.given))]
            if number in self.here and (waiting := self.answers.get(number)):
                resolve(waiting[1], None)

        return give

    def _expect(self, number: str, key: str) -> asyncio.Future[bytes | None]:
        """The answer to come; None when the connection, or the queue that the call was put into, was lost before."""
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self.answers[number] = (key, answer)
        return answer

    def _intake(self, dispatcher: Dispatcher, queues: Queues, keys: Keys) -> Intake:
        return Intake(
            dispatcher,
            queues,
            keys,
            receiving=self.receiving,
            reply_to=self.reply_to,
            dead=self.dead,
            lost=self._ask_again,
        )

    def _ask_again(self, lost: Intake) -> None:
        """Calls of this process to a role of this process do not wait for messages that nobody may deliver."""
        for key, answer in self.answers.values():
            if self.served.get(key) is lost:
                resolve(answer, None)

    def _letter(self, body: bytes, **properties: Any) -> aio_pika.Message:
        return aio_pika.Message(body, message_id=f"{self.name}.{next(self.numbers)}", **properties)

    @contextlib.asynccontextmanager
    async def _consuming(self, name: str, intake: Intake) -> AsyncIterator[None]:
        """Take what arrives; at the end take no more, then wait for the work under way."""
        try:
            async with Kept(f"bus, {name}", intake.session, on=self.receiving) as kept:
                await kept.first_attempt()
                self.kept.append(kept)
                try:
                    yield
                finally:
                    self.kept.remove(kept)
        finally:
            await intake.dispatcher.drain()

    @contextlib.asynccontextmanager
    async def _call_channel(self, lost: Loss) -> AsyncIterator[AbstractChannel]:
        """The broker's direct reply-to wants the calls and their answers on one channel."""
        async with open_channel(self.sending, lost) as channel:
            queue = await channel.declare_queue(REPLY_TO, passive=True)
            await queue.consume(self._take_answer, no_ack=True)
            try:
                yield channel
            finally:
                for _, answer in self.answers.values():
                    resolve(answer, None)

    async def _take_answer(self, letter: AbstractIncomingMessage) -> None:
        if waiting := self.answers.get(letter.correlation_id or ""):
            resolve(waiting[1], letter.body)

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
            if isinstance(error, TimeoutError):
                self._give_up(f"no confirmation in {self.publish_timeout:g} s")
            raise BusUnavailable(f"{key}: may have been sent: {type(error).__name__} {error}".rstrip()) from error

    def _give_up(self, why: str) -> None:
        """A broker that is frozen or has raised an alarm: what comes next need not wait as long."""
        for channel in (self.casts, self.calls):
            channel.lose(why)
