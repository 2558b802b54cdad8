"""Replay one schedule, as a failing run printed it, or run many mixtures of everything (`make soak`)."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.simulation import schedule
from tests.simulation.batch import Tally, report, run_all, workers
from tests.simulation.simulation import run

STEP = 1000
"""Schedules after which a soak says how far it is: one that is ended has proven those."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run", description=__doc__)
    schedule.add_arguments(parser)
    parser.add_argument("--show", action="store_true", help="print every side effect")
    parser.add_argument("--soak", type=int, metavar="N", help="run N mixtures, beginning with that of --seed")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes of a soak")
    found = parser.parse_args()
    return (
        soak(found.seed, found.soak, processes=found.workers)
        if found.soak
        else replay(schedule.from_arguments(found), show=found.show)
    )


def replay(wanted: schedule.Schedule, *, show: bool) -> int:
    outcome = run(wanted)
    if show:
        print(*outcome.effects, sep="\n")
    print(f"{outcome.schedule}: {', '.join(outcome.states)} after {outcome.seconds:.0f} s")
    print(f"{len(outcome.effects)} side effects, killed at {outcome.killed}, struck by {outcome.struck}")
    print(*outcome.violations, sep="\n")
    return 1 if outcome.violations else 0


def soak(first: int, count: int, *, processes: int) -> int:
    """Prints what fails as it comes, and now and then how far it is; the last line is for programs to read.

    Soaks of neighbouring seeds add up: the next one's first seed is this one's and its count.
    """
    tally, began = Tally(), time.monotonic()
    with workers(processes) as pool:
        for outcome in run_all([schedule.draw(seed) for seed in range(first, first + count)], pool):
            tally.add(outcome)
            if outcome.violations:
                print(report(outcome), flush=True)
            if tally.schedules % STEP == 0 and tally.schedules < count:
                print(so_far(tally, first, time.monotonic() - began), flush=True)
    print("soak " + so_far(tally, first, time.monotonic() - began))
    return 1 if tally.red else 0


def so_far(tally: Tally, first: int, seconds: float) -> str:
    return (
        f"schedules={tally.schedules} violations={len(tally.red)} courses={len(tally.fingerprints)}"
        f" kills={tally.kills} faults={len(tally.struck)} first_seed={first} seconds={seconds:.0f}"
    )


if __name__ == "__main__":
    sys.exit(main())
