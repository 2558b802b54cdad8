"""A process ends in the middle; the next one on the same state goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from launcher.errors import FirewallFailed, NoHostYet
from launcher.messages.notices import HostHeartbeat
from launcher.models import HostState, LaunchOrder
from tests.contract.wire import CTX
from tests.flow.house import House
from tests.orders import make_host
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
        assert [nic["mac"] for nic in active["nics"]] == [nic["mac"] for nic in made["nics"]]
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


async def test_a_machine_whose_filters_failed_at_the_start_is_looked_at_again(tmp_path: Path) -> None:
    """It counted as adopted although it was not: no heartbeat asked for it, and no change of its groups came."""
    first = House(tmp_path)
    async with first.open():
        made = await first.launch()
        await first.until(made["id"], "ACTIVE")
    first.firewall.applied.clear()
    failures = ["once"]

    async def fail_once(point: str, _: str) -> None:
        if point == "apply" and failures:
            failures.pop()
            raise FirewallFailed("broken by the test")

    first.firewall.fault = fail_once
    second = first.successor()
    async with second.open():

        async def filtered() -> bool:
            return bool(second.firewall.applied)

        await eventually(filtered, what="the filters")
        assert not failures


class Hostless:
    """A scheduler that knows no host until it is told."""

    def __init__(self) -> None:
        self.known = False

    def select(self, order: LaunchOrder, hosts: Sequence[HostState]) -> HostState:
        if not self.known:
            raise NoHostYet("no host has reported yet")
        return hosts[0]


async def test_what_waits_for_a_host_is_looked_at_when_one_comes(tmp_path: Path) -> None:
    """However late its next look would have been."""
    scheduler = Hostless()
    async with House(tmp_path, scheduler_driver=scheduler).open() as house:
        made = await house.launch()

        async def trying_again() -> bool:
            sql = "SELECT 1 FROM events WHERE body LIKE '%trying again%'"
            return await house.controller.db.read(lambda db: db.execute(sql).fetchone() is not None)

        await eventually(trying_again, what="the first attempt's end")
        later = "UPDATE instances SET next_check_ms = next_check_ms + 3600000 WHERE host IS NULL"
        assert await house.controller.db.write(lambda db: db.execute(later).rowcount) == 1
        scheduler.known = True
        await house.bus.notify(CTX, HostHeartbeat(host=make_host("node-1", boot_id="another", seen_ms=2**50)))
        await house.until(made["id"], "ACTIVE")
