"""Connections to the broker, and channels on them, that are made anew, from nothing, after each loss.

aio-pika's robust connection restores queues by their old names instead, and one name refused kept every channel
closed for 30 s (measured with 10.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, Self, TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.connection import make_url
from aio_pika.exceptions import CONNECTION_EXCEPTIONS

from launcher import unreadable
from launcher.bus import log_death

T = TypeVar("T", AbstractConnection, AbstractChannel)
R = TypeVar("R")
Loss = asyncio.Future[str]
Session = Callable[[Loss], AbstractAsyncContextManager[T]]
log = logging.getLogger(__name__)
logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)  # it says at every attempt what is said here once

EXCHANGE, DEAD_EXCHANGE, DEAD_QUEUE, DEAD_KEPT = "launcher", "launcher.dlx", "launcher.dead", 1000
HEARTBEAT = 10  # s; a broker that does not answer is given up after 3 × (10 + 1)
CONNECT_PATIENCE, CLOSE_PATIENCE, RETRY_INTERVAL = 5.0, 2.0, 1.0  # s
FAILURES = (*CONNECTION_EXCEPTIONS, TimeoutError, asyncio.CancelledError)

unreadable.let_in()


class Kept(Generic[T]):
    """A connection or channel that is opened anew whenever it is lost, until the block is left.

    `session` opens one, makes it ready, says in the future that it is given how it was lost, and closes it.
    """

    def __init__(self, name: str, session: Session[T], *, on: Kept[AbstractConnection] | None = None) -> None:
        self.name, self.on = name, on
        self.session: Session[T] = session
        self.open: T | None = None
        self.problem = "not tried yet"
        self.up, self.tried = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self._keep())
        self.task.add_done_callback(log_death)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])

    async def first_attempt(self) -> None:
        """Returns after it, whether it went well or not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_PATIENCE):
                await self.tried.wait()

    async def _keep(self) -> None:
        while not self.task.cancelling():
            if self.on is not None:
                await self.on.first_attempt()
                if not self.on.up.is_set():
                    self.problem = self.on.problem
                    self.tried.set()
                    await self.on.up.wait()
            try:
                self._note(f"lost: {await self._live()}")
            except FAILURES as error:
                pass_on(error)
                self._note(f"{type(error).__name__}: {error}")
            self.tried.set()
            await asyncio.sleep(RETRY_INTERVAL)

    def lose(self, why: str) -> None:
        """Take it for lost."""
        if self.open is not None:
            self.open, self.problem = None, why
            self.up.clear()
            log.warning("%s: given up: %s", self.name, why)
            resolve(self.lost, why)

    async def _live(self) -> str:
        """One life of it, from its opening to its loss."""
        lost: Loss = asyncio.get_running_loop().create_future()
        async with self.session(lost) as opened:
            self.lost = lost
            self.open, self.problem = opened, ""
            self.up.set()
            self.tried.set()
            log.info("%s: up", self.name)
            try:
                return await lost
            finally:
                self.open = None
                self.up.clear()

    def _note(self, problem: str) -> None:
        """Log what is new; a channel that went with its connection is not."""
        if problem != self.problem and (self.on is None or self.on.up.is_set()):
            log.warning("%s: %s; trying again every %g s", self.name, problem, RETRY_INTERVAL)
        self.problem = problem


@contextlib.asynccontextmanager
async def open_connection(url: str, name: str, lost: Loss) -> AsyncIterator[AbstractConnection]:
    """Closed even if it was never made: otherwise the library does so wherever the object is collected."""
    connection = aio_pika.Connection(make_url(url, heartbeat=HEARTBEAT), client_properties={"connection_name": name})
    connection.close_callbacks.add(lambda _, reason: resolve(lost, repr(reason)))
    try:
        await connection.connect(timeout=CONNECT_PATIENCE)
        yield connection
    finally:
        await patiently(connection.close())


@contextlib.asynccontextmanager
async def open_channel(on: Kept[AbstractConnection], lost: Loss) -> AsyncIterator[AbstractChannel]:
    """A confirming channel on which the exchanges are declared: publishing to a missing one would close it."""
    if on.open is None:
        raise ConnectionError(on.problem)
    channel = on.open.channel(publisher_confirms=True, on_return_raises=True)
    channel.close_callbacks.add(lambda _, reason: resolve(lost, repr(reason)))
    await channel.initialize()
    try:
        await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
        await channel.declare_exchange(DEAD_EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
        dead = await channel.declare_queue(DEAD_QUEUE, durable=True, arguments={"x-max-length": DEAD_KEPT})
        await dead.bind(DEAD_EXCHANGE, "#")
        yield channel
    finally:
        await patiently(channel.close())


def resolve(future: asyncio.Future[R], value: R) -> None:
    if not future.done():
        future.set_result(value)


async def patiently(closing: Awaitable[object]) -> None:
    """Close as a courtesy to the broker; a frozen or absent one is not waited for."""
    try:
        async with asyncio.timeout(CLOSE_PATIENCE):
            await closing
    except FAILURES as error:
        pass_on(error)
        log.debug("while closing: %r", error)


def pass_on(error: BaseException) -> None:
    """Let a CancelledError go that was meant for this task; the library raises others of its own."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        raise error
