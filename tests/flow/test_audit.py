"""What is on the host and nobody's is found and removed; what is missing is found; everything else stays."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest

from launcher.accounts import UserRole
from launcher.auditing import ArtefactKind, AuditHosts, CollectGarbage, RemoveArtefacts
from launcher.drivers.network.driver import Tap
from launcher.errors import Conflict, Forbidden, HypervisorBusy, InvalidDomainConfig, LauncherError
from launcher.identity import new_request_id, new_trace_id
from launcher.messages.network import AllocateFixedIp, ReleaseFixedIp
from launcher.messaging import Context
from launcher.models import InstanceRef, LaunchOrder
from launcher.policy import Policy
from tests.flow.house import House, Json
from tests.orders import NETWORK, make_lease, make_order
from tests.waiting import eventually, until

ADMIN = Context(
    request_id=new_request_id(Random(1)),
    project_id="admin",
    user_id="admin",
    role=UserRole.ADMIN,
    trace_id=new_trace_id(Random(1)),
)
Work = Callable[[House, LaunchOrder], Awaitable[None]]


async def plant_domain(house: House, order: LaunchOrder) -> None:
    await house.virt.spawn(order, await house.images.create_disks(order))
    await house.images.delete_disks(order)


async def plant_directory(house: House, order: LaunchOrder) -> None:
    await house.images.create_disks(order)


async def plant_tap(house: House, order: LaunchOrder) -> None:
    await house.network.plug(order, NETWORK)


async def plant_chain(house: House, order: LaunchOrder) -> None:
    await house.firewall.apply(order, [make_lease(order)], Policy())


async def plant_lease(house: House, order: LaunchOrder) -> None:
    """With its line for the DHCP server."""
    request = AllocateFixedIp(
        instance_id=order.instance_id, project_id="admin", mac=order.nics[0].mac, hostname=order.hostname
    )
    await house.bus.call(ADMIN, request)


async def plant_dhcp(house: House, order: LaunchOrder) -> None:
    house.network.leases["br100"] += (make_lease(order),)


async def plant_export(house: House, order: LaunchOrder) -> None:
    house.images.exports.add("disk-7")


PLANTS: dict[str, tuple[Work, set[tuple[str, str]]]] = {
    "domain": (plant_domain, {("ownerless", "domain")}),
    "directory": (plant_directory, {("ownerless", "directory")}),
    "tap": (plant_tap, {("ownerless", "tap")}),
    "chain": (plant_chain, {("ownerless", "chain")}),
    "lease": (plant_lease, {("ownerless", "lease"), ("ownerless", "dhcp")}),
    "dhcp": (plant_dhcp, {("unknown", "dhcp")}),
    "export": (plant_export, {("ownerless", "export")}),
}


async def findings(house: House) -> list[Json]:
    found: list[Json] = (await house.ask("GET", "/audit", status=200))["findings"]
    return found


async def audit(house: House) -> set[tuple[str, str]]:
    return {(finding["trouble"], finding["kind"]) for finding in await findings(house)}


async def a_live_and_a_dead_one(house: House) -> LaunchOrder:
    """One instance runs, another was deleted; the order of the dead one."""
    live, dead = await house.launch(name="live"), await house.launch(name="dead")
    for instance in (live, dead):
        await house.until(instance["id"], "ACTIVE")
    order = house.order_of(dead)
    await house.ask("DELETE", f"/instances/{dead['id']}", status=202)
    await house.until(dead["id"], "DELETED")
    return order


async def test_a_running_and_a_deleted_instance_are_in_order(house: House) -> None:
    await a_live_and_a_dead_one(house)
    found = await house.ask("GET", "/audit", status=200)
    assert found == {"findings": [], "instances": 1, "artefacts": 9, "silent": []}
    assert await house.ask("POST", "/gc", {}, status=200) == {"dry_run": False, "removed": [], "failed": []}


@pytest.mark.parametrize("kind", PLANTS)
async def test_a_leftover_is_found_and_removed_and_nothing_else(house: House, kind: str) -> None:
    order = await a_live_and_a_dead_one(house)
    plant, expected = PLANTS[kind]
    await plant(house, order)
    planted = house.leftovers()
    assert await audit(house) == expected

    dry = await house.ask("POST", "/gc", {"dry_run": True}, status=200)
    assert {(finding["trouble"], finding["kind"]) for finding in dry["removed"]} == expected
    assert house.leftovers() == planted

    wet = await house.ask("POST", "/gc", {}, status=200)
    assert (wet["removed"], wet["failed"]) == (dry["removed"], [])
    assert await audit(house) == set()
    assert len(house.leftovers()) == 5, "the live one has a thing of each kind"


async def remove_lease(house: House, order: LaunchOrder) -> None:
    await house.bus.call(ADMIN, ReleaseFixedIp(instance_id=order.instance_id))


async def remove_dhcp(house: House, order: LaunchOrder) -> None:
    house.network.leases["br100"] = ()


async def remove_base(house: House, order: LaunchOrder) -> None:
    assert order.kernel
    house.images.bases.discard(order.kernel.sha256)


REMOVALS: dict[str, tuple[Work, set[tuple[str, str]]]] = {
    "domain": (lambda house, order: house.virt.destroy(order), {("missing", "domain")}),
    "directory": (lambda house, order: house.images.delete_disks(order), {("missing", "directory")}),
    "tap": (lambda house, order: house.network.unplug(order), {("missing", "tap")}),
    "chain": (lambda house, order: house.firewall.remove(order), {("missing", "chain")}),
    "base": (remove_base, {("missing", "base")}),
    "lease": (remove_lease, {("missing", "lease"), ("missing", "dhcp")}),
    "dhcp": (remove_dhcp, {("missing", "dhcp")}),
}


@pytest.mark.parametrize("kind", REMOVALS)
async def test_what_is_missing_is_found_and_gc_takes_nothing_for_it(house: House, kind: str) -> None:
    await a_live_and_a_dead_one(house)
    (directory,) = house.images.disks.values()
    remove, expected = REMOVALS[kind]
    await remove(house, house.order_of({"number": directory.ref.number}))
    assert await audit(house) == expected
    before = house.leftovers()
    assert (await house.ask("POST", "/gc", {}, status=200))["removed"] == []
    assert house.leftovers() == before


async def test_filters_that_were_flushed_are_missing(house: House) -> None:
    made = await house.launch()
    await house.until(made["id"], "ACTIVE")
    house.firewall.torn.add(made["number"])
    (found,) = await findings(house)
    assert (found["trouble"], found["name"]) == ("missing", "nova-inst-1")
    assert "no packet comes by it" in found["reason"]
    assert (await house.ask("POST", "/gc", {}, status=200))["removed"] == []


async def test_a_stopped_instance_owns_all_but_a_domain(house: House) -> None:
    made = await house.launch()
    await house.until(made["id"], "ACTIVE")
    order = house.order_of(made)
    house.virt.end(made["id"], "shutdown")
    await house.until(made["id"], "STOPPED")
    assert await audit(house) == set()
    await house.virt.spawn(order, house.images.disks[made["id"]].disks)
    assert await audit(house) == {("ownerless", "domain")}
    await house.ask("POST", "/gc", {}, status=200)
    assert await audit(house) == set()
    assert len(house.leftovers()) == 4


async def test_strangers_stay(house: House) -> None:
    await a_live_and_a_dead_one(house)
    house.virt.foreign["99999999-0000-4000-8000-000000000001"] = "instance-00000002"
    await house.ask("POST", "/gc", {}, status=200)
    assert list(house.virt.foreign.values()) == ["instance-00000002"]


# --- the sweep ---------------------------------------------------------------------------------------


async def test_the_sweep_needs_to_see_it_twice_in_a_row(house: House) -> None:
    order, sweep = await a_live_and_a_dead_one(house), house.controller.sweep.sweep
    for _ in range(2):
        await house.network.plug(order, NETWORK)
        await sweep()
        assert Tap(order.number) in house.network.taps
        await house.network.unplug(order)
        await sweep()
    await house.network.plug(order, NETWORK)
    await sweep()
    assert Tap(order.number) in house.network.taps
    await sweep()
    assert Tap(order.number) not in house.network.taps


async def test_the_dhcp_server_is_told_what_the_rows_have_leased(house: House) -> None:
    """Found by the simulation: it was told anew, each time, what the network role remembered, which was wrong."""
    await a_live_and_a_dead_one(house)
    house.network_role.leased.clear()
    await house.network_role.publish_all()
    assert await audit(house) == {("missing", "dhcp")}
    for _ in range(2):
        await house.controller.sweep.sweep()
    assert await audit(house) == set()


async def test_a_domain_seen_for_the_first_time_keeps_its_filters(house: House) -> None:
    order, sweep = await a_live_and_a_dead_one(house), house.controller.sweep.sweep
    await plant_chain(house, order)
    await sweep()
    await plant_domain(house, order)
    await sweep()
    assert order.number in house.firewall.applied
    await sweep()
    assert await audit(house) == set()


async def test_it_happens_by_itself_and_is_counted_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with House(tmp_path, sweep_every=0.02).open() as house:
        order = await a_live_and_a_dead_one(house)
        for kind in ("domain", "directory", "tap", "chain", "lease", "export"):
            await PLANTS[kind][0](house, order)
        await until(lambda: order.instance_id not in house.virt.domains)

        async def clean() -> bool:
            return await audit(house) == set()

        await eventually(clean, what="a clean slate")
        assert len(house.leftovers()) == 5

        async def counted() -> bool:
            async with house.http.get("/metrics") as response:
                text = await response.text()
            return 'launcher_artefacts_removed_total{kind="domain"} 1.0' in text

        await eventually(counted, what="the count")
    assert f"removed: ownerless tap {order.tap} on node-1: its instance is deleted" in caplog.messages


async def test_it_disturbs_no_launch_and_no_deletion(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with House(tmp_path, sweep_every=0.001).open() as house:
        for _ in range(3):
            made = [await house.launch() for _ in range(10)]
            for instance in made:
                await house.until(instance["id"], "ACTIVE")
            for instance in made:
                await house.ask("DELETE", f"/instances/{instance['id']}", status=202)
            for instance in made:
                await house.until(instance["id"], "DELETED")
        assert house.leftovers() == []
    assert [line for line in caplog.messages if "removed" in line or "sweep" in line] == []


async def test_a_domain_that_starts_after_the_launch_was_given_up_is_swept(house: House) -> None:
    """libvirt goes on starting what nobody waits for any more."""

    async def refuse(point: str, _: str) -> None:
        if point == "spawn":
            raise InvalidDomainConfig("no such CPU")

    gate = house.hold_step("spawning")
    made = await house.launch()
    await gate.reached.wait()
    order = house.order_of(made)
    disks = house.images.disks[made["id"]].disks
    house.virt.fault = refuse
    gate.open.set()
    await house.until(made["id"], "ERROR")
    assert house.leftovers() == []
    house.virt.fault = None
    await house.virt.spawn(order, disks)
    for _ in range(2):
        assert len(house.leftovers()) == 1
        await house.controller.sweep.sweep()
    assert house.leftovers() == []
    await house.until(made["id"], "ERROR")


async def test_what_this_database_never_knew_is_left_to_a_person(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """The guests of a launcher whose database was put back from a copy, or of a second launcher."""
    await a_live_and_a_dead_one(house)
    stranger = make_order(99)
    for plant in (plant_domain, plant_directory, plant_tap, plant_chain, plant_lease):
        await plant(house, stranger)
    expected = {("unknown", kind) for kind in ("domain", "directory", "tap", "chain", "lease", "dhcp")}
    for _ in range(3):
        await house.controller.sweep.sweep()
        assert await audit(house) == expected
    assert sum("unknown domain instance-00000063" in line for line in caplog.messages) == 1
    removed = (await house.ask("POST", "/gc", {}, status=200))["removed"]
    assert len(removed) == 6
    assert await audit(house) == set()
    assert len(house.leftovers()) == 5


# --- what it refuses -----------------------------------------------------------------------------------


async def test_an_empty_database_is_no_order_to_remove_everything(tmp_path: Path) -> None:
    async with House(tmp_path / "first").open() as first:
        made = await first.launch()
        await first.until(made["id"], "ACTIVE")
    second = first.successor()
    second.state = tmp_path / "lost"
    async with second.open():
        assert await audit(second) == {("unknown", kind) for kind in ("domain", "directory", "tap", "chain")}
        second.images.exports.add("disk-1")
        before = [line for line in second.leftovers() if "leases" not in line]
        for dry_run in (True, False):
            refused = await second.ask("POST", "/gc", {"dry_run": dry_run}, status=409)
            assert "never had an instance" in refused["detail"]
        await second.controller.sweep.sweep()
        with pytest.raises(Conflict, match="never had an instance"):
            await second.controller.sweep.sweep()
        assert second.leftovers() == before
        assert second.images.exports


async def test_an_unreadable_database_is_none_either(house: House) -> None:
    order = await a_live_and_a_dead_one(house)
    await plant_tap(house, order)
    await house.controller.sweep.sweep()
    with sqlite3.connect(house.state / "controller.db") as broken:
        broken.execute("ALTER TABLE instances RENAME TO lost")
    broken.close()
    assert "cannot be read" in (await house.ask("POST", "/gc", {}, status=500))["detail"]
    with pytest.raises(LauncherError, match="cannot be read"):
        await house.controller.sweep.sweep()
    assert Tap(order.number) in house.network.taps


async def test_a_host_that_does_not_answer_is_named_and_keeps_its_addresses(house: House) -> None:
    order = await a_live_and_a_dead_one(house)
    await plant_lease(house, order)
    second = house.successor()
    async with second.open():
        second.bus.queues.pop("compute.node-1")
        found = await second.ask("GET", "/audit", status=200)
        assert found["silent"] == ["node-1"]
        assert {finding["kind"] for finding in found["findings"]} == {"lease", "dhcp"}
        collected = await second.ask("POST", "/gc", {}, status=200)
        assert collected["removed"] == []
        assert [failed["reason"] for failed in collected["failed"]] == ["what is on the hosts comes first"] * 2


async def test_an_address_is_kept_while_a_machine_may_have_it(house: House) -> None:
    async def stay(point: str, _: str) -> None:
        if point == "destroy":
            raise HypervisorBusy("the domain is still there")

    order = await a_live_and_a_dead_one(house)
    for plant in (plant_domain, plant_chain, plant_lease):
        await plant(house, order)
    house.virt.fault = stay
    collected = await house.ask("POST", "/gc", {}, status=200)
    assert collected["removed"] == []
    assert {failed["kind"]: failed["reason"] for failed in collected["failed"]} == {
        "domain": "the domain is still there",
        "chain": "the domain is still there",
        "lease": "what is on the hosts comes first",
        "dhcp": "what is on the hosts comes first",
    }
    house.virt.fault = None
    assert len((await house.ask("POST", "/gc", {}, status=200))["removed"]) == 4


async def test_what_is_being_worked_on_is_left_to_that_work(house: House) -> None:
    gate = house.hold_step("filtering")
    made = await house.launch()
    await gate.reached.wait()
    order = InstanceRef(instance_id=made["id"], number=made["number"])
    other = InstanceRef(instance_id=make_order(9).instance_id, number=made["number"])
    for ref in (order, other):
        with pytest.raises(Conflict, match="at work"):
            await house.bus.call(ADMIN, RemoveArtefacts(ref=ref, kinds=frozenset(ArtefactKind)), host="node-1")
    assert await audit(house) == set()
    gate.open.set()
    await house.until(made["id"], "ACTIVE")
    assert await audit(house) == set()


async def test_only_an_admin_looks_and_removes(house: House) -> None:
    anybody = ADMIN.model_copy(update={"role": UserRole.MEMBER})
    with pytest.raises(Forbidden):
        await house.bus.call(anybody, AuditHosts())
    with pytest.raises(Forbidden):
        await house.bus.call(anybody, CollectGarbage())
