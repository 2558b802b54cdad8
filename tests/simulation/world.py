"""The world that outlives every process: the hosts, the two database files, the broker, the weather, the time.

Effects of the drivers are methods of `Host`, each a single moment. What must hold at every moment is checked here, at
the effect that would break it; what must hold at the end is in `invariants.py`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from random import Random

from launcher.db import schemas
from launcher.db.database import _migrate
from launcher.drivers.network.driver import Tap
from launcher.drivers.virt.driver import PowerWatcher
from launcher.errors import DomainConflict, HostResourceMissing, NetworkFailed, NotFound, StaleGeneration
from launcher.models import InstanceId, InstanceRef, LaunchOrder, PowerState
from launcher.networks import FixedIp, Network, NetworkMode
from launcher.policy import Policy
from tests.simulation.loop import SeededLoop
from tests.simulation.schedule import Schedule

BAD_WEATHER = 150.0
"""Seconds until the sky clears, so that every schedule can end."""
GHOSTLY = 15.0
"""Seconds that a domain may be listed for after its end."""
NETWORK = Network(
    name="default",
    mode=NetworkMode.FLAT_DHCP,
    bridge="br100",
    cidr=IPv4Network("10.0.0.0/28"),
    gateway=IPv4Address("10.0.0.1"),
)


@dataclass
class Chains:
    order: LaunchOrder
    nics: tuple[FixedIp, ...]
    groups: tuple[int, ...]

    @property
    def addresses(self) -> tuple[IPv4Address, ...]:
        return tuple(nic.address for nic in self.nics)


@dataclass
class Host:
    """One compute host. As (kind, number): `partial` is half made, `latecomers` came when nobody waited any more.

    `policies` are the groups in use here, as all who are in one are filtered by it; `stale` are groups and chains that
    came late, so that they may be older than what was there.
    """

    world: World
    name: str
    watcher: PowerWatcher | None = None
    bridges: set[str] = field(default_factory=set)
    machines: dict[InstanceId, LaunchOrder] = field(default_factory=dict)
    directories: dict[InstanceId, int] = field(default_factory=dict)
    taps: dict[Tap, str] = field(default_factory=dict)
    chains: dict[int, Chains] = field(default_factory=dict)
    policies: dict[int, Policy] = field(default_factory=dict)
    stale: set[tuple[str, int]] = field(default_factory=set)
    partial: set[tuple[str, int]] = field(default_factory=set)
    latecomers: set[tuple[str, int]] = field(default_factory=set)
    strangers: set[str] = field(default_factory=set)
    paused: set[InstanceId] = field(default_factory=set)
    saved: dict[InstanceId, LaunchOrder] = field(default_factory=dict)
    powered_off: set[InstanceId] = field(default_factory=set)
    led: dict[IPv4Address, IPv4Address] = field(default_factory=dict)
    lost: set[tuple[InstanceId, int]] = field(default_factory=set)
    ghosts: list[tuple[float, LaunchOrder]] = field(default_factory=list)

    def spawn(self, order: LaunchOrder) -> None:
        """As `domains.ensure_started` does it: QEMU needs the tap and the disk; an older one of ours is replaced."""
        running = self.machines.get(order.instance_id)
        if order.name in self.strangers:
            raise DomainConflict(f"{order.name} is somebody else's")
        if running is not None and running.generation > order.generation:
            raise StaleGeneration(f"generation {running.generation} runs")
        late = ("domain", order.number) in self.latecomers
        self.latecomers.discard(("domain", order.number))
        if running is not None and running.generation == order.generation:
            return
        if running is not None and not late:
            self.world.violate(f"{order.name}: a machine that ran was replaced")
        taps = {Tap(order.number, nic) for nic in range(len(order.nics))}
        if not taps <= self.taps.keys() or order.instance_id not in self.directories:
            raise HostResourceMissing(f"{order.name}: there is no tap or no disk")
        self.machines[order.instance_id] = order
        self.powered_off.discard(order.instance_id)
        self._check_alone(order)
        self.tell(order.instance_id, PowerState.RUNNING, "booted")

    def come_late(self, kind: str, order: InstanceRef, apply: Callable[[], object]) -> None:
        """Done when nobody waits any more: until somebody does it again, nobody can answer for it."""
        there = self.has(order)
        apply()
        if kind in self.has(order) - there:
            self.latecomers.add((kind, order.number))
        if kind == "chains":
            self.stale |= {("chains", order.number), *(("group", each) for each in self.chains[order.number].groups)}

    def has(self, ref: InstanceRef) -> set[str]:
        """The kinds of artefacts of one instance that are here."""
        kinds = {
            "domain": ref.instance_id in self.machines,
            "directory": ref.instance_id in self.directories,
            "tap": any(tap.number == ref.number for tap in self.taps),
            "chains": ref.number in self.chains,
        }
        return {kind for kind, there in kinds.items() if there}

    def destroy(self, order: InstanceRef) -> None:
        self._end(order.instance_id)
        self._made("domain", order)

    def end(self, order: LaunchOrder) -> None:
        """The guest powers itself off."""
        if self._end(order.instance_id):
            self.powered_off.add(order.instance_id)
            self.tell(order.instance_id, PowerState.STOPPED, "shutdown")

    def shut_down(self, order: InstanceRef) -> None:
        """Every other guest powers itself off some seconds after it was asked, the others never do."""
        machine = self.machines.get(order.instance_id)
        if machine is not None and machine.number % 2:
            self.world.later(lambda: self._obey(machine), after=self.world.rng.uniform(0.0, 8.0))

    def _obey(self, machine: LaunchOrder) -> None:
        if self.machines.get(machine.instance_id) == machine:
            self.end(machine)

    def pause(self, order: LaunchOrder) -> None:
        self._must_run(order)
        self.paused.add(order.instance_id)

    def unpause(self, order: LaunchOrder) -> None:
        self._must_run(order)
        self.paused.discard(order.instance_id)

    def suspend(self, order: LaunchOrder) -> None:
        if order.instance_id not in self.saved or order.instance_id in self.machines:
            self._must_run(order)
            self.saved[order.instance_id] = order
            self._end(order.instance_id)

    def resume(self, order: LaunchOrder) -> None:
        """The tap and the disk are there, as for a start."""
        running = self.machines.get(order.instance_id)
        if running is None or running.generation != order.generation:
            if self.saved.pop(order.instance_id, None) is None:
                raise HostResourceMissing(f"{order.name}: there is no memory to go on from")
            self.spawn(order)

    def forget(self, order: InstanceRef) -> None:
        self.saved.pop(order.instance_id, None)

    def _must_run(self, order: LaunchOrder) -> None:
        running = self.machines.get(order.instance_id)
        if running is None or running.generation != order.generation:
            raise NotFound(f"{order.name}: there is no such machine")

    def listed(self) -> list[LaunchOrder]:
        """The domains that the hypervisor names, ghosts included."""
        haunted = "virt.list:ghost" in self.world.schedule.faults
        ghosts = [order for until, order in self.ghosts if haunted and self.world.loop.now < until]
        return list({order.instance_id: order for order in [*ghosts, *self.machines.values()]}.values())

    def _end(self, instance_id: InstanceId) -> bool:
        order = self.machines.pop(instance_id, None)
        self.paused.discard(instance_id)
        if order is not None:
            self.ghosts.append((self.world.loop.now + GHOSTLY, order))
        return order is not None

    def tell(self, instance_id: InstanceId, power: PowerState, cause: str) -> None:
        if self.watcher is not None:
            self.watcher(instance_id, power, cause)

    def plug(self, order: InstanceRef, network: Network, nic: int) -> None:
        if network.bridge not in self.bridges:
            raise NetworkFailed(f"{order.tap_of(nic)}: there is no bridge {network.bridge}")
        self.taps[Tap(order.number, nic)] = network.bridge
        self._made("tap", order)

    def plug_partly(self, order: InstanceRef, network: Network, nic: int) -> None:
        """The tap is there, but not on its bridge."""
        self.plug(order, network, nic)
        self.partial.add(("tap", order.number))

    def unplug(self, order: InstanceRef) -> None:
        self._check_stopped(order, "its tap was removed")
        self.taps = {tap: bridge for tap, bridge in self.taps.items() if tap.number != order.number}
        self._made("tap", order)

    def create_disks(self, order: LaunchOrder) -> None:
        self.directories[order.instance_id] = order.number
        self._made("directory", order)

    def create_partly(self, order: LaunchOrder) -> None:
        """The directory is there, but not all of its files."""
        self.create_disks(order)
        self.partial.add(("directory", order.number))

    def delete_disks(self, order: InstanceRef) -> None:
        self._check_stopped(order, "its disks were deleted")
        self.directories.pop(order.instance_id, None)
        self.saved.pop(order.instance_id, None)
        self._made("directory", order)

    def apply(self, order: LaunchOrder, nics: Sequence[FixedIp], policy: Policy) -> None:
        self.chains[order.number] = Chains(order, tuple(nics), tuple(group.id for group in policy.groups))
        self.stale.discard(("chains", order.number))
        self.update(policy)
        self._made("chains", order)

    def update(self, policy: Policy) -> None:
        """What it says of a group holds for all who are in it; groups that nobody is in are nobody's."""
        used = {group for chains in self.chains.values() for group in chains.groups}
        for group in policy.groups:
            members = {rule.group_id: policy.members[rule.group_id] for rule in group.rules if rule.group_id}
            self.policies[group.id] = Policy(groups=(group,), members=members)
            self.stale.discard(("group", group.id))
        self.policies = {each: known for each, known in self.policies.items() if each in used}

    def remove(self, order: InstanceRef) -> None:
        self._check_stopped(order, "its filters were removed")
        self.chains.pop(order.number, None)
        self._made("chains", order)

    def reboot(self) -> None:
        """What is in memory goes: machines, links, filters. Files stay."""
        self.lost |= {(order.instance_id, order.generation) for order in self.machines.values()}
        for instance_id in list(self.machines):
            self._end(instance_id)
        self.taps.clear()
        self.chains.clear()
        self.policies.clear()
        self.bridges.clear()
        self.led.clear()
        self.partial = {item for item in self.partial if item[0] == "directory"}

    def check_start(self, order: LaunchOrder) -> None:
        """What must be in place when a domain is started."""
        chains, leased = self.chains.get(order.number), self.world.leased().get(order.instance_id, ())
        if chains is None or len(leased) != len(order.nics) or chains.addresses != leased:
            self.world.violate(f"{order.name} started without the filters of its addresses {leased}")
        if {known.address for known in self.world.dhcp if known.instance_id == order.instance_id} != set(leased):
            self.world.violate(f"{order.name} started before the DHCP server knew its lease")
        if half := [kind for kind, number in self.partial if number == order.number]:
            self.world.violate(f"{order.name} started on something half made: {half}")

    def _check_alone(self, order: LaunchOrder) -> None:
        """No instance runs twice."""
        if [host for host in self.world.hosts.values() if order.instance_id in host.machines] != [self]:
            self.world.violate(f"{order.name} runs on two hosts")

    def _made(self, kind: str, order: InstanceRef) -> None:
        """Made or removed as asked, so neither half nor late any more."""
        self.partial.discard((kind, order.number))
        self.latecomers.discard((kind, order.number))

    def _check_stopped(self, order: InstanceRef, what: str) -> None:
        if order.instance_id in self.machines and ("domain", order.number) not in self.latecomers:
            self.world.violate(f"{order.name}: {what} while its domain ran")


