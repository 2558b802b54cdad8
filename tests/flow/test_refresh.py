"""What instances are filtered by follows the rows: after every kind of change, and in spite of lost messages."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Network
from pathlib import Path
from random import Random

import pytest

from launcher.bus import MemoryBus
from launcher.db import policies, security_groups
from launcher.drivers.network.fake import FakeNetwork
from launcher.drivers.virt.fake import FakeVirt
from launcher.errors import FirewallFailed
from launcher.messages.compute import RefreshGroups
from launcher.messages.reports import ReportPower
from launcher.messaging import Cast, Context
from launcher.models import POWERED_OFF, PowerState
from launcher.policy import Policy, Protocol, Rule
from tests.flow.house import House, Json
from tests.waiting import eventually

SSH = {"protocol": "tcp", "from_port": 22}


def tell_all(cast: Cast) -> bool:
    return True


class Listening(MemoryBus):
    """Remembers the casts; those that `deliver` refuses are lost."""

    sent: list[Cast]
    deliver: Callable[[Cast], bool]

    async def cast(self, ctx: Context, message: Cast, *, host: str | None = None) -> None:
        self.sent.append(message)
        if self.deliver(message):
            await super().cast(ctx, message, host=host)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path, heartbeat=0.5).open() as opened:
        yield listened_to(opened)


@pytest.fixture
async def quiet(tmp_path: Path) -> AsyncIterator[House]:
    """One heartbeat, then none: what reaches the host there is not made up for."""
    async with House(tmp_path, heartbeat=3600.0).open() as opened:
        yield listened_to(opened)


def listened_to(house: House) -> House:
    house.bus.__class__ = Listening
    bus_of(house).sent, bus_of(house).deliver = [], tell_all
    return house


def bus_of(house: House) -> Listening:
    assert isinstance(house.bus, Listening)
    return house.bus


def nudges(house: House) -> int:
    return sum(isinstance(cast, RefreshGroups) for cast in bus_of(house).sent)


def held(driver: FakeVirt | FakeNetwork, wanted: str) -> asyncio.Event:
    """The driver waits at this point until the event is set."""
    end = asyncio.Event()

    async def fault(point: str, subject: str) -> None:
        if point == wanted:
            await end.wait()

    driver.fault = fault
    return end


async def make(house: House, name: str, *rules: Json) -> Json:
    return await house.ask("POST", "/security-groups", {"name": name, "rules": list(rules)}, status=201)


async def run(house: House, name: str, *groups: str) -> Json:
    made = await house.launch(name=name, security_groups=groups)
    return await house.until(made["id"], "ACTIVE")


def policy_of(house: House, instance: Json) -> Policy:
    return house.firewall.applied[instance["number"]][2]


def ports_of(house: House, instance: Json) -> list[int | None]:
    return [rule.from_port for group in policy_of(house, instance).groups for rule in group.rules]


def known_to(house: House, instance: Json, group: Json) -> set[str]:
    """The members of a group that an instance lets in, without itself."""
    members = policy_of(house, instance).members.get(group["id"], ())
    return {str(address) for address in members} - set(instance["addresses"])


async def becomes(house: House, what: str, look: Callable[[], bool]) -> None:
    async def looked() -> bool:
        return look()

    await eventually(looked, what=what)


async def strays(house: House) -> list[str]:
    """Instances whose filters are not what the rows say; each knows its own addresses without being told."""
    found = []
    for number, (order, nics, policy) in house.firewall.applied.items():
        own = {str(lease.address) for lease in nics}
        read = functools.partial(policies.get_of_instance, instance_id=order.instance_id)
        wanted = Policy.model_validate_json(await house.controller.db.read(read))
        if without(policy, own) != without(wanted, own):
            found.append(f"{number}: {policy} is not {wanted}")
    return found


def without(policy: Policy, own: set[str]) -> Policy:
    members = {group: tuple(each for each in known if str(each) not in own) for group, known in policy.members.items()}
    return Policy(groups=policy.groups, members=members)


async def settled(house: House, *, within: float = 10.0) -> None:
    async def look() -> bool:
        return not await strays(house)

    await eventually(look, within=within, what="the filters being what the rows say")


# --- one change at a time ------------------------------------------------------------------------


async def test_a_rule_added_or_removed_reaches_those_who_run(quiet: House) -> None:
    await make(quiet, "web")
    front, other = await run(quiet, "front", "web"), await run(quiet, "other", "default")
    await quiet.ask("POST", "/security-groups/web/rules", {"rules": [SSH]}, status=201)
    await becomes(quiet, "the port open", lambda: ports_of(quiet, front) == [22])
    assert ports_of(quiet, other) == [None]
    await quiet.ask("DELETE", "/security-groups/web/rules", {"rules": [SSH]}, status=204)
    await becomes(quiet, "the port closed", lambda: ports_of(quiet, front) == [])


async def test_a_member_joins_when_it_runs_and_leaves_when_its_end_is_accepted(quiet: House) -> None:
    web = await make(quiet, "web")
    await make(quiet, "db", {"protocol": "tcp", "from_port": 5432, "group": "web"})
    store = await run(quiet, "store", "db")
    assert known_to(quiet, store, web) == set()
    gate = quiet.hold_step("spawning")
    made = await quiet.launch(name="front", security_groups=["web"])
    await gate.reached.wait()
    assert known_to(quiet, store, web) == set()
    gate.open.set()
    front = await quiet.until(made["id"], "ACTIVE")
    await becomes(quiet, "the member known", lambda: known_to(quiet, store, web) == set(front["addresses"]))

    end = held(quiet.virt, "destroy")
    await quiet.ask("DELETE", f"/instances/{front['id']}", status=202)
    await becomes(quiet, "the member forgotten", lambda: known_to(quiet, store, web) == set())
    assert (await quiet.ask("GET", f"/instances/{front['id']}"))["status"] == "DELETING"
    end.set()


async def test_a_member_that_stops_leaves(quiet: House) -> None:
    web = await make(quiet, "web")
    await make(quiet, "db", {"protocol": "tcp", "group": "web"})
    store, front = await run(quiet, "store", "db"), await run(quiet, "front", "web")
    await becomes(quiet, "the member known", lambda: known_to(quiet, store, web) == set(front["addresses"]))
    report = ReportPower(
        instance_id=front["id"], generation=1, host="node-1", power=PowerState.STOPPED, cause=POWERED_OFF
    )
    await quiet.bus.cast(quiet.controller.own_context(), report)
    await quiet.until(front["id"], "STOPPED")
    await becomes(quiet, "the member forgotten", lambda: known_to(quiet, store, web) == set())


async def test_the_groups_of_a_running_instance_are_changed(quiet: House) -> None:
    web, db = await make(quiet, "web", SSH), await make(quiet, "db", {"protocol": "udp", "group": "web"})
    front, store = await run(quiet, "front", "default"), await run(quiet, "store", "db")
    await quiet.ask("PUT", "/instances/front/security-groups", {"security_groups": ["web", "db"]}, status=200)
    await becomes(
        quiet, "the new groups", lambda: [g.id for g in policy_of(quiet, front).groups] == [web["id"], db["id"]]
    )
    await becomes(quiet, "the member known", lambda: known_to(quiet, store, web) == set(front["addresses"]))
    await quiet.ask("PUT", "/instances/front/security-groups", {"security_groups": ["default"]}, status=200)
    await becomes(quiet, "the member forgotten", lambda: known_to(quiet, store, web) == set())
    await settled(quiet)


async def test_the_groups_of_an_instance_are_changed_while_it_is_launched(quiet: House) -> None:
    """After its filters were put in place, before it runs."""
    web = await make(quiet, "web", SSH)
    gate = quiet.hold_step("spawning")
    made = await quiet.launch(name="front")
    await gate.reached.wait()
    await quiet.ask("PUT", "/instances/front/security-groups", {"security_groups": ["web"]}, status=200)
    await becomes(quiet, "the new group", lambda: [g.id for g in policy_of(quiet, made).groups] == [web["id"]])
    gate.open.set()
    await quiet.until(made["id"], "ACTIVE")
    await settled(quiet)


async def test_filters_that_were_removed_are_not_put_back_by_a_refresh(house: House) -> None:
    await make(house, "web", SSH)
    front = await run(house, "front", "default")
    bus_of(house).deliver = lambda cast: not isinstance(cast, RefreshGroups)
    await house.ask("PUT", "/instances/front/security-groups", {"security_groups": ["web"]}, status=200)
    end = held(house.network, "unplug")
    await house.ask("DELETE", f"/instances/{front['id']}", status=202)
    await becomes(house, "the filters gone", lambda: not house.firewall.applied)
    bus_of(house).deliver = tell_all
    heard = house.controller.catalogue.hosts["node-1"].seen_ms
    await becomes(house, "a heartbeat", lambda: house.controller.catalogue.hosts["node-1"].seen_ms > heard)
    assert house.firewall.applied == {}
    end.set()


# --- how many messages ---------------------------------------------------------------------------


async def test_a_launch_that_concerns_nobody_else_costs_no_message(house: House) -> None:
    await make(house, "web", SSH)
    one, _ = await run(house, "one", "web"), await run(house, "two", "web")
    alone = await run(house, "alone", "default")
    for instance in (one, alone):
        await house.ask("DELETE", f"/instances/{instance['id']}", status=202)
        await house.until(instance["id"], "DELETED")
    heard = house.controller.catalogue.hosts["node-1"].seen_ms
    await becomes(house, "a heartbeat", lambda: house.controller.catalogue.hosts["node-1"].seen_ms > heard)
    assert nudges(house) == 0


async def test_many_who_join_at_once_are_few_messages(quiet: House) -> None:
    body = {"image": "ami-tiny", "flavor": "m1.tiny", "count": 60}
    made = (await quiet.ask("POST", "/instances", body, status=202))["instances"]
    for instance in made:
        await quiet.until(instance["id"], "ACTIVE", within=30)
    await settled(quiet)
    assert all(len(policy_of(quiet, instance).members) == 1 for instance in made)
    assert 1 <= nudges(quiet) <= 40


# --- in spite of everything ----------------------------------------------------------------------


async def test_a_lost_nudge_is_made_up_for_after_a_heartbeat(house: House) -> None:
    await make(house, "web")
    front = await run(house, "front", "web")
    bus_of(house).deliver = lambda cast: not isinstance(cast, RefreshGroups)
    await house.ask("POST", "/security-groups/web/rules", {"rules": [SSH]}, status=201)
    await house.ask("PUT", "/instances/front/security-groups", {"security_groups": ["web", "default"]}, status=200)
    await becomes(house, "a message that is lost", lambda: nudges(house) >= 1)
    assert ports_of(house, front) == []
    bus_of(house).deliver = tell_all
    await becomes(house, "the port open", lambda: ports_of(house, front) == [22, None])
    await settled(house)


async def test_a_filter_that_fails_is_tried_again_and_keeps_no_other_back(house: House) -> None:
    await make(house, "web", SSH)
    one, two = await run(house, "one", "default"), await run(house, "two", "default")
    failures = 1

    async def fault(point: str, instance_id: str) -> None:
        nonlocal failures
        if point == "apply" and instance_id == one["id"] and failures:
            failures -= 1
            raise FirewallFailed("broken by the test")

    house.firewall.fault = fault
    bus_of(house).deliver = lambda cast: not isinstance(cast, RefreshGroups)
    for name in ("one", "two"):
        await house.ask("PUT", f"/instances/{name}/security-groups", {"security_groups": ["web"]}, status=200)
    bus_of(house).deliver = tell_all
    await becomes(house, "the other one done", lambda: ports_of(house, two) == [22])
    await becomes(house, "the first one done, too", lambda: ports_of(house, one) == [22])
    assert failures == 0


async def test_the_next_process_filters_by_what_was_changed_meanwhile(house: House, tmp_path: Path) -> None:
    async with House(tmp_path / "other").open() as first:
        await make(first, "web")
        front = await run(first, "front", "web")
        successor = first.successor()
        db = first.controller.db
        await db.write(_add_ssh)
    assert ports_of(first, front) == []
    async with successor.open() as second:
        await becomes(second, "the port open", lambda: ports_of(second, front) == [22])


async def test_a_host_that_knows_more_than_a_database_put_back_is_told_all_anew(house: House) -> None:
    await make(house, "web")
    front = await run(house, "front", "web")
    group = await house.ask("GET", "/security-groups/web", status=200)
    host = house.controller.catalogue.hosts["node-1"].model_copy(update={"policy_version": 1000})
    await house.controller.db.write(functools.partial(_add_silently, group_id=group["id"]))
    await house.controller.refresh.hear_host(host)
    await becomes(house, "the port open", lambda: ports_of(house, front) == [22])
    await becomes(
        house,
        "a later version",
        lambda: house.controller.catalogue.hosts["node-1"].policy_version > host.policy_version,
    )


def _add_silently(rows: sqlite3.Connection, group_id: int) -> None:
    rows.execute(
        "INSERT INTO security_group_rules (group_id, direction, protocol, from_port, to_port, cidr)"
        " VALUES (?, 'ingress', 'tcp', 22, 22, '0.0.0.0/0')",
        (group_id,),
    )


def _add_ssh(rows: sqlite3.Connection) -> None:
    """As a process does that is killed before it tells anybody."""
    group = security_groups.get(rows, "admin", "web")
    rule = Rule(protocol=Protocol.TCP, from_port=22, to_port=22, cidr=IPv4Network("0.0.0.0/0"))
    security_groups.add_rule(rows, group, rule)


@pytest.mark.parametrize("seed", range(3))
async def test_launches_deletes_and_changes_race_and_in_the_end_the_filters_are_right(house: House, seed: int) -> None:
    """With a third of the nudges lost and as many doubled."""
    rng = Random(seed)
    names = ["default", "web", "db"]
    await make(house, "web", SSH, {"protocol": "any", "group": "default"})
    await make(house, "db", {"protocol": "tcp", "from_port": 5432, "group": "web"})
    bus_of(house).deliver = lambda cast: not isinstance(cast, RefreshGroups) or rng.random() > 0.3

    def some() -> list[str]:
        return rng.sample(names, rng.randint(1, 3))

    async def live(number: int) -> None:
        made = await house.launch(name=f"vm-{number}", security_groups=some())
        path = f"/instances/{made['id']}"
        for _ in range(3):
            await asyncio.sleep(rng.uniform(0, 0.05))
            await house.ask("PUT", f"{path}/security-groups", {"security_groups": some()}, status=200)
        if number % 3 == 0:
            await house.ask("DELETE", path, status=202)
            await house.until(made["id"], "DELETED")
        else:
            await house.until(made["id"], "ACTIVE")

    async def rule(number: int) -> None:
        await asyncio.sleep(rng.uniform(0, 0.05))
        name, body = rng.choice(names), {"rules": [{"protocol": "udp", "from_port": number + 1}]}
        await house.ask("POST", f"/security-groups/{name}/rules", body, status=201)
        if number % 2:
            await house.ask("DELETE", f"/security-groups/{name}/rules", body, status=204)

    await asyncio.gather(*(live(number) for number in range(12)), *(rule(number) for number in range(20)))
    await settled(house)
    assert len(house.firewall.applied) == 8
