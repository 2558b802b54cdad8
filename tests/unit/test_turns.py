"""Per instance one thing at a time, and nothing for a generation that is past."""

from __future__ import annotations

import asyncio

import pytest

from launcher.errors import StaleGeneration
from launcher.services.turns import Turns
from tests.orders import make_order


async def test_the_same_generation_is_worked_for_once() -> None:
    turns, order = Turns(), make_order()
    async with turns.take(order) as first, turns.take(order) as second:
        assert (first, second) == (True, False)
    async with turns.take(order) as again:
        assert again


async def test_a_newer_generation_waits_and_overtakes() -> None:
    turns, old = Turns(), make_order()
    new = make_order(generation=2)
    entered: list[bool] = []

    async def take_new() -> None:
        async with turns.take(new) as mine:
            entered.append(mine)

    async with turns.take(old):
        waiting = asyncio.ensure_future(take_new())
        await asyncio.sleep(0)
        assert entered == []
        with pytest.raises(StaleGeneration):
            turns.check(old)
        async with turns.take(old) as late:
            assert not late
    await waiting
    assert entered == [True]


async def test_another_errand_of_the_same_generation_waits_and_is_not_dropped() -> None:
    """A late RunInstance swallowed the VerifyInstance after a restart: the machine was not counted on its host."""
    turns, order = Turns(), make_order()
    entered: list[bool] = []

    async def verify() -> None:
        async with turns.take(order, "verify") as mine:
            entered.append(mine)

    async with turns.take(order):
        waiting = asyncio.ensure_future(verify())
        await asyncio.sleep(0)
        assert entered == []
    await waiting
    assert entered == [True]
    assert turns._turns == {}


async def test_other_instances_do_not_wait() -> None:
    turns = Turns()
    async with turns.take(make_order(1)) as one, turns.take(make_order(2)) as two:
        assert one
        assert two


async def test_nothing_is_kept_of_instances_at_rest() -> None:
    turns = Turns()
    async with turns.take(make_order()):
        pass
    assert turns._turns == {}


async def test_an_instance_at_work_is_not_idle_and_an_idle_one_is_held() -> None:
    turns, order = Turns(), make_order()
    async with turns.take(order), turns.take_idle(order.instance_id) as idle:
        assert not idle
    entered: list[bool] = []

    async def take() -> None:
        async with turns.take(order) as mine:
            entered.append(mine)

    async with turns.take_idle(order.instance_id) as idle:
        assert idle
        waiting = asyncio.ensure_future(take())
        await asyncio.sleep(0)
        assert entered == []
    await waiting
    assert entered == [True]
    assert turns._turns == {}
