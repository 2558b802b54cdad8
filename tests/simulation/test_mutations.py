"""Each rule that protects a launch, taken out: the simulation must notice. What it does not, it does not check."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from launcher.db import leases, moves, versions
from launcher.messages.network import ReleaseFixedIp
from launcher.messages.reports import ReportGone
from launcher.messaging import Context
from launcher.models import Fault, HostState, Instance, LaunchOrder
from launcher.networks import FixedIp
from launcher.services.compute.launch import Launches
from launcher.services.compute.life import Life
from launcher.services.compute.work import Launch
from launcher.services.controller.controller import Controller
from launcher.services.controller.reconcile import Reconcile
from launcher.services.controller.refresh import Refresh
from launcher.services.controller.sweep import Sweep
from launcher.services.filters import Filters
from launcher.services.floating_ips import FloatingIps
from launcher.services.turns import Turns
from tests.simulation.batch import schedules
from tests.simulation.invariants import must_be_prompt
from tests.simulation.schedule import Schedule
from tests.simulation.simulation import run

Patch = pytest.MonkeyPatch
PATIENCE = 300
"""Schedules after which a rule's absence must have been noticed."""


def no_reconcile_at_start(patch: Patch) -> None:
    async def nothing(self: Reconcile, host: str = "") -> None:
        return None

    patch.setattr(Reconcile, "recover", nothing)
    patch.setattr(Reconcile, "host_started", nothing)


def no_periodic_tick(patch: Patch) -> None:
    recurring = Controller.recurring
    patch.setattr(Controller, "recurring", property(lambda self: list(recurring.fget(self))[1:]))  # type: ignore[attr-defined]


def leases_go_while_floating_ips_lead_to_them(patch: Patch) -> None:
    @contextlib.asynccontextmanager
    async def let_go(self: FloatingIps, instance_id: str) -> AsyncIterator[None]:
        yield

    patch.setattr(FloatingIps, "letting_go", let_go)


def no_turns(patch: Patch) -> None:
    @contextlib.asynccontextmanager
    async def take(self: Turns, order: LaunchOrder, errand: str = "") -> AsyncIterator[bool]:
        self.fence(order)
        try:
            yield True
        finally:
            self._turns.pop(order.instance_id, None)

    patch.setattr(Turns, "take", take)


def no_generation_check(patch: Patch) -> None:
    move = moves.move

    def any_generation(db: sqlite3.Connection, instance_id: str, generation: int, *rest: Any) -> Instance:
        row = db.execute("SELECT generation FROM instances WHERE id = ?", (instance_id,)).fetchone()
        return move(db, instance_id, row["generation"], *rest)

    patch.setattr(moves, "move", any_generation)


def error_before_cleaning(patch: Patch) -> None:
    fail = Reconcile.fail

    async def fail_at_once(self: Reconcile, ctx: Context, instance: Instance, fault: Fault) -> Instance:
        failed = await fail(self, ctx, instance, fault)
        if failed.host is not None:
            await self.gone(ctx, failed.id, failed.generation)
        return failed

    patch.setattr(Reconcile, "fail", fail_at_once)


def address_first(patch: Patch) -> None:
    destroy = Launches.destroy_domain

    async def release_and_destroy(self: Launches, work: Launch) -> None:
        await self.bus.call(work.ctx, ReleaseFixedIp(instance_id=work.order.instance_id))
        await destroy(self, work)

    patch.setattr(Launches, "destroy_domain", release_and_destroy)


def undo_in_spite_of_a_domain(patch: Patch) -> None:
    build = Launches.__init__

    def without_needs(self: Launches, **parts: Any) -> None:
        build(self, **parts)
        self.saga.steps = [replace(step, needs_earlier=False) for step in self.saga.steps]

    patch.setattr(Launches, "__init__", without_needs)


def filters_after_the_machine(patch: Patch) -> None:
    build = Launches.__init__

    def swapped(self: Launches, **parts: Any) -> None:
        build(self, **parts)
        *steps, filtering, spawning = self.saga.steps
        self.saga.steps = [*steps, spawning, filtering]

    patch.setattr(Launches, "__init__", swapped)


def a_new_lease_every_time(patch: Patch) -> None:
    find = leases.find

    def forgetful(db: sqlite3.Connection, instance_id: str, mac: str) -> FixedIp | None:
        if known := find(db, instance_id, mac):
            moved = (leases._lowest_free(db, known.network), instance_id)
            db.execute("UPDATE fixed_ips SET address = ? WHERE instance_id = ?", moved)
        return find(db, instance_id, mac)

    patch.setattr(leases, "find", forgetful)


def no_second_look(patch: Patch) -> None:
    async def release_only(self: Launches, work: Launch) -> None:
        await self.bus.call(work.ctx, ReleaseFixedIp(instance_id=work.order.instance_id))

    patch.setattr(Launches, "release_address", release_only)


def no_sweep(patch: Patch) -> None:
    async def nothing(self: Sweep) -> tuple[()]:
        return ()

    patch.setattr(Sweep, "sweep", nothing)


