"""The bus: a topic exchange. A queue per topic is shared by its workers, and one per topic.host belongs to one.

The wire keeps Nova's shape: `{"method", "args", "context", "sent_ms", "deadline_ms"}` and, back,
`{"result"}` or `{"failure": {"code", "message", "hint", "field"}}`. The in-memory bus moves the same bytes
by the same routing keys as the AMQP bus (`amqp.py`) and fails the same way; one contract suite runs on both.

What both promise: a cast or call to a topic that nobody ever bound raises NoRoute at once; a call always
ends, with a reply, with the handler's error or with RpcTimeout; a message that its model refuses goes to
the dead letters; nothing is retried here, because the controller's reconcile loop is the one retry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol, TypeVar

from pydantic import FiniteFloat, ValidationError

from launcher.accounts import UserRole
from launcher.clock import Clock
from launcher.dead_letters import DeadLetters
from launcher.errors import BadMessage, BusUnavailable, Forbidden, LauncherError, NoRoute, RpcTimeout, UnknownMethod
from launcher.identity import new_span_id
from launcher.messaging import Call, Cast, Context, Encoded, Message, Notice, Route
from launcher.models import Model, Span

R = TypeVar("R")
log = logging.getLogger(__name__)

CALL_TIMEOUT = 60.0
CAST_LIFETIME = 60.0
QUEUE_LIMIT = 10_000
RESULT = b'{"result":'
DRAIN_PATIENCE = 20.0
OnSpan = Callable[[Span], None]
Reply = Callable[[bytes], Coroutine[Any, Any, None]]


class Bus(Protocol):
    """How the roles meet. `host` narrows a topic to one worker."""

    async def cast(self, ctx: Context, message: Cast, *, host: str | None = None) -> None:
        """Returns when the message is safely queued. Raises NoRoute, BusUnavailable (maybe sent)."""

    async def call(
        self, ctx: Context, message: Call[R], *, host: str | None = None, timeout: float = CALL_TIMEOUT
    ) -> R:
        """Returns the reply or raises the handler's error; RpcTimeout and BusUnavailable: outcome unknown."""

    async def notify(self, ctx: Context, message: Notice) -> None:
        """Tell whoever listens; nobody listening is fine, and a notice may be lost."""

    def serve(
        self, topic: str, host: str, routes: Iterable[Route], on_span: OnSpan
    ) -> AbstractAsyncContextManager[None]:
        """Answer a topic and topic.host; leaving the block takes no more and waits for the work under way."""

    def listen(self, routes: Iterable[Route]) -> AbstractAsyncContextManager[None]:
        """Hear the notices of these routes' topics while in the block."""

    @property
    def ready(self) -> bool:
        """Whether everything sent and served goes by the broker, where there is one."""

    @property
    def dead(self) -> DeadLetters:
        """The poison messages that arrived here since the start."""


class Envelope(Model):
    """A message as it arrived, its arguments not yet looked at."""

    method: str
    args: dict[str, Any]
    context: Context
    sent_ms: FiniteFloat
    deadline_ms: FiniteFloat | None


class Failure(Model):
    """How an error crosses the wire."""

    code: str
    message: str
    hint: str = ""
    field: str = ""


class Refusal(Model):
    """The reply of a handler that raised."""

    failure: Failure


def routing_key(topic: str, host: str | None) -> str:
    return topic if host is None else f"{topic}.{host}"


def notice_key(notice: Message | type[Message]) -> str:
    return f"notice.{notice.topic}"


def encode(ctx: Context, message: Message, *, sent_ms: float, deadline_ms: float | None = None) -> bytes:
    """The request's bytes."""
    deadline = "null" if deadline_ms is None else f"{deadline_ms:.3f}"
    return (
        f'{{"method":"{message.method}","args":{message.model_dump_json()},'
        f'"context":{ctx.model_dump_json()},"sent_ms":{sent_ms:.3f},"deadline_ms":{deadline}}}'
    ).encode()


def decode(body: bytes) -> Envelope:
    """Raises BadMessage."""
    try:
        return Envelope.model_validate_json(body)
    except ValidationError as error:
        raise BadMessage(f"not an envelope: {_complaints(error)}") from None


def decode_reply(message: Call[R], body: bytes) -> R:
    """The result, or the failure raised as the class it was at the other end; BadMessage when it is neither."""
    try:
        if body.startswith(RESULT):
            return message.answer_model().model_validate_json(body).result
        failure = Refusal.model_validate_json(body).failure
    except ValidationError as complaint:
        raise BadMessage(f"{message.method}: unreadable answer: {_complaints(complaint)}") from None
    raise LauncherError.from_wire(**failure.model_dump())