class World:
    """Made from a schedule. `effects` counts side effects since the last kill, `total` since the beginning."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.rng = Random(schedule.seed)
        self.loop = SeededLoop(Random(schedule.seed + 1))
        self.hosts = {name: Host(self, name) for name in (f"node-{n + 1}" for n in range(schedule.hosts))}
        self.files = {name: _file(empty) for name, empty in EMPTY_FILES.items()}
        self.dhcp: tuple[FixedIp, ...] = ()
        self.violations: list[str] = []
        self.trace: list[str] = []
        self.effects = 0
        self.kills = list(schedule.kills)
        self.killed: list[str] = []
        self.strikes: Counter[str] = Counter()
        self.pending = 0
        self.deleted: set[InstanceId] = set()
        self.last_start = 0.0
        self.active: set[tuple[InstanceId, int]] = set()
        self.addresses: dict[tuple[InstanceId, int], set[IPv4Address]] = {}
        for host in self.hosts.values():
            if "virt.spawn:stranger" in schedule.faults:
                host.strangers.add("instance-00000001")
        self.on_effect: Callable[[int], None] = lambda _: None
        self.on_reboot: Callable[[str], None] = lambda _: None

    def weather(self) -> str:
        return self.schedule.weather if self.loop.now < BAD_WEATHER else "fair"

    def violate(self, what: str) -> None:
        """Something that must never be, is; said once."""
        line = f"{self.loop.now:.1f} s: {what}"
        if all(what not in known for known in self.violations):
            self.violations.append(line)

    def next_effect(self, point: str) -> str | None:
        """Count a side effect; the mode of the kill that hits it, if one does."""
        self.effects += 1
        self.trace.append(point)
        self.on_effect(len(self.trace))
        if not self.kills:
            return None
        number, _, mode = self.kills[0].partition(":")
        if self.effects != int(number):
            return None
        self.kills.pop(0)
        self.effects = 0
        self.killed.append(point)
        return mode

    def later(self, apply: Callable[[], object], *, after: float) -> None:
        """It happens after so many seconds, whoever lives then; a failure is nobody's to see."""
        self.pending += 1

        def happen() -> None:
            self.pending -= 1
            try:
                apply()
            except Exception as error:  # noqa: BLE001 - whoever asked is gone
                self.trace.append(f"late: {error}")

        self.loop.call_later(after, happen)

    def leased(self) -> dict[InstanceId, tuple[IPv4Address, ...]]:
        """In the order of the NICs."""
        found: dict[InstanceId, tuple[IPv4Address, ...]] = {}
        for row in self.files["network"].execute("SELECT * FROM fixed_ips ORDER BY instance_id, nic"):
            found[row["instance_id"]] = (*found.get(row["instance_id"], ()), IPv4Address(row["address"]))
        return found

    def committed(self, name: str) -> None:
        """What must hold after every commit of either file."""
        if name == "network":
            self._check_leases()
        else:
            self._check_ends()

    def _check_leases(self) -> None:
        leased = self.leased()
        for instance_id, addresses in leased.items():
            for nic, address in enumerate(addresses):
                known = self.addresses.setdefault((instance_id, nic), set())
                known.add(address)
                if len(known) > 1 and self.schedule.weather == "fair":
                    self.violate(f"NIC {nic} of instance {instance_id} had more than one address: {sorted(known)}")
        held = {address for addresses in leased.values() for address in addresses}
        for host in self.hosts.values():
            if free := set(host.led.values()) - held:
                self.violate(f"floating IPs lead to {sorted(free)}, which is nobody's")
            for order in host.machines.values():
                if order.instance_id not in leased:
                    self.violate(f"{order.name}: its address was released while its domain ran")

    def _check_ends(self) -> None:
        """What a row says at rest is written when it is true, not before."""
        for row in self.files["controller"].execute(
            "SELECT id, number, generation, vm_state, host FROM instances"
            " WHERE vm_state IN ('active', 'error', 'deleted') AND task_state IS NULL"
        ):
            if row["vm_state"] == "active":
                self._check_active(row)
                continue
            ref = InstanceRef(instance_id=row["id"], number=row["number"])
            if left := [what for what in self.artefacts(ref) if what not in self.excused(ref)]:
                self.violate(f"{ref.name} is {row['vm_state']}, but left {left}")

    def _check_active(self, row: sqlite3.Row) -> None:
        """Looked at once per generation: later the machine may have ended by itself."""
        seen = (row["id"], row["generation"])
        if seen in self.active or "virt.spawn:ends" in self.schedule.faults:
            return
        self.active.add(seen)
        host = self.hosts[row["host"]]
        order = host.machines.get(row["id"])
        if seen in host.lost:
            return  # it did run, and its host was rebooted before that was written
        if order is None or order.generation != row["generation"]:
            self.violate(f"instance {row['number']} is active, but its domain does not run")

    def artefacts(self, ref: InstanceRef) -> list[str]:
        """What any host and the network hold of one instance."""
        lease = ["lease"] if ref.instance_id in self.leased() else []
        return lease + [f"{kind} on {host.name}" for host in self.hosts.values() for kind in sorted(host.has(ref))]

    def excused(self, ref: InstanceRef) -> set[str]:
        """What may be there until the sweep finds it: it came late, or a doubled call asked for it again."""
        lease = {"lease"} if self.schedule.weather in ("doubling", "delaying", "reordering", "replaying") else set()
        return lease | {
            f"{kind} on {host.name}"
            for host in self.hosts.values()
            for kind, number in host.latecomers
            if number == ref.number
        }


def _file(empty: bytes) -> sqlite3.Connection:
    """A database file that no kill can reach: every commit is on it at once."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.deserialize(empty)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _migrated(migrations: tuple[str, ...]) -> bytes:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _migrate(connection, Path("simulated"), migrations)
        return connection.serialize()


EMPTY_FILES = {"controller": _migrated(schemas.CONTROLLER), "network": _migrated(schemas.NETWORK)}