def nothing_put_back(patch: Patch) -> None:
    async def nothing(self: Sweep, *_: Any) -> None:
        return None

    patch.setattr(Sweep, "_put_back", nothing)


def no_look_at_what_a_host_knows(patch: Patch) -> None:
    async def nothing(self: Refresh, host: HostState) -> None:
        return None

    patch.setattr(Refresh, "hear_host", nothing)


def a_set_of_groups_without_a_version(patch: Patch) -> None:
    patch.setattr(versions, "regroup", lambda db, number: None)


def members_without_a_version(patch: Patch) -> None:
    patch.setattr(versions, "touch_naming", lambda db, number, group_ids: None)


def one_filter_does_not_wait_for_another(patch: Patch) -> None:
    build = Filters.__init__

    def unlocked(self: Filters, **parts: Any) -> None:
        build(self, **parts)
        self.lock = contextlib.nullcontext()  # type: ignore[assignment]

    patch.setattr(Filters, "__init__", unlocked)


def another_host_at_once(patch: Patch) -> None:
    unwind = Launches.unwind

    async def leave_it(self: Launches, work: Launch) -> None:
        if not work.keep_address:
            return await unwind(self, work)
        self.holdings.held.pop(work.order.instance_id, None)
        gone = ReportGone(instance_id=work.order.instance_id, generation=work.order.generation)
        return await self.bus.call(work.ctx, gone)

    patch.setattr(Launches, "unwind", leave_it)


def an_address_forgotten_between_two_hosts(patch: Patch) -> None:
    async def gone(self: Reconcile, ctx: Context, instance: Instance, order: LaunchOrder) -> None:
        await self.gone(ctx, instance.id, instance.generation)

    patch.setattr(Reconcile, "_end_hostless", gone)


def only_the_first_nic(patch: Patch) -> None:
    allocate = Launches.allocate_address

    async def first(self: Launches, work: Launch) -> None:
        await allocate(self, work)
        work.nics = work.nics[:1]

    patch.setattr(Launches, "allocate_address", first)


def a_stop_that_only_asks(patch: Patch) -> None:
    patch.setattr(Life, "_shut_down", Life._ask_to_shut_down)


def a_new_machine_is_held_before_the_old_one_is_gone(patch: Patch) -> None:
    """The old one's end is then reported as the new one's, and counts when that word is late."""
    shut_down = Life._shut_down

    async def hold_first(self: Life, work: Launch, deadline_ms: float) -> None:
        self.holdings.hold(work.order, running=True)
        await shut_down(self, work, deadline_ms)

    patch.setattr(Life, "_shut_down", hold_first)


@dataclass(frozen=True)
class Mutation:
    """A rule, how to take it out, and which schedules should notice."""

    remove: Callable[[Patch], None]
    family: str
    only: Callable[[Schedule], bool] = lambda _: True


MUTATIONS = [
    Mutation(no_reconcile_at_start, "kills", must_be_prompt),
    Mutation(no_periodic_tick, "weathers"),
    Mutation(no_turns, "deletes"),
    Mutation(leases_go_while_floating_ips_lead_to_them, "floats"),
    Mutation(no_generation_check, "restarts"),
    Mutation(error_before_cleaning, "kills", lambda schedule: bool(schedule.faults)),
    Mutation(address_first, "deletes"),
    Mutation(undo_in_spite_of_a_domain, "faults", lambda schedule: "virt.destroy" in str(schedule)),
    Mutation(filters_after_the_machine, "deletes"),
    Mutation(a_new_lease_every_time, "kills"),
    Mutation(only_the_first_nic, "kills"),
    Mutation(no_second_look, "late_starts"),
    Mutation(no_sweep, "late_starts", lambda schedule: "virt.spawn:broken" in schedule.faults),
    Mutation(
        no_look_at_what_a_host_knows,
        "changes",
        lambda schedule: schedule.weather == "failing" or "firewall.update" in str(schedule),
    ),
    Mutation(a_set_of_groups_without_a_version, "changes"),
    Mutation(members_without_a_version, "changes"),
    Mutation(one_filter_does_not_wait_for_another, "changes"),
    Mutation(another_host_at_once, "other_hosts"),
    Mutation(an_address_forgotten_between_two_hosts, "other_hosts", lambda schedule: bool(schedule.deletes)),
    Mutation(a_stop_that_only_asks, "lives"),
    Mutation(a_new_machine_is_held_before_the_old_one_is_gone, "restarts", lambda schedule: bool(schedule.acts)),
    Mutation(nothing_put_back, "faults", lambda schedule: "ghost" in str(schedule)),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.remove.__name__)
def test_without_it_the_simulation_is_red(mutation: Mutation, monkeypatch: Patch) -> None:
    mutation.remove(monkeypatch)
    tried = 0
    for schedule in _shuffled(mutation):
        tried += 1
        if run(schedule).violations:
            return
    pytest.fail(f"{mutation.remove.__name__} was not noticed in {tried} schedules of {mutation.family}")


def _shuffled(mutation: Mutation) -> Iterator[Schedule]:
    found = [schedule for schedule in schedules(mutation.family) if mutation.only(schedule)]
    Random(1).shuffle(found)
    return iter(found[:PATIENCE])
