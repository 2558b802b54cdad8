"""What fails on one host may succeed on another; first the one that failed undoes its part."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random

import pytest

from launcher.accounts import UserRole
from launcher.clock import SystemClock
from launcher.config import TimeoutsConfig
from launcher.db import instances
from launcher.drivers.scheduler.chance import ChanceScheduler
from launcher.errors import HypervisorUnavailable, NoHostYet
from launcher.messages.compute import RunInstance, TerminateInstance
from launcher.messaging import Context
from launcher.models import HostState, LaunchOrder, TaskState
from launcher.services.scheduler import Scheduler
from tests.flow.house import House, Json
from tests.flow.test_launch import events_of
from tests.orders import make_host, make_order
from tests.waiting import eventually, until

CTX = Context(request_id="req-moved", project_id="admin", user_id="admin", role=UserRole.ADMIN, trace_id="0" * 32)
STEPS = ["bridging", "imaging", "injecting", "filtering", "spawning"]


class NodesInOrder:
    """Takes the first host by name of those it is shown; what it was shown is remembered."""

    def __init__(self, *, most: int = 1000) -> None:
        self.shown: list[list[str]] = []
        self.most = most

    def select(self, order: LaunchOrder, hosts: Sequence[HostState]) -> HostState:
        self.shown.append(sorted(host.name for host in hosts))
        if len(self.shown) > self.most:
            raise NoHostYet("no host has reported yet")
        return min(hosts, key=lambda host: host.name)


@pytest.fixture
def chooser() -> NodesInOrder:
    return NodesInOrder()


@pytest.fixture
async def first(tmp_path: Path, chooser: NodesInOrder) -> AsyncIterator[House]:
    async with House(tmp_path, scheduler_driver=chooser).open() as house:
        yield house


@pytest.fixture
async def second(first: House) -> AsyncIterator[House]:
    async with first.with_host("node-2") as other:
        yield other


def kept(house: House) -> list[str]:
    """What a host has of instances; leases are the network's."""
    return [left for left in house.leftovers() if not left.startswith("leases")]


async def order_now(house: House, instance: Json) -> LaunchOrder:
    return await house.controller.db.read(lambda db: instances.get_order(db, instance["id"]))


@pytest.mark.parametrize("step", STEPS)
async def test_what_fails_on_one_host_runs_on_another_and_leaves_the_first_empty(
    first: House, second: House, step: str
) -> None:
    first.break_step(step)
    made = await first.launch()
    active = await first.until(made["id"], "ACTIVE")
    assert (active["host"], active["addresses"]) == ("node-2", ["10.0.0.2"])
    assert kept(first) == []
    assert [domain.generation for domain in second.virt.domains.values()] == [3]
    said = [event["message"] for event in await events_of(first, made["id"])]
    assert sum("trying another host than node-1" in message for message in said) == 1
    assert (await first.ask("GET", "/audit", status=200))["findings"] == []


async def test_a_machine_starts_elsewhere_only_when_nothing_of_it_is_left_here(first: House, second: House) -> None:
    """The domain runs, its answer is lost, and it does not go at once."""
    allowed = False

    async def unwilling(point: str, _: str) -> None:
        if point == "spawned" or (point == "destroy" and not allowed):
            raise HypervisorUnavailable("the hypervisor is away")

    first.virt.fault = unwilling
    made = await first.launch()

    async def leaving() -> bool:
        found = await first.ask("GET", f"/instances/{made['id']}", status=200)
        return bool(found["task_state"] == "rescheduling")

    await eventually(leaving, what="its leave of the first host")
    assert (len(first.virt.domains), kept(second)) == (1, [])
    allowed = True
    await first.controller.reconcile.recover()
    assert (await first.until(made["id"], "ACTIVE"))["host"] == "node-2"
    assert kept(first) == []


async def test_where_every_host_fails_the_error_names_the_step_and_nothing_is_left(
    first: House, second: House, chooser: NodesInOrder
) -> None:
    for house in (first, second):
        house.break_step("spawning")
    made = await first.launch()
    failed = await first.until(made["id"], "ERROR")
    assert failed["fault"]["step"] == "spawning"
    assert (first.leftovers(), kept(second)) == ([], [])
    assert chooser.shown == [["node-1", "node-2"], ["node-2"]]
    assert 1000 - first.broken["spawning"] == 1, "the first host tried once, the last of them the other two times"


