"""Machines that end without a word of ours: powered off inside, killed from outside, gone with their host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.accounts import UserRole
from launcher.db import events, instances
from launcher.drivers.virt.driver import Domain
from launcher.drivers.virt.fake import FakeVirt
from launcher.messages.compute import VerifyInstance
from launcher.messaging import Context
from launcher.models import InstanceId, LaunchOrder, PowerState
from tests.flow.house import House, Json
from tests.waiting import until

CTX = Context(request_id="req-power", project_id="admin", user_id="admin", role=UserRole.ADMIN, trace_id="0" * 32)
CAUSES = ["failed", "crashed", "destroyed", "gone while libvirt was away"]


class ShySpell(FakeVirt):
    """Does not find its domains in the next `blind` looks, as a libvirt that has just been started."""

    blind = 0

    async def find_domain(self, instance_id: InstanceId) -> Domain | None:
        if self.blind:
            self.blind -= 1
            return None
        return await super().find_domain(instance_id)


@pytest.fixture(params=[True, False], ids=["restart", "stop"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    """A house with one policy or the other."""
    async with House(tmp_path, restart_missing=request.param, virt=ShySpell()).open() as house:
        yield house


async def running(house: House, *, for_s: float = 0.0) -> Json:
    """A machine that was started that long ago."""
    made = await house.launch()
    found = await house.until(made["id"], "ACTIVE")
    earlier = "UPDATE instances SET state_since_ms = state_since_ms - ?"
    await house.controller.db.write(lambda db: db.execute(earlier, (for_s * 1000,)))
    return found


async def ends_as_the_policy_says(house: House, before: Json) -> None:
    """Started again with its address and its disk, or stopped with both."""
    if house.restart_missing:
        await until(lambda: before["id"] in house.virt.domains)
        now = await house.until(before["id"], "ACTIVE")
        assert house.virt.domains[before["id"]].generation == before["generation"] + 1
    else:
        now = await house.until(before["id"], "STOPPED")
        assert house.virt.domains == {}
    assert now["addresses"] == before["addresses"]
    assert before["id"] in house.images.disks


async def test_a_guest_that_powers_itself_off_is_stopped_whatever_the_policy(either: House) -> None:
    made = await running(either, for_s=3600)
    either.virt.end(made["id"], "shutdown")
    await either.until(made["id"], "STOPPED")
    assert either.virt.domains == {}


@pytest.mark.parametrize("cause", CAUSES)
async def test_a_machine_that_is_killed_from_outside_is_a_matter_of_policy(either: House, cause: str) -> None:
    """It was stopped for good, while the same death unseen was made up for."""
    made = await running(either, for_s=61)
    either.virt.end(made["id"], cause)
    await ends_as_the_policy_says(either, made)


async def test_one_that_dies_right_after_its_start_is_not_started_for_ever(either: House) -> None:
    made = await running(either, for_s=50)
    either.virt.end(made["id"], "crashed")
    await either.until(made["id"], "STOPPED")


async def test_the_periodic_look_finds_what_no_event_told(either: House) -> None:
    made = await running(either)
    del either.virt.domains[made["id"]]
    for _ in range(2):
        await either.controller.sweep.sweep()
    await ends_as_the_policy_says(either, made)


@pytest.mark.parametrize("restart_missing", [True, False])
async def test_a_rebooted_host_has_its_machines_again_or_says_that_they_stopped(
    tmp_path: Path, restart_missing: bool
) -> None:
    """Links and filters went with the machines; addresses and disks stay."""
    first = House(tmp_path, restart_missing=restart_missing)
    async with first.open():
        made = [await running(first) for _ in range(3)]
    for lost in (first.virt.domains, first.network.taps, first.firewall.applied):
        lost.clear()
    second = replace(first.successor(), restart_missing=restart_missing)
    async with second.open():
        for before in made:
            now = await second.until(before["id"], "ACTIVE" if restart_missing else "STOPPED")
            assert now["addresses"] == before["addresses"]
        if restart_missing:
            await until(lambda: len(second.virt.domains) == 3)
            assert len(second.network.taps) == len(second.firewall.applied) == 3


@pytest.mark.parametrize(
    ("cause", "behaviour", "status"),
    [
        ("shutdown", "stop", "STOPPED"),
        ("shutdown", "terminate", "DELETED"),
        ("crashed", "terminate", "ACTIVE"),
    ],
)
async def test_what_a_guest_did_while_the_launcher_was_down_counts(
    tmp_path: Path, cause: str, behaviour: str, status: str
) -> None:
    """One that had powered itself off was started again."""
    first = House(tmp_path)
    async with first.open():
        made = await first.until((await first.launch(shutdown_behaviour=behaviour))["id"], "ACTIVE")
    first.virt.end(made["id"], cause)
    second = first.successor()
    async with second.open():
        await until(lambda: (made["id"] in second.virt.domains) == (status == "ACTIVE"))
        await second.until(made["id"], status)


@pytest.mark.parametrize(("looks", "generation"), [(1, 1), (2, 2)])
async def test_a_machine_is_missing_when_two_looks_in_a_row_say_so(tmp_path: Path, looks: int, generation: int) -> None:
    """One look too early, at a libvirt that was still finding its guests, replaced a machine that ran."""
    virt = ShySpell()
    async with House(tmp_path, virt=virt).open() as house:
        made = await running(house)
        house.firewall.applied.clear()
        virt.blind = looks
        await house.bus.cast(CTX, VerifyInstance(order=await order_of(house, made)), host="node-1")
        await until(lambda: made["number"] in house.firewall.applied and made["id"] in virt.domains)
        await house.until(made["id"], "ACTIVE")
        assert virt.domains[made["id"]].generation == generation


async def test_a_late_word_of_an_older_machine_does_not_hide_the_new_ones_end(house: House) -> None:
    """The host took the old order for its machine's, and reported the new one's end under the old generation."""
    made = await running(house)
    old = await order_of(house, made)
    del house.virt.domains[made["id"]]
    await house.bus.cast(CTX, VerifyInstance(order=old), host="node-1")
    await until(lambda: made["id"] in house.virt.domains)
    await house.until(made["id"], "ACTIVE")
    await house.bus.cast(CTX, VerifyInstance(order=old), host="node-1")
    await running(house)  # orders of one host keep their order: when this is done, so is that
    house.virt.end(made["id"], "shutdown")
    await house.until(made["id"], "STOPPED")


async def test_a_machine_that_ended_unheard_counts_no_more_once_it_is_looked_for(tmp_path: Path) -> None:
    """It was held as running for ever: it had ended between the look of a verification and its end."""
    async with House(tmp_path, restart_missing=False).open() as house:
        made = await running(house)
        del house.virt.domains[made["id"]]
        await house.bus.cast(CTX, VerifyInstance(order=await order_of(house, made)), host="node-1")
        await house.until(made["id"], "STOPPED")
        assert made["id"] in house.compute.holdings.held
        assert house.compute.holdings.running == 0


async def test_a_machine_whose_disk_was_full_goes_on_unless_its_owner_paused_it(house: House) -> None:
    """The hypervisor pauses it, and nobody else would let it run again."""
    made = await running(house)
    house.virt.stall(made["id"])
    await until(lambda: house.virt.domains[made["id"]].power is PowerState.RUNNING)
    await until(lambda: not house.compute.stuck.known)
    log = await house.controller.db.read(lambda db: events.list_after(db, 0, project_id=None, instance_id=made["id"]))
    assert [event.message.split(":")[0] for event in log[-2:]] == ["paused", "it goes on"]
    await house.ask("POST", f"/instances/{made['id']}/pause", status=202)
    await house.until(made["id"], "PAUSED")
    house.virt.stall(made["id"])
    await until(lambda: made["id"] in house.compute.stuck.known)
    await running(house)
    assert house.virt.domains[made["id"]].power is PowerState.PAUSED
    await house.ask("POST", f"/instances/{made['id']}/unpause", status=202)
    await house.until(made["id"], "ACTIVE")
    assert house.virt.domains[made["id"]].power is PowerState.RUNNING


async def test_a_shut_off_domain_is_no_running_machine(either: House) -> None:
    """Somebody had made it persistent, so it was still listed after its end."""
    made = await running(either)
    domain = either.virt.domains[made["id"]]
    either.virt.domains[made["id"]] = domain.model_copy(update={"power": PowerState.STOPPED})
    await either.bus.cast(CTX, VerifyInstance(order=await order_of(either, made)), host="node-1")
    if either.restart_missing:
        await until(lambda: either.virt.domains[made["id"]].generation == 2)
    else:
        await either.until(made["id"], "STOPPED")


async def order_of(house: House, instance: Json) -> LaunchOrder:
    return await house.controller.db.read(lambda db: instances.get_order(db, instance["id"]))
