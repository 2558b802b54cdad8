"""What is done to an instance between its launch and its end: every verb, cut off, failing, overtaken."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from launcher.db import events
from launcher.errors import HypervisorBusy, SpawnFailed
from launcher.life import AT_REST, OPERATIONS, RUNNING, Action, Operation
from launcher.models import InstanceId, PowerState, VmState
from tests.flow.house import House, Json
from tests.waiting import eventually, until

VERBS: dict[Action, Operation] = {
    action: operation for action, operation in OPERATIONS.items() if action is not Action.SNAPSHOT
}
"""`test_instance_images.py` has the other one."""
WAYS: dict[VmState, Sequence[Action]] = {
    VmState.ACTIVE: (),
    VmState.PAUSED: (Action.PAUSE,),
    VmState.SUSPENDED: (Action.SUSPEND,),
    VmState.STOPPED: (Action.STOP,),
    VmState.RESCUED: (Action.RESCUE,),
}
"""How an active instance gets into each state."""
EFFECTS = {
    Action.STOP: "shut_down",
    Action.START: "spawn",
    Action.REBOOT: "shut_down",
    Action.PAUSE: "paused",
    Action.UNPAUSE: "unpaused",
    Action.SUSPEND: "suspend",
    Action.RESUME: "resume",
    Action.REBUILD: "spawn",
    Action.RESCUE: "spawn",
    Action.UNRESCUE: "spawn",
}
"""The first point of the hypervisor that each verb comes to."""


class Stand:
    """Holds whoever comes to one point of the fake hypervisor."""

    def __init__(self, house: House, point: str) -> None:
        self.point, self.reached, self.open, self.cut = point, asyncio.Event(), asyncio.Event(), False
        house.virt.fault = self

    async def __call__(self, point: str, instance_id: InstanceId) -> None:
        if point == self.point:
            self.reached.set()
            await self.open.wait()
            if self.cut:
                raise asyncio.CancelledError


async def act(house: House, instance: Json, action: Action, *, status: int = 202, **body: object) -> Json:
    return await house.ask("POST", f"/instances/{instance['id']}/{action}", body, status=status)


async def done(house: House, instance: Json, state: VmState | None) -> Json:
    """The instance when it is at rest in this state."""

    async def look() -> Json | None:
        found = await house.ask("GET", f"/instances/{instance['id']}", status=200)
        return found if (found["vm_state"], found["task_state"]) == (state, None) else None

    return await eventually(look, what=f"{instance['id']} at rest and {state}")


async def brought(house: House, state: VmState) -> Json:
    """An instance in this state."""
    made = await house.launch()
    found = await house.until(made["id"], "ACTIVE")
    for action in WAYS[state]:
        await act(house, found, action)
        found = await done(house, found, VERBS[action].end)
    return found


async def sound(house: House) -> None:
    """Nothing is missing and nothing too much, and the host counts what it has."""
    found = await house.ask("GET", "/audit", status=200)
    assert (found["findings"], found["silent"]) == ([], [])


@pytest.mark.parametrize("state", sorted(AT_REST))
async def test_from_each_state_each_verb_leads_where_the_table_says_or_is_refused(house: House, state: VmState) -> None:
    for action, operation in VERBS.items():
        made = await brought(house, state)
        if state not in operation.allowed:
            refusal = await act(house, made, action, status=409)
            assert refusal["code"] == "wrong_state"
            assert f"is {state}: to {action} it must be" in refusal["detail"]
            assert await house.ask("GET", f"/instances/{made['id']}") == made
            continue
        begun = await act(house, made, action)
        assert begun["task_state"] in (operation.task, None)
        now = await done(house, made, operation.end)
        assert now["addresses"] == made["addresses"]
        assert now["generation"] == made["generation"] + operation.renews
        assert (made["id"] in house.virt.domains) == (operation.end in RUNNING)
        assert made["number"] in house.firewall.applied
        assert made["id"] in house.images.disks
        await sound(house)


async def test_every_verb_is_an_event_with_its_own_request_and_trace(house: House) -> None:
    made = await brought(house, VmState.STOPPED)
    header = {"traceparent": f"00-{'5' * 32}-{'6' * 16}-01"}
    await house.ask("POST", f"/instances/{made['id']}/start", {}, status=202, headers=header)
    await done(house, made, VmState.ACTIVE)
    log = await house.controller.db.read(lambda db: events.list_after(db, 0, project_id=None, instance_id=made["id"]))
    told = [(event.vm_state, event.task_state, event.trace_id == "5" * 32) for event in log[-2:]]
    assert told == [("stopped", "starting", True), ("active", None, True)]
    assert len({event.request_id for event in log}) == 3

    async def steps() -> bool:
        spans = (await house.ask("GET", f"/instances/{made['id']}/trace"))["spans"]
        return {"starting", "spawning"} <= {span["name"] for span in spans if span["trace_id"] == "5" * 32}

    await eventually(steps, what="the steps in the trace")


async def test_a_deaf_guest_is_stopped_when_its_time_is_over(house: House) -> None:
    made = await brought(house, VmState.ACTIVE)
    house.virt.deaf.add(made["id"])
    await act(house, made, Action.STOP, timeout_s=0.3)
    await until(lambda: not house.virt.domains)
    await done(house, made, VmState.STOPPED)


async def test_who_cannot_wait_any_longer_forces_it(house: House) -> None:
    made = await brought(house, VmState.ACTIVE)
    house.virt.deaf.add(made["id"])
    await act(house, made, Action.STOP, timeout_s=3600)
    refusal = await act(house, made, Action.STOP, status=409)
    assert "stopping now" in refusal["detail"]
    assert made["id"] in house.virt.domains
    await act(house, made, Action.STOP, force=True)
    await done(house, made, VmState.STOPPED)
    assert house.virt.domains == {}


async def test_a_reboot_is_a_new_machine_and_its_predecessors_end_is_none_of_it(house: House) -> None:
    made = await brought(house, VmState.ACTIVE)
    for force in (False, True):
        before = house.virt.domains[made["id"]].generation
        await act(house, made, Action.REBOOT, force=force)
        await done(house, made, VmState.ACTIVE)
        assert house.virt.domains[made["id"]].generation == before + 1
    house.virt.end(made["id"], "shutdown")
    await done(house, made, VmState.STOPPED)


@pytest.mark.parametrize("action", VERBS)
async def test_a_launcher_that_ends_in_the_middle_goes_on_with_it_after_its_start(
    tmp_path: Path, action: Action
) -> None:
    operation = VERBS[action]
    first = House(tmp_path)
    async with first.open():
        made = await brought(first, operation.allowed[0])
        stand = Stand(first, EFFECTS[action])
        await act(first, made, action)
        await asyncio.wait_for(stand.reached.wait(), 5)
        stand.cut = True
        stand.open.set()
    first.virt.fault = None
    async with first.successor().open() as second:
        await done(second, made, operation.end)
        await until(lambda: (second.compute.holdings.running == 1) == (operation.end in RUNNING))
        await sound(second)


@pytest.mark.parametrize("action", VERBS)
async def test_a_delete_wins_over_it(house: House, action: Action) -> None:
    made = await brought(house, VERBS[action].allowed[0])
    stand = Stand(house, EFFECTS[action])
    await act(house, made, action)
    await asyncio.wait_for(stand.reached.wait(), 5)
    await house.ask("DELETE", f"/instances/{made['id']}", status=202)
    stand.open.set()
    await house.until(made["id"], "DELETED")
    await until(lambda: not house.leftovers())
    assert house.compute.holdings.held == {}


async def test_a_delete_does_not_wait_for_a_deaf_guest(house: House) -> None:
    made = await brought(house, VmState.ACTIVE)
    house.virt.deaf.add(made["id"])
    await act(house, made, Action.REBOOT, timeout_s=3600)
    await house.ask("DELETE", f"/instances/{made['id']}", status=202)
    await house.until(made["id"], "DELETED", within=5)
    await until(lambda: not house.leftovers())


@pytest.mark.parametrize("action", [action for action, operation in VERBS.items() if operation.starts])
async def test_a_machine_that_does_not_start_is_stopped_with_its_disk_and_says_why(
    house: House, action: Action
) -> None:
    made = await brought(house, VERBS[action].allowed[0])
    house.break_step("spawning")
    await act(house, made, action)
    now = await done(house, made, VmState.STOPPED)
    assert (now["fault"]["step"], now["addresses"]) == ("spawning", made["addresses"])
    assert made["id"] in house.images.disks
    await sound(house)
    house.broken.clear()
    await act(house, made, Action.START)
    assert (await done(house, made, VmState.ACTIVE))["fault"] is None


@pytest.mark.parametrize("action", [Action.PAUSE, Action.SUSPEND, Action.RESUME])
async def test_what_fails_for_good_is_as_it_was_and_says_why(house: House, action: Action) -> None:
    made = await brought(house, VERBS[action].allowed[0])

    async def fail(point: str, instance_id: InstanceId) -> None:
        if point == EFFECTS[action]:
            raise SpawnFailed("no space left on device") if action is Action.RESUME else HypervisorBusy("not now")

    house.virt.fault = fail
    await act(house, made, action)
    found = await eventually(lambda: _with_fault(house, made), what="a fault")
    assert (found["vm_state"], found["task_state"]) == (made["vm_state"], None)
    assert found["fault"]["message"] in ("no space left on device", "not now")
    house.virt.fault = None
    await act(house, made, action)
    await done(house, made, VERBS[action].end)
    await sound(house)


async def _with_fault(house: House, instance: Json) -> Json | None:
    found = await house.ask("GET", f"/instances/{instance['id']}")
    return found if found["fault"] else None


async def test_a_machine_that_ends_while_it_is_paused_is_stopped(house: House) -> None:
    made = await brought(house, VmState.PAUSED)
    house.virt.end(made["id"], "failed")
    await done(house, made, VmState.STOPPED)
    await sound(house)


async def test_a_machine_that_was_gone_when_it_was_to_be_paused_is_found_missing(house: House) -> None:
    made = await brought(house, VmState.ACTIVE)
    del house.virt.domains[made["id"]]
    await act(house, made, Action.PAUSE)
    await until(lambda: made["id"] in house.virt.domains)
    assert (await done(house, made, VmState.ACTIVE))["generation"] == made["generation"] + 1


@pytest.mark.parametrize("state", sorted(AT_REST))
async def test_each_state_outlives_the_launcher_and_the_loss_of_filters_and_links(
    tmp_path: Path, state: VmState
) -> None:
    """The host still counts it, and puts back what is missing."""
    first = House(tmp_path)
    async with first.open():
        made = await brought(first, state)
    first.firewall.applied.clear()
    first.network.taps.clear()
    async with first.successor().open() as second:
        await until(lambda: made["number"] in second.firewall.applied)
        assert await done(second, made, state) == made
        assert len(second.compute.holdings.held) == 1
        assert second.compute.holdings.running == (state in RUNNING)
        if state is VmState.PAUSED:
            assert second.virt.domains[made["id"]].power is PowerState.PAUSED
        await sound(second)


async def test_a_lost_word_of_an_end_is_made_up_for_by_the_heartbeat(tmp_path: Path) -> None:
    async with House(tmp_path, heartbeat=0.1, restart_missing=False).open() as house:
        made = await brought(house, VmState.ACTIVE)
        del house.virt.domains[made["id"]]
        house.compute.holdings.off.add(made["id"])
        await done(house, made, VmState.STOPPED)