def _complaints(error: ValidationError) -> str:
    """What a model refused first and where, on one line and without the values: they may be secrets."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    first = (f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in found[:5])
    return _shown("; ".join(first), 500) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")


def _shown(text: str, length: int) -> str:
    """A stranger's words for our log: cut, and with nothing in them that could pass for a line of it."""
    shown = text if text.isprintable() else repr(text)[1:-1]
    return shown if len(shown) <= length else f"{shown[:length]}…"


def encode_result(route: Route, result: Any) -> bytes:
    """The reply's bytes; a cast has none."""
    if route.reply is None:
        return b""
    return RESULT + (result.json if isinstance(result, Encoded) else route.reply.dump_json(result)) + b"}"


def encode_failure(error: Exception) -> bytes:
    """A named error travels with its code; any other only with its class, its text stays in the log here."""
    named = LauncherError.named(error)
    if named is None:
        log.error("handler failed", exc_info=error)
        named = LauncherError.from_wire("remote_error", f"unexpected {type(error).__name__}; see the server's log")
    words = {"message": named.message, "hint": named.hint, "field": named.field}
    sent = {name: text.encode(errors="backslashreplace").decode() for name, text in words.items()}
    return Refusal(failure=Failure(code=named.code, **sent)).model_dump_json().encode()


def check_role(ctx: Context, message: Message) -> None:
    """Every dialect's verbs come by here, so they are allowed to the same people. Raises Forbidden."""
    needs = message.needs if isinstance(message, Call) else UserRole.READER
    if not ctx.role.covers(needs):
        raise Forbidden(f"{message.method} needs the role {needs} in the project, yours is {ctx.role}")


def no_span(_: Span) -> None:
    """Notices are not traced."""


class Dispatcher:
    """Finds the route of an arrived message, runs its handler in a task of its own, and keeps the span."""

    def __init__(
        self, name: str, host: str, routes: Iterable[Route], *, on_span: OnSpan, clock: Clock, rng: Random
    ) -> None:
        self.name, self.host, self.on_span, self.clock, self.rng = name, host, on_span, clock, rng
        self.routes = {route.message.method: route for route in routes}
        self.tasks: set[asyncio.Task[None]] = set()

    def accept(self, body: bytes, reply: Reply | None) -> None:
        """Validate, then hand the work to a task that this dispatcher owns. Raises BadMessage for poison."""
        envelope = decode(body)
        if envelope.deadline_ms is not None and envelope.deadline_ms < self.clock.now_ms():
            log.info("%s: dropped %s, its deadline has passed", self.name, envelope.method)
            return
        route = self.routes.get(envelope.method)
        try:
            if route is None:
                raise UnknownMethod(f"{self.name} answers no method '{_shown(envelope.method, 100)}'")
            message = self._validated(route, envelope)
        except (UnknownMethod, BadMessage) as error:
            if reply is None:
                raise BadMessage(error.message) from None
            self._start(reply(encode_failure(error)))
            return
        self._start(self._handle(route, envelope, message, reply))

    def _validated(self, route: Route, envelope: Envelope) -> Message:
        try:
            return route.message.model_validate(envelope.args)
        except ValidationError as error:
            raise BadMessage(f"{envelope.method}: {_complaints(error)}") from None
        except Exception as error:
            log.error("a validator failed", exc_info=error)
            raise BadMessage(f"{envelope.method}: unexpected {type(error).__name__}") from None

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        task.add_done_callback(log_death)

    async def _handle(self, route: Route, envelope: Envelope, message: Message, reply: Reply | None) -> None:
        start_ms, span_id, failed = self.clock.now_ms(), new_span_id(self.rng), None
        try:
            check_role(envelope.context, message)
            result = await route.handler(envelope.context.within(span_id), message)
            answer = encode_result(route, result)
        except Exception as error:  # noqa: BLE001 - every call gets an answer, whatever went wrong
            failed, answer = error, encode_failure(error)
            if reply is None and isinstance(error, LauncherError):
                log.warning("%s: %s failed: %s", self.name, envelope.method, error)
        self._keep_span(envelope, message, span_id, start_ms, failed)
        if reply is not None:
            await reply(answer)

    def _keep_span(
        self, envelope: Envelope, message: Message, span_id: str, start_ms: float, failed: Exception | None
    ) -> None:
        if not message.traced:
            return
        self.on_span(
            Span(
                trace_id=envelope.context.trace_id,
                span_id=span_id,
                parent_id=envelope.context.span_id,
                role=self.name,
                host=self.host,
                name=envelope.method,
                kind="hop",
                queued_ms=envelope.sent_ms,
                start_ms=start_ms,
                end_ms=self.clock.now_ms(),
                instance_id=message.subject,
                error=getattr(failed, "code", type(failed).__name__) if failed else None,
            )
        )

    async def drain(self) -> None:
        """Wait for the work under way; what outlives `DRAIN_PATIENCE` is cut as a crash would cut it, and resumed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_PATIENCE):
                while self.tasks:
                    await asyncio.wait(self.tasks)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def log_death(task: asyncio.Task[None]) -> None:
    """A task of the bus that dies of a bug must not do so in silence."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a task of the bus died", exc_info=error)


