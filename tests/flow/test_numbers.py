"""A database that was lost or put back gives numbers again that running guests bear."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.drivers.network.driver import Tap
from launcher.drivers.virt.driver import Domain
from tests.flow.house import House, Json

HOST_ROLES = ("controller", "scheduler", "network", "api")


def lose_database(house: House) -> None:
    for lost in house.state.glob("controller.db*"):
        lost.unlink()


async def a_survivor(tmp_path: Path) -> tuple[House, Json]:
    """A guest that runs, and whose row is gone."""
    house = House(tmp_path)
    async with house.open():
        made = await house.launch()
        made = await house.until(made["id"], "ACTIVE")
    lose_database(house)
    return house, made


def belongings(house: House, survivor: Json) -> list[Any]:
    order = house.firewall.applied[survivor["number"]][0]
    return [
        house.virt.domains[survivor["id"]],
        order.instance_id,
        house.network.taps[Tap(survivor["number"])],
        house.images.disks[survivor["id"]].ref,
    ]


async def test_no_number_is_given_that_something_on_a_host_bears(tmp_path: Path) -> None:
    house, survivor = await a_survivor(tmp_path)
    before = belongings(house, survivor)
    second = house.successor()
    async with second.open():
        made = await second.launch()
        assert made["number"] == survivor["number"] + 1
        await second.until(made["id"], "ACTIVE")
        await second.ask("DELETE", f"/instances/{made['id']}", status=202)
        await second.until(made["id"], "DELETED")
    assert belongings(second, survivor) == before


async def test_a_number_given_before_its_host_was_heard_of_is_refused_there(tmp_path: Path) -> None:
    """The failed launch used to take the survivor's tap and filters away when it was undone."""
    house, survivor = await a_survivor(tmp_path)
    before = belongings(house, survivor)
    early = house.successor()
    early.roles = HOST_ROLES
    async with early.open():
        made = await early.launch()
        assert made["number"] == survivor["number"]
    second = house.successor()
    async with second.open():
        failed = await second.until(made["id"], "ERROR")
        assert failed["fault"]["code"] == "domain_conflict"
        assert survivor["id"] in failed["fault"]["message"]
        await second.ask("DELETE", f"/instances/{made['id']}", status=202)
        await second.until(made["id"], "DELETED")
        assert belongings(second, survivor) == before
        again = await second.launch()
        await second.until(again["id"], "ACTIVE")


@pytest.fixture
def of_another_launcher() -> Iterator[Domain]:
    house_id = "99999999-0000-4000-8000-000000000001"
    domain = Domain(
        instance_id=house_id, number=7, generation=1, name="instance-00000007", power="running", launcher="somebody's"
    )
    return iter([domain])


async def test_what_another_launcher_runs_is_neither_listed_nor_taken(
    tmp_path: Path, of_another_launcher: Iterator[Domain]
) -> None:
    """`launcher gc` used to end its guests."""
    house, theirs = House(tmp_path), next(of_another_launcher)
    house.virt.domains[theirs.instance_id] = theirs
    house.network.taps[Tap(theirs.number)] = "br100"
    async with house.open():
        made = await house.launch()
        assert made["number"] == theirs.number + 1
        await house.until(made["id"], "ACTIVE")
        assert (await house.ask("GET", "/audit", status=200))["findings"] == []
        assert (await house.ask("POST", "/gc", {"dry_run": False}, status=200))["removed"] == []
    assert house.virt.domains[theirs.instance_id] == theirs
    assert house.network.taps[Tap(theirs.number)] == "br100"