async def test_a_delete_between_two_hosts_gives_the_address_back(tmp_path: Path) -> None:
    async with House(tmp_path, scheduler_driver=NodesInOrder(most=1)).open() as first, first.with_host("node-2"):
        first.break_step("spawning")
        made = await first.launch()

        async def between() -> bool:
            found = await first.ask("GET", f"/instances/{made['id']}", status=200)
            return bool(found["task_state"] == "scheduling" and first.broken["spawning"] < 1000)

        await eventually(between, what="waiting for another host")
        assert first.leftovers() != []
        await first.ask("DELETE", f"/instances/{made['id']}", status=202)
        await first.until(made["id"], "DELETED")
        assert first.leftovers() == []


async def test_a_launch_given_up_between_two_hosts_gives_the_address_back(tmp_path: Path) -> None:
    house = House(tmp_path, scheduler_driver=NodesInOrder(most=1), build_timeout=1.0)
    async with house.open() as first, first.with_host("node-2"):
        first.break_step("spawning")
        made = await first.launch()
        failed = await first.until(made["id"], "ERROR")
        assert failed["fault"]["code"] in ("build_timeout", "no_host_yet")
        assert first.leftovers() == []


async def test_a_state_that_takes_its_time_ends_the_launch_long_before_the_whole_may(tmp_path: Path) -> None:
    timeouts = {state: 1.0 if state is TaskState.FILTERING else 60.0 for state in TimeoutsConfig().of_states()}
    async with House(tmp_path, state_timeouts=timeouts).open() as house:
        gate = house.hold_step("filtering")
        made = await house.launch()

        async def cleaning() -> bool:
            found = await house.ask("GET", f"/instances/{made['id']}", status=200)
            return bool(found["task_state"] == "cleaning")

        await eventually(cleaning, what="giving up")
        gate.open.set()
        failed = await house.until(made["id"], "ERROR")
        assert failed["fault"]["code"] == "build_timeout"
        assert failed["fault"]["step"] == "filtering"
        assert "[timeouts] filtering_s" in failed["fault"]["hint"]
        assert house.leftovers() == []


async def test_an_order_to_leave_that_comes_late_ends_nothing(first: House, second: House) -> None:
    first.break_step("spawning", times=1)
    made = await first.launch()
    await first.until(made["id"], "ACTIVE")
    now = await order_now(first, made)
    for generation in (2, now.generation):
        late = TerminateInstance(order=now.model_copy(update={"generation": generation}), keep_address=True)
        for host in ("node-1", "node-2"):
            await first.bus.cast(CTX, late, host=host)
    await first.until((await first.launch())["id"], "ACTIVE")
    assert made["id"] in second.virt.domains
    assert len(second.leftovers()) == len(kept(second))
    assert (await first.ask("GET", "/audit", status=200))["findings"] == []


async def test_late_work_of_the_first_host_is_stale(first: House, second: House) -> None:
    first.break_step("spawning", times=1)
    made = await first.launch()
    await first.until(made["id"], "ACTIVE")
    old = (await order_now(first, made)).model_copy(update={"generation": 1, "tried_hosts": ()})
    await first.bus.cast(CTX, RunInstance(order=old), host="node-1")
    await until(lambda: not first.broken["spawning"])
    await first.until((await first.launch())["id"], "ACTIVE")
    assert made["id"] not in first.virt.domains
    assert made["id"] in second.virt.domains


async def test_a_machine_that_ran_is_not_moved_from_its_disk(first: House, second: House) -> None:
    made = await first.launch()
    await first.until(made["id"], "ACTIVE")
    first.break_step("spawning", times=1)
    del first.virt.domains[made["id"]]
    for _ in range(2):
        await first.controller.sweep.sweep()
    await until(lambda: made["id"] in first.virt.domains)
    assert (await first.until(made["id"], "ACTIVE"))["host"] == "node-1"
    assert kept(second) == []


async def test_the_hosts_that_failed_are_taken_where_no_other_will_do(first: House) -> None:
    scheduler = Scheduler(
        host="node-1",
        bus=first.bus,
        clock=SystemClock(),
        rng=Random(1),
        driver=ChanceScheduler(rng=Random(1)),
        host_timeout=60.0,
    )
    order = make_order(tried_hosts=("node-1",))
    roomy, full = make_host("node-1"), make_host("node-2", memory_used_mb=8192)
    assert scheduler._select(order, [roomy, full]) == roomy
    assert scheduler._select(order, [roomy]) == roomy
    for _ in range(20):
        assert scheduler._select(order, [roomy, make_host("node-2")]).name == "node-2"
