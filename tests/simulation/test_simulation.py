"""Thousands of schedules, in each of which all must end well: see `schedule.py` for what can happen in one,
`world.py` for what must hold at every moment, `invariants.py` for what must hold at the end.
"""

from __future__ import annotations

from concurrent.futures import Executor

import pytest

from tests.simulation.batch import FAMILIES, Tally, report, run_all, schedules
from tests.simulation.schedule import DO_POINTS, KILL_MODES, UNDO_POINTS, Schedule, draw, possible
from tests.simulation.simulation import run

SHOWN = 10
LEAST = 5000


@pytest.mark.parametrize("family", FAMILIES)
def test_every_schedule_ends_well(family: str, pool: Executor, tally: Tally) -> None:
    red = []
    for outcome in run_all(schedules(family), pool):
        tally.add(outcome)
        red += [outcome] if outcome.violations else []
    assert not red, f"{len(red)} schedules of {family}:\n" + "\n".join(map(report, red[:SHOWN]))


def test_there_are_enough_of_them_and_no_two_are_alike() -> None:
    found = [str(schedule) for family in FAMILIES for schedule in schedules(family)]
    assert len(set(found)) >= LEAST
    assert len(found) - len(set(found)) <= len(found) // 100


def test_every_fault_and_every_kind_of_kill_is_among_them() -> None:
    text = "\n".join(str(schedule) for family in FAMILIES for schedule in schedules(family))
    assert [fault for fault in possible([*DO_POINTS, *UNDO_POINTS]) if fault not in text] == []
    assert [mode for mode in KILL_MODES if f":{mode}" not in text] == []


def test_the_same_schedule_goes_the_same_way_in_every_process(pool: Executor) -> None:
    """Neither hash seeds nor addresses in memory may decide anything."""
    drawn = [draw(seed) for seed in range(16)]
    here = [run(schedule) for schedule in drawn]
    assert [outcome.fingerprint for outcome in run_all(drawn, pool)] == [outcome.fingerprint for outcome in here]


def test_a_schedule_is_replayed_from_its_words() -> None:
    for seed in range(50):
        drawn = draw(seed)
        assert Schedule.parse(str(drawn).split()) == drawn


def test_nothing_in_the_way_means_active_within_seconds() -> None:
    outcome = run(Schedule(launches=3))
    assert outcome.states == ("active",) * 3
    assert outcome.violations == ()
