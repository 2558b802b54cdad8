"""Replay one schedule, as a failing run printed it, or run many mixtures of everything (`make soak`)."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.simulation import schedule
from tests.simulation.batch import Tally, report, run_all, workers
from tests.simulation.simulation import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run", description=__doc__)
    schedule.add_arguments(parser)
    parser.add_argument("--show", action="store_true", help="print every side effect")
    parser.add_argument("--soak", type=int, metavar="N", help="run N mixtures, beginning with that of --seed")
    found = parser.parse_args()
    return soak(found.seed, found.soak) if found.soak else replay(schedule.from_arguments(found), show=found.show)


def replay(wanted: schedule.Schedule, *, show: bool) -> int:
    outcome = run(wanted)
    if show:
        print(*outcome.effects, sep="\n")
    print(f"{outcome.schedule}: {', '.join(outcome.states)} after {outcome.seconds:.0f} s")
    print(f"{len(outcome.effects)} side effects, killed at {outcome.killed}, struck by {outcome.struck}")
    print(*outcome.violations, sep="\n")
    return 1 if outcome.violations else 0


def soak(first: int, count: int) -> int:
    """Prints what fails as it comes; the last line is for programs to read."""
    tally, began = Tally(), time.monotonic()
    with workers(os.cpu_count() or 1) as pool:
        for outcome in run_all([schedule.draw(seed) for seed in range(first, first + count)], pool):
            tally.add(outcome)
            if outcome.violations:
                print(report(outcome), flush=True)
    print(
        f"soak schedules={tally.schedules} violations={len(tally.red)} courses={len(tally.fingerprints)}"
        f" kills={tally.kills} faults={len(tally.struck)} first_seed={first} seconds={time.monotonic() - began:.0f}"
    )
    return 1 if tally.red else 0


if __name__ == "__main__":
    sys.exit(main())
