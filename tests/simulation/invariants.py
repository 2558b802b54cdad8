"""What must hold when all is quiet."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address

from launcher.db import events, instances, policies
from launcher.life import AT_REST, RUNNING
from launcher.models import InstanceRef, TaskState
from launcher.policy import Policy
from tests.simulation.schedule import Schedule
from tests.simulation.world import Host, World

HARMLESS = ("fair", "doubling", "reordering", "replaying")
"""Weather that costs time only."""
ENDS = ("active", "paused", "suspended", "error", "stopped", "deleted")


def rows(world: World) -> list[sqlite3.Row]:
    return (
        world.files["controller"]
        .execute(
            "SELECT *, (SELECT json_group_array(address) FROM (SELECT address FROM nics"
            " WHERE nics.number = instances.number ORDER BY position)) AS addresses FROM instances ORDER BY number"
        )
        .fetchall()
    )


def states(world: World) -> Iterator[str]:
    for row in rows(world):
        yield f"{row['vm_state']}/{row['task_state']}" if row["task_state"] else str(row["vm_state"])


def restless(world: World) -> bool:
    """Whether an instance is still on its way."""
    asked = "SELECT count(*) FROM instances WHERE next_check_ms IS NOT NULL OR task_state IS NOT NULL"
    return bool(world.files["controller"].execute(asked).fetchone()[0])


def problems(world: World, answered: Mapping[int, str]) -> Iterator[str]:
    """`answered` is what each client was told to have."""
    found = rows(world)
    if len(found) != world.schedule.launches:
        yield f"{world.schedule.launches} launches were asked for, {len(found)} rows are there"
    if set(answered.values()) != {row["id"] for row in found}:
        yield "a launch was answered with an instance that is not there"
    for row in found:
        for problem in _of_one(world, row):
            yield f"instance {row['number']} ({row['vm_state']}/{row['task_state']}): {problem}"
    yield from _strays(world, found)
    yield from unfiltered(world)
    yield from _usage(world, found)
    yield from _led(world)


def _of_one(world: World, row: sqlite3.Row) -> Iterator[str]:
    if row["vm_state"] not in ENDS or row["task_state"] is not None:
        yield "it never ended"
        return
    if row["id"] in world.deleted and row["vm_state"] != "deleted":
        yield "its deletion was accepted"
    kinds = {
        "active": _running,
        "paused": _running,
        "suspended": _suspended,
        "stopped": _stopped,
        "error": _failed,
        "deleted": _gone,
    }
    yield from kinds[row["vm_state"]](world, row)
    log = events.list_after(world.files["controller"], 0, project_id=None, instance_id=row["id"])
    if log[-1].vm_state != row["vm_state"]:
        yield "its last event tells of another state"


def _running(world: World, row: sqlite3.Row) -> Iterator[str]:
    """Exactly its domain, directory, tap and chains on its host, of this generation, at its leased addresses."""
    number, leased = row["number"], world.leased().get(row["id"], ())
    if not leased or json.loads(row["addresses"]) != [str(address) for address in leased]:
        yield f"the row says {row['addresses']}, leased are {leased}"
    for host in world.hosts.values():
        has = host.has(_ref(row))
        wanted = {"domain", "directory", "tap", "chains"} if host.name == row["host"] else set()
        if has != wanted:
            yield f"{host.name} has {sorted(has)}"
    host = world.hosts[row["host"]]
    if (row["id"] in host.paused) != (row["vm_state"] == "paused"):
        yield f"on its host {sorted(host.paused)} are paused"
    order = host.machines.get(row["id"])
    if order is not None and order.generation != row["generation"]:
        yield f"generation {row['generation']} runs as {order.generation}"
    yield from _half_made(host, number, leased)


def _half_made(host: Host, number: int, leased: tuple[IPv4Address, ...]) -> Iterator[str]:
    chains = host.chains.get(number)
    if sum(tap.number == number for tap in host.taps) != len(leased):
        yield f"it has {len(leased)} NICs, but of taps {host.taps}"
    if chains is not None and chains.addresses != leased:
        yield f"its filters are those of {chains.addresses}, not of {leased}"
    if half := [kind for kind, partial in host.partial if partial == number]:
        yield f"half made: {half}"


def unfiltered(world: World) -> Iterator[str]:
    """Who runs and is not filtered by what the rows say: its groups, their rules, and the members that these name."""
    for row in rows(world):
        chains = world.hosts[row["host"]].chains.get(row["number"]) if row["vm_state"] == "active" else None
        if chains is None or row["task_state"] is not None:
            continue
        host, own = world.hosts[row["host"]], set(chains.addresses)
        if {("chains", row["number"]), *(("group", each) for each in chains.groups)} & host.stale:
            continue
        wanted = Policy.model_validate_json(policies.get_of_instance(world.files["controller"], row["id"]))
        known = [host.policies[each] for each in chains.groups]
        groups = tuple(group for policy in known for group in policy.groups)
        if groups != wanted.groups:
            yield f"instance {row['number']} has the groups {groups}, wanted are {wanted.groups}"
        for policy in known:
            for group, members in policy.members.items():
                if set(members) - own != set(wanted.members.get(group, ())) - own:
                    yield f"instance {row['number']}: group {group} has {wanted.members}, its host knows {members}"


def _led(world: World) -> Iterator[str]:
    """Floating IPs lead where the rows say."""
    asked = "SELECT address, fixed FROM floating_ips WHERE fixed IS NOT NULL"
    wanted = {IPv4Address(row["address"]): IPv4Address(row["fixed"]) for row in world.files["network"].execute(asked)}
    led = next(iter(world.hosts.values())).led
    if led != wanted:
        yield f"floating IPs lead to {led}, the rows say {wanted}"


def _stopped(world: World, row: sqlite3.Row) -> Iterator[str]:
    """Its disk and its address are kept for it."""
    has = world.hosts[row["host"]].has(_ref(row))
    if "domain" in has or "directory" not in has or row["id"] not in world.leased():
        yield f"has {sorted(has)}"


def _suspended(world: World, row: sqlite3.Row) -> Iterator[str]:
    """And its memory."""
    yield from _stopped(world, row)
    if row["id"] not in world.hosts[row["host"]].saved:
        yield "its memory is gone"


def _ref(row: sqlite3.Row) -> InstanceRef:
    return InstanceRef(instance_id=row["id"], number=row["number"])


def _failed(world: World, row: sqlite3.Row) -> Iterator[str]:
    yield from _gone(world, row)
    fault = json.loads(row["fault"] or "{}")
    if fault.get("step") not in set(TaskState):
        yield f"its fault names no step: {fault}"
    if must_run(world.schedule):
        yield f"nothing was wrong with it, but {fault}"


def _gone(world: World, row: sqlite3.Row) -> Iterator[str]:
    if left := world.artefacts(_ref(row)):
        yield f"left {left}"


def _strays(world: World, found: list[sqlite3.Row]) -> Iterator[str]:
    """Nothing of an instance that no row knows; the DHCP server knows exactly what is leased."""
    ids, numbers = {row["id"] for row in found}, {row["number"] for row in found}
    for host in world.hosts.values():
        taps = {tap.number for tap in host.taps}
        if stray := ({*host.machines, *host.directories} - ids) or ({*taps, *host.chains} - numbers):
            yield f"{host.name} holds {stray}, which no row knows"
    leased, told = world.leased(), {(lease.instance_id, lease.address) for lease in world.dhcp}
    if told != {(instance_id, address) for instance_id, addresses in leased.items() for address in addresses}:
        yield f"the DHCP server knows {told}, leased is {leased}"
    if not set(leased) <= ids:
        yield f"addresses are leased to {set(leased) - ids}, which no row knows"


def _usage(world: World, found: list[sqlite3.Row]) -> Iterator[str]:
    usage = instances.get_usage(world.files["controller"], "demo")
    live = sum(row["vm_state"] != "deleted" for row in found)
    if usage.instances != live or usage.vcpus != live:
        yield f"the quota counts {usage}, {live} are live"


def live_on(world: World, host: str) -> set[str]:
    """The instances that count against this host, by the rows."""
    return {row["id"] for row in rows(world) if row["host"] == host and row["vm_state"] in AT_REST}


def running_on(world: World, host: str) -> int:
    """How many machines there should be on this host, by the rows."""
    return sum(row["host"] == host and row["vm_state"] in RUNNING for row in rows(world))


def must_run(schedule: Schedule) -> bool:
    """Whether nothing befell an instance that could excuse an `error`: kills and single failures do not.

    A report of a failure that arrives twice counts twice, so in bad weather two failures may use up three attempts.
    """
    lasting = [fault for fault in schedule.faults if fault.endswith((":broken", ":stranger"))]
    if set(lasting) - {"firewall.update:broken"}:
        return False
    return schedule.weather == "fair" or (schedule.weather in HARMLESS and len(schedule.faults) < 2)


def must_be_prompt(schedule: Schedule) -> bool:
    """Kills of the whole launcher, and nothing else that could take time."""
    return (
        schedule.weather == "fair"
        and schedule.roles == "one"
        and not (schedule.faults or schedule.deletes or schedule.acts)
    )
