"""What the simulation takes for granted of asyncio; a Python release that changes it is noticed here."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any, TypeVar

import pytest

from tests.simulation.loop import SeededLoop

T = TypeVar("T")


def run(seed: int, work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """What the work returned, and the virtual seconds it took."""
    loop = SeededLoop(Random(seed))
    try:
        return loop.run_until_complete(work), loop.now
    finally:
        loop.bury()


async def order() -> list[int]:
    """In which order five tasks that are ready at the same moment were run."""
    seen: list[int] = []

    async def note(number: int) -> None:
        seen.append(number)

    await asyncio.gather(*(note(number) for number in range(5)))
    return seen


def test_a_day_passes_at_once() -> None:
    _, took = run(1, asyncio.sleep(86400))
    assert took == pytest.approx(86400)


def test_the_seed_chooses_the_order_and_repeats_it() -> None:
    orders = [tuple(run(seed, order())[0]) for seed in range(20)]
    assert len(set(orders)) > 10
    assert orders == [tuple(run(seed, order())[0]) for seed in range(20)]


def test_every_call_of_the_ready_queue_goes_through_the_shuffle() -> None:
    """`_ready` is a deque of handles that `_run_once` drains; should asyncio rename either, this fails."""
    loop = SeededLoop(Random(1))
    loop.call_soon(print)
    assert len(loop._ready) == 1
    loop._ready.clear()
    loop.close()


def test_waiting_for_nobody_is_an_error_and_not_a_hang() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    loop = SeededLoop(Random(1))
    with pytest.raises(RuntimeError, match="no timer is left"):
        loop.run_until_complete(forever())
    loop.bury()


def test_burying_ends_what_refuses_to_end_at_once() -> None:
    ended: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(30)
            ended.append("late")

    loop = SeededLoop(Random(1))
    loop.create_task(stubborn())
    loop.run_until_complete(asyncio.sleep(1))
    loop.bury()
    assert ended == ["late"]
