"""Where the AMQP bus takes messages: some queues, a dispatcher, and what was taken already."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import CONNECTION_EXCEPTIONS

from launcher import unreadable
from launcher.bus import Dispatcher, Reply
from launcher.connections import EXCHANGE, FAILURES, Kept, Loss, open_channel, pass_on, patiently, resolve
from launcher.dead_letters import DeadLetters
from launcher.errors import BadMessage

Queues = Callable[[AbstractChannel], Awaitable[list[AbstractQueue]]]
Keys = Callable[[AbstractQueue], Iterable[str]]

PREFETCH = 32
TAKEN_KEPT = 4096
REBIND_INTERVAL = 15.0  # s


class Intake:
    """Takes what arrives at some queues: hands it to the dispatcher, then settles it with the broker.

    When taken, not when the work is done: the retry is the reconcile loop, and the broker gives an acknowledgement
    half an hour. What comes again, because its acknowledgement was lost or because it was handed over without the
    broker, is known by its message id. `keys` says what each queue is bound to, `lost` is told when
    messages may be waiting in queues that are gone.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        queues: Queues,
        keys: Keys,
        *,
        receiving: Kept[AbstractConnection],
        reply_to: Callable[[AbstractIncomingMessage], Reply | None],
        dead: DeadLetters,
        lost: Callable[[Intake], None],
    ) -> None:
        self.dispatcher, self.queues, self.keys = dispatcher, queues, keys
        self.receiving, self.reply_to, self.dead, self.lost = receiving, reply_to, dead, lost
        self.taken: dict[str, None] = {}
        self.settling = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def session(self, lost: Loss) -> AsyncIterator[AbstractChannel]:
        self.settling = asyncio.Lock()
        async with open_channel(self.receiving, lost) as channel:
            await channel.set_qos(PREFETCH)
            underlay = await channel.get_underlay_channel()
            underlay.on_consumer_cancel_callbacks.add(lambda _: resolve(lost, "its queue was deleted"))
            found = await self.queues(channel)
            await self._bind(found)
            binding = asyncio.create_task(self._stay_bound(found, lost))
            consumers: list[tuple[AbstractQueue, str]] = []
            try:
                for queue in found:
                    consumers.append((queue, await queue.consume(self.take)))
                yield channel
            finally:
                self.lost(self)
                binding.cancel()
                for queue, tag in consumers:
                    await patiently(queue.cancel(tag))
                await patiently(self.settling.acquire())  # and never released: the channel closes now

    async def _bind(self, queues: Iterable[AbstractQueue]) -> None:
        for queue in queues:
            for key in self.keys(queue):
                await queue.bind(EXCHANGE, key)

    async def _stay_bound(self, queues: Iterable[AbstractQueue], lost: Loss) -> None:
        try:
            while True:
                await asyncio.sleep(REBIND_INTERVAL)
                await self._bind(queues)
        except FAILURES as error:
            pass_on(error)
            resolve(lost, repr(error))

    async def take(self, letter: AbstractIncomingMessage) -> None:
        settling, settle = self.settling, self._accept(letter)
        with contextlib.suppress(*CONNECTION_EXCEPTIONS):  # then it is delivered again
            async with settling:
                await settle()

    def _accept(self, letter: AbstractIncomingMessage) -> Callable[[], Awaitable[None]]:
        """Hand a message over; returns how to settle it."""
        try:
            if letter.type == unreadable.TYPE:
                raise BadMessage("its AMQP properties cannot be decoded")
            self.hand_over(letter.message_id, letter.body, self.reply_to(letter))
        except BadMessage as error:
            self.dead.bury(letter.routing_key or "", error, letter.body)
            return lambda: letter.reject(requeue=False)
        return letter.ack

    def hand_over(self, message_id: str | None, body: bytes, reply: Reply | None) -> None:
        """Once for each id. Raises BadMessage."""
        if message_id in self.taken:
            return
        self.dispatcher.accept(body, reply)
        if message_id is not None:
            self.taken[message_id] = None
            if len(self.taken) > TAKEN_KEPT:
                del self.taken[next(iter(self.taken))]
