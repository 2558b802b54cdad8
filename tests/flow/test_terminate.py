"""A delete wins at any moment and leaves nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.flow.house import House
from tests.waiting import eventually


@pytest.mark.parametrize("step", ["networking", "bridging", "imaging", "injecting", "filtering", "spawning"])
async def test_delete_during_a_step_stops_the_launch_and_undoes_it(house: House, step: str) -> None:
    gate = house.hold_step(step)
    made = await house.launch()
    await asyncio.wait_for(gate.reached.wait(), 10)
    deleting = await house.ask("DELETE", f"/instances/{made['id']}", status=202)
    assert deleting["status"] == "DELETING"
    gate.open.set()
    await house.until(made["id"], "DELETED")
    assert house.leftovers() == []


async def test_delete_of_an_instance_that_no_host_has_taken(house: House) -> None:
    """The order that is still on its way to a host finds a newer generation and does nothing."""
    gate = house.hold_step("networking")
    made = [await house.launch() for _ in range(5)]
    for instance in made:
        await house.ask("DELETE", f"/instances/{instance['id']}", status=202)
    gate.open.set()
    for instance in made:
        await house.until(instance["id"], "DELETED")

    async def clean() -> bool:
        return house.leftovers() == []

    await eventually(clean, what="a clean slate")
