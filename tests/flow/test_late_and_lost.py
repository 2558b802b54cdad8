"""Messages and effects that come late, twice or never. Each was a red schedule of `tests/simulation` once."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.accounts import UserRole
from launcher.db import events
from launcher.errors import StaleGeneration
from launcher.messages.compute import RunInstance
from launcher.messages.notices import HostHeartbeat
from launcher.messages.reports import ReportPower
from launcher.messaging import Context
from launcher.models import HostState
from tests.flow.house import House, Json
from tests.waiting import eventually, until

CTX = Context(request_id="req-late", project_id="admin", user_id="admin", role=UserRole.ADMIN, trace_id="0" * 32)


async def running(house: House) -> Json:
    made = await house.launch()
    return await house.until(made["id"], "ACTIVE")


async def told_by_host(house: House) -> HostState:
    """The next heartbeat of the host."""
    catalogue = house.controller.catalogue
    before = catalogue.hosts["node-1"].seen_ms
    await until(lambda: catalogue.hosts["node-1"].seen_ms > before)
    return catalogue.hosts["node-1"]


async def test_an_order_that_comes_after_the_end_is_not_counted_on_its_host(house: House) -> None:
    """A doubled RunInstance held a place on the host for ever."""
    ended = await running(house)
    order = house.order_of(ended)
    await house.ask("DELETE", f"/instances/{ended['id']}", status=202)
    await house.until(ended["id"], "DELETED")
    await house.bus.cast(CTX, RunInstance(order=order), host="node-1")
    await running(house)
    assert (await told_by_host(house)).instances == 1


async def test_a_machine_is_not_started_anew_by_an_old_word_that_it_was_missing(house: House) -> None:
    """A doubled ReportPower restarted a guest that ran."""
    instance = await running(house)
    lost = ReportPower(instance_id=instance["id"], generation=1, host="node-1", power=None, cause="it was lost")
    del house.virt.domains[instance["id"]]
    await house.bus.cast(CTX, lost)
    await until(lambda: instance["id"] in house.virt.domains)
    await house.until(instance["id"], "ACTIVE")
    await house.bus.cast(CTX, lost)
    await running(house)
    assert house.virt.domains[instance["id"]].generation == 2


async def test_a_machine_whose_end_nobody_reported_is_started_again_by_the_sweep(house: House) -> None:
    """An instance stayed active without a domain when the word of its end was lost, or came before it was active."""
    instance = await running(house)
    del house.virt.domains[instance["id"]]
    for _ in range(2):
        await house.controller.sweep.sweep()
    await until(lambda: instance["id"] in house.virt.domains)
    await house.until(instance["id"], "ACTIVE")


async def test_filters_that_went_missing_are_put_back_by_the_sweep(house: House) -> None:
    instance = await running(house)
    house.firewall.applied.clear()
    for _ in range(2):
        await house.controller.sweep.sweep()
    await until(lambda: instance["number"] in house.firewall.applied)
    assert house.virt.domains[instance["id"]].generation == 1


async def test_a_host_that_has_not_heard_of_a_machine_is_told_again(house: House) -> None:
    """A VerifyInstance that was lost, or an instance that became active right after its host's restart."""
    instance = await running(house)
    house.firewall.applied.clear()
    told = (await told_by_host(house)).model_copy(update={"instances": 0})
    await house.controller.hear_host(CTX, HostHeartbeat(host=told))
    await until(lambda: instance["number"] in house.firewall.applied)


async def test_a_start_that_comes_late_is_ended_before_its_address_is_free(house: House) -> None:
    instance = await running(house)
    order = house.order_of(instance)

    async def start_late(point: str, _: str) -> None:
        if point == "unplug":
            house.virt._boot(order)

    house.network.fault = start_late
    await house.ask("DELETE", f"/instances/{instance['id']}", status=202)
    await house.until(instance["id"], "DELETED")
    assert house.leftovers() == []


async def test_a_delete_that_the_reconcile_loop_overtakes_is_no_error(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its client got 409 stale_generation for a delete that was done."""
    instance = await running(house)
    nudge = house.controller.reconcile.nudge

    async def overtaken(*args: object) -> None:
        await nudge(*args)  # type: ignore[arg-type]
        raise StaleGeneration("somebody was here first")

    monkeypatch.setattr(house.controller.reconcile, "nudge", overtaken)
    await house.ask("DELETE", f"/instances/{instance['id']}", status=202)
    await house.until(instance["id"], "DELETED")


async def test_a_role_that_is_away_costs_no_attempt(tmp_path: Path) -> None:
    """A launch failed for good within seconds while the network role was being restarted."""
    roles = ("controller", "scheduler", "compute", "api")
    async with House(tmp_path, roles=roles, max_attempts=1).open() as house:
        made = await house.launch()

        async def tried_again() -> bool:
            found = await house.controller.db.read(
                lambda db: events.list_after(db, 0, project_id=None, instance_id=made["id"])
            )
            return len([event for event in found if "trying again" in event.message]) >= 2

        await eventually(tried_again, what="two attempts without a network role")
        assert (await house.ask("GET", f"/instances/{made['id']}", status=200))["status"] == "BUILD"
