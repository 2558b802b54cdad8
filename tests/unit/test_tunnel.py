"""Dialling a guest that is still booting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from launcher.services.api.tunnel import Connected, dial
from tests.waiting import until


class Guest:
    """A server on loopback that does not answer the first `deaf` attempts, as if they were lost on the way."""

    def __init__(self, port: int) -> None:
        self.port, self.deaf, self.given_up = port, 0, 0
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Connected:
        if self.deaf:
            self.deaf -= 1
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up += 1
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest_asyncio.fixture
async def guest() -> AsyncIterator[Guest]:
    async with await asyncio.start_server(lambda _, writer: found.writers.append(writer), "127.0.0.1", 0) as server:
        found = Guest(server.sockets[0].getsockname()[1])
        yield found
        for writer in found.writers:
            writer.close()


async def test_an_attempt_that_was_lost_does_not_delay_the_next(guest: Guest) -> None:
    guest.deaf = 2
    async with asyncio.timeout(5):
        _, writer = await dial(guest.connect)
    writer.close()
    assert guest.given_up == 2
    await until(lambda: len(guest.writers) == 1)


async def test_a_refusal_is_told_at_once(guest: Guest) -> None:
    async def refuse() -> Connected:
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        await dial(refuse)


async def test_who_gives_up_waiting_leaves_no_attempt_behind(guest: Guest) -> None:
    guest.deaf = 100
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await dial(guest.connect)
    assert guest.given_up == 2