@dataclass
class _Delivery:
    body: bytes
    expires_ms: float
    reply: Reply | None = None


@dataclass
class _Queue:
    deliveries: asyncio.Queue[_Delivery] = field(default_factory=lambda: asyncio.Queue(QUEUE_LIMIT))


class MemoryBus:
    """The bus inside one process. Queues outlive their consumers, as the broker's durable ones do.

    `cast_lifetime` (seconds) is how long a cast waits for a worker.
    """

    def __init__(self, *, clock: Clock, rng: Random, cast_lifetime: float = CAST_LIFETIME) -> None:
        self.clock, self.rng, self.cast_lifetime = clock, rng, cast_lifetime
        self.queues: dict[str, _Queue] = {}
        self.listeners: dict[str, list[Dispatcher]] = {}
        self.dead = DeadLetters()

    @property
    def ready(self) -> bool:
        return True

    async def cast(self, ctx: Context, message: Cast, *, host: str | None = None) -> None:
        now = self.clock.now_ms()
        body = encode(ctx, message, sent_ms=now)
        self._put(routing_key(message.topic, host), _Delivery(body, now + self.cast_lifetime * 1000))

    async def call(
        self, ctx: Context, message: Call[R], *, host: str | None = None, timeout: float = CALL_TIMEOUT
    ) -> R:
        now = self.clock.now_ms()
        deadline_ms = now + timeout * 1000
        body = encode(ctx, message, sent_ms=now, deadline_ms=deadline_ms)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        key = routing_key(message.topic, host)

        async def reply(answer_body: bytes) -> None:
            if not answer.done():
                answer.set_result(answer_body)

        self._put(key, _Delivery(body, deadline_ms, reply))
        try:
            async with asyncio.timeout(timeout):
                await answer
        except TimeoutError:
            raise RpcTimeout(f"{message.method} to {key}: no answer in {timeout:g} s") from None
        return decode_reply(message, answer.result())

    async def notify(self, ctx: Context, message: Notice) -> None:
        body = encode(ctx, message, sent_ms=self.clock.now_ms())
        for dispatcher in tuple(self.listeners.get(message.topic, ())):
            self._deliver(notice_key(message), dispatcher, _Delivery(body, math.inf))

    @contextlib.asynccontextmanager
    async def serve(self, topic: str, host: str, routes: Iterable[Route], on_span: OnSpan) -> AsyncIterator[None]:
        dispatcher = Dispatcher(topic, host, routes, on_span=on_span, clock=self.clock, rng=self.rng)
        queues = {key: self._bind(key) for key in (routing_key(topic, None), routing_key(topic, host))}
        consumers = [asyncio.create_task(self._consume(key, queues[key], dispatcher)) for key in queues]
        try:
            yield
        finally:
            for consumer in consumers:
                consumer.cancel()
            await asyncio.wait(consumers)
            await dispatcher.drain()

    @contextlib.asynccontextmanager
    async def listen(self, routes: Iterable[Route]) -> AsyncIterator[None]:
        routes = list(routes)
        dispatcher = Dispatcher("listener", "", routes, on_span=no_span, clock=self.clock, rng=self.rng)
        topics = {route.message.topic for route in routes}
        for topic in topics:
            self.listeners.setdefault(topic, []).append(dispatcher)
        try:
            yield
        finally:
            for topic in topics:
                self.listeners[topic].remove(dispatcher)
            await dispatcher.drain()

    def _put(self, key: str, delivery: _Delivery) -> None:
        queue = self.queues.get(key)
        if queue is None:
            raise NoRoute(f"nobody is bound to {key}", hint="is the role running? see /healthz")
        try:
            queue.deliveries.put_nowait(delivery)
        except asyncio.QueueFull:
            raise BusUnavailable(f"the queue {key} is full ({QUEUE_LIMIT} messages)") from None

    def _bind(self, key: str) -> _Queue:
        return self.queues.setdefault(key, _Queue())

    async def _consume(self, key: str, queue: _Queue, dispatcher: Dispatcher) -> None:
        while True:
            self._deliver(key, dispatcher, await queue.deliveries.get())
            await asyncio.sleep(0)  # the next message is the next worker's, as the broker would have it

    def _deliver(self, key: str, dispatcher: Dispatcher, delivery: _Delivery) -> None:
        if delivery.expires_ms < self.clock.now_ms():
            return
        try:
            dispatcher.accept(delivery.body, delivery.reply)
        except BadMessage as error:
            self.dead.bury(key, error, delivery.body)
