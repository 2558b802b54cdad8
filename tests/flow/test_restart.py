"""A process ends in the middle; the next one on the same state goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.flow.house import House
from tests.waiting import eventually

STEPS = ["networking", "bridging", "imaging", "injecting", "filtering", "spawning"]


@pytest.mark.parametrize("step", STEPS)
async def test_a_launch_cut_at_a_step_is_resumed_by_the_next_process(tmp_path: Path, step: str) -> None:
    first = House(tmp_path)
    gate = first.hold_step(step)
    async with first.open():
        made = await first.launch()
        await asyncio.wait_for(gate.reached.wait(), 10)
        first.cut()
    second = first.successor()
    async with second.open():
        active = await second.until(made["id"], "ACTIVE")
        assert active["mac"] == made["mac"]
        assert len(second.virt.domains) == 1
        assert len(second.leftovers()) == 5


async def test_an_active_instance_whose_machine_vanished_is_started_again(tmp_path: Path) -> None:
    first = House(tmp_path)
    async with first.open():
        made = await first.launch()
        await first.until(made["id"], "ACTIVE")
    first.virt.domains.clear()
    second = first.successor()
    async with second.open():
        await second.until(made["id"], "ACTIVE")

        async def running() -> bool:
            return len(second.virt.domains) == 1

        await eventually(running, what="a domain")


async def test_a_running_machine_is_adopted_untouched(tmp_path: Path) -> None:
    first = House(tmp_path)
    async with first.open():
        made = await first.launch()
        active = await first.until(made["id"], "ACTIVE")
    first.firewall.applied.clear()
    second = first.successor()
    async with second.open():

        async def filtered() -> bool:
            return bool(second.firewall.applied)

        await eventually(filtered, what="the filters")
        assert (await second.until(made["id"], "ACTIVE"))["launched_ms"] == active["launched_ms"]
