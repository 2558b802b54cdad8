"""Leaving: work under way is finished, work that hangs is cut and taken up by the next process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from launcher import bus
from tests.flow.house import House


async def test_a_launch_under_way_is_finished(tmp_path: Path) -> None:
    house = House(tmp_path)
    gate = house.hold_step("imaging")
    async with house.open():
        made = await house.launch()
        await asyncio.wait_for(gate.reached.wait(), 10)
        gate.open.set()
    async with house.successor().open() as second:
        assert (await second.ask("GET", f"/instances/{made['id']}", status=200))["status"] == "ACTIVE"


async def test_a_launch_that_hangs_is_cut_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping used to wait for it for ever."""
    monkeypatch.setattr(bus, "DRAIN_PATIENCE", 0.1)
    house = House(tmp_path)
    gate = house.hold_step("imaging")
    async with house.open():
        made = await house.launch()
        await asyncio.wait_for(gate.reached.wait(), 10)
    async with house.successor().open() as second:
        await second.until(made["id"], "ACTIVE")
