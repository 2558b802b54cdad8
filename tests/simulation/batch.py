"""The schedules that CI runs, by family, and how to run many of them on several processors."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tests.simulation.schedule import (
    DO_POINTS,
    KILL_MODES,
    LIFE_POINTS,
    ODD_FAULTS,
    REST,
    UNDO_POINTS,
    WEATHERS,
    Schedule,
    draw,
    possible,
)
from tests.simulation.simulation import Outcome, run

POINTS = range(1, 76)
"""A launch of two instances and its aftermath have some 60 side effects, more when something has to be undone."""
SCENES = (
    Schedule(),
    Schedule(deletes=(35,)),
    Schedule(deletes=(REST, 50)),
    Schedule(faults=("virt.spawn:broken",)),
    Schedule(faults=("firewall.apply:broken", "images.delete:flaky")),
)
"""What goes on while something else happens: launches, a delete in the middle and one at rest, launches that fail."""
KILLED = (("30:before",), ("45:reboot",), ("55:after",), ("65:stop",))
UNDOING = (Schedule(deletes=(REST,)), Schedule(deletes=(40,)), Schedule(faults=("virt.spawn:broken",)))
"""What must undo a launch."""
BAD_WEATHERS = WEATHERS[1:]


def kills() -> Iterator[Schedule]:
    """One kill before and one after every side effect of every scene, and at every second one of the other modes."""
    others = itertools.cycle(mode for mode in KILL_MODES if mode not in ("before", "after"))
    for scene, number in itertools.product(SCENES, POINTS):
        for mode in ("before", "after", next(others))[: 3 - number % 2]:
            yield replace(scene, kills=(f"{number}:{mode}",))


def two_kills() -> Iterator[Schedule]:
    """The second hits the recovery from the first."""
    modes = itertools.cycle(itertools.product(KILL_MODES, KILL_MODES))
    for number, second in itertools.product(POINTS, (1, 3, 8, 20, 50)):
        first_mode, second_mode = next(modes)
        scene = SCENES[(number + second) % len(SCENES)]
        yield replace(scene, kills=(f"{number}:{first_mode}", f"{second}:{second_mode}"))


def faults() -> Iterator[Schedule]:
    """Every way to fail at every point, alone, with a delete and with a kill."""
    for fault in possible(DO_POINTS):
        scene = Schedule(faults=(fault,))
        yield from [replace(scene, seed=seed) for seed in range(2)]
        yield from [replace(scene, deletes=(number,)) for number in (25, 42, 60, REST)]
        yield from [replace(scene, kills=kills) for kills in KILLED]
    for fault, scene in itertools.product(possible(UNDO_POINTS), UNDOING):
        yield from [replace(scene, faults=(*scene.faults, fault), seed=seed) for seed in range(2)]
        yield from [replace(scene, faults=(*scene.faults, fault), kills=kills) for kills in KILLED]
    for fault, number in itertools.product(ODD_FAULTS, range(16)):
        yield Schedule(seed=number, faults=(fault,), kills=KILLED[number % 4], deletes=((), (REST,))[number // 4 % 2])
    for number in range(30, 60, 2):
        yield Schedule(faults=("virt.list:ghost",), kills=(f"{number}:reboot",), deletes=(REST,))


def late_starts() -> Iterator[Schedule]:
    """A domain that starts when nobody waits for it any more, while its end is under way; and whatever else comes after
    the end of who did it.
    """
    for seed, number in itertools.product(range(12), range(25, 50, 5)):
        yield Schedule(seed=seed, launches=1, faults=("virt.spawn:late",), deletes=(number,))
        yield Schedule(seed=seed, launches=1, kills=(f"{number}:late",), deletes=(number + 3,))
    for number in range(20, 60):
        yield Schedule(faults=("virt.spawn:broken",), kills=(f"{number}:late",))


def deletes() -> Iterator[Schedule]:
    """A delete at every side effect; alone, of both, and with a kill right behind it."""
    for number in POINTS:
        yield Schedule(deletes=(number,))
        yield Schedule(deletes=(number, number + 7), hosts=2)
        yield Schedule(deletes=(number,), kills=(f"{number + 1}:after",))
        yield Schedule(deletes=(number,), kills=(f"{number + 4}:before",))


def weathers() -> Iterator[Schedule]:
    """Messages lost, doubled, late, out of order, unanswered, sent again, refused."""
    for weather, roles, seed in itertools.product(BAD_WEATHERS, ("one", "split"), range(12)):
        scene = replace(SCENES[seed % len(SCENES)], weather=weather, roles=roles, hosts=1 + seed % 2)
        yield replace(scene, kills=(f"{seed * 3 + 1}:after",) if seed % 3 == 0 else ())
    for weather, number in itertools.product(BAD_WEATHERS, range(44, 84, 3)):
        yield Schedule(weather=weather, roles="split", kills=(f"{number}:reboot",))


def changes() -> Iterator[Schedule]:
    """Groups, their rules and an instance's groups are changed at every moment of its life, in every weather."""
    for number in POINTS:
        scene = Schedule(changes=(number, number + 3, number + 6, number + 9))
        yield replace(scene, launches=3, hosts=1 + number % 2)
        yield replace(scene, kills=(f"{number + 4}:{KILL_MODES[number % len(KILL_MODES)]}",), deletes=(number + 5,))
    for weather, roles, seed in itertools.product(BAD_WEATHERS, ("one", "split"), range(8)):
        numbers = tuple(range(20 + seed * 5, 80 + seed * 5, 9))
        yield Schedule(seed=seed, weather=weather, roles=roles, hosts=1 + seed % 2, changes=numbers)
    for fault, number in itertools.product(possible(("firewall.update", "firewall.apply")), (40, 60, REST)):
        yield Schedule(faults=(fault,), changes=(number, number + 4, number + 8))


def lives() -> Iterator[Schedule]:
    """What is done between the launch and the end, with a kill, a delete, a fault or bad weather in it."""
    acts = tuple(range(62, 62 + 11 * 14, 14))
    for number, mode in itertools.product(range(60, 200, 5), KILL_MODES):
        yield Schedule(launches=1 + number % 2, acts=acts, kills=(f"{number}:{mode}",))
    for number in range(60, 200, 4):
        yield Schedule(acts=acts, deletes=(number,))
        yield Schedule(acts=(number, number + 4, number + 8), kills=(f"{number + 6}:after",), deletes=(number + 11,))
    for fault, first in itertools.product(possible(LIFE_POINTS), range(2)):
        yield Schedule(acts=acts[first:], faults=(fault,), launches=1)
    for weather, roles, seed in itertools.product(BAD_WEATHERS, ("one", "split"), range(4)):
        yield Schedule(seed=seed, weather=weather, roles=roles, acts=acts)


def floats() -> Iterator[Schedule]:
    """A floating IP is moved from one instance to the other and back, while these come, go, and are killed."""
    for number, mode in itertools.product(POINTS[::3], KILL_MODES):
        numbers = (45, 45 + number // 3, 60, 60 + number // 3, 95)
        yield Schedule(floats=numbers, kills=(f"{number + 20}:{mode}",), deletes=(number + 25, REST))
    for number in POINTS[::2]:
        moves = (number, number + 5, number + 9, number + 15)
        yield Schedule(floats=moves, deletes=(number + 7,), hosts=1 + number % 2)
    for weather, roles, seed in itertools.product(BAD_WEATHERS, ("one", "split"), range(4)):
        yield Schedule(seed=seed, weather=weather, roles=roles, floats=(50, 58 + seed, 66, 80), deletes=(62, REST))
    passing = [fault for fault in possible(("nat.apply",)) if not fault.endswith(":broken")]
    for fault, number in itertools.product(passing, (50, 60, REST)):
        yield Schedule(faults=(fault,), floats=(number, number + 6, number + 9), deletes=(number + 8,))


def restarts() -> Iterator[Schedule]:
    """Machines are rebooted, with their host or without it, and what was said of the ones before is said again."""
    scene = Schedule(weather="replaying", roles="split")
    for seed, number in itertools.product(range(2), range(48, 66)):
        yield replace(scene, seed=seed, kills=(f"{number}:reboot",))
    for seed, number in itertools.product(range(4), range(66, 84, 2)):
        yield replace(scene, seed=seed, launches=1, kills=(f"{number}:reboot",), faults=("images.create:slow",))
    for seed, acts in itertools.product(range(2, 14), ((62, 70, 78), (62, 90, 120), (62, 62, 62))):
        yield replace(scene, seed=seed, launches=1, acts=acts)


def other_hosts() -> Iterator[Schedule]:
    """A step fails on one of two hosts; while the launch moves to the other, something else happens, too."""
    faults = [fault for fault in possible(DO_POINTS) if not fault.endswith((":slow", ":broken"))]
    modes, weathers = itertools.cycle(KILL_MODES), itertools.cycle(BAD_WEATHERS)
    for fault, seed in itertools.product(faults, range(3)):
        yield Schedule(seed=seed, hosts=2, faults=(fault,))
        yield Schedule(seed=seed, hosts=2, roles="split", faults=(fault,), weather=next(weathers))
    for fault, number in itertools.product(
        ("virt.spawn:timeout", "virt.spawn:late", "images.create:flaky"), POINTS[::2]
    ):
        scene = Schedule(hosts=2, launches=1 + number % 2, faults=(fault,))
        yield replace(scene, deletes=(number,))
        yield replace(scene, kills=(f"{number}:{next(modes)}",))
        yield replace(scene, roles="split", kills=(f"{number}:{next(modes)}",))
    for fault, seed in itertools.product(possible(UNDO_POINTS), range(2)):
        yield Schedule(seed=seed, hosts=2, faults=("virt.spawn:timeout", fault), kills=KILLED[seed])
    for fault in faults:
        yield Schedule(hosts=2, faults=("virt.spawn:flaky", fault), deletes=(REST,))


def split_kills() -> Iterator[Schedule]:
    """Every role is a process of its own, and only the one at work is killed."""
    for number, mode in itertools.product(POINTS, KILL_MODES):
        yield replace(SCENES[number % len(SCENES)], roles="split", kills=(f"{number}:{mode}",))


def mixtures() -> Iterator[Schedule]:
    """Anything with anything."""
    return (draw(seed) for seed in range(200))


FAMILIES: dict[str, Callable[[], Iterable[Schedule]]] = {
    family.__name__: family
    for family in (
        kills,
        two_kills,
        faults,
        late_starts,
        deletes,
        changes,
        floats,
        weathers,
        lives,
        restarts,
        other_hosts,
        split_kills,
        mixtures,
    )
}


def schedules(family: str) -> list[Schedule]:
    """Those of a family, each with a seed of its own where the family gave none."""
    found = [
        replace(schedule, seed=1000 + number) if schedule.seed == Schedule.seed else schedule
        for number, schedule in enumerate(FAMILIES[family]())
    ]
    return list(dict.fromkeys(found))


@dataclass
class Tally:
    """What many outcomes come to."""

    schedules: int = 0
    kills: int = 0
    side_effects: int = 0
    fingerprints: set[str] = field(default_factory=set)
    struck: set[str] = field(default_factory=set)
    red: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.schedules += 1
        self.kills += len(outcome.killed)
        self.side_effects += len(outcome.effects)
        self.fingerprints.add(outcome.fingerprint)
        self.struck |= set(outcome.struck)
        self.red += [outcome] if outcome.violations else []


@contextmanager
def workers(processes: int) -> Iterator[Executor]:
    """Processes of their own: a simulation is bound to one processor."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=collect_seldom) as pool:
        yield pool


def collect_seldom() -> None:
    """What was imported is never garbage, and what a schedule leaves is little; to look for it took a tenth."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def run_all(schedules: Sequence[Schedule], pool: Executor) -> Iterator[Outcome]:
    """Their outcomes in their order."""
    return pool.map(run, schedules, chunksize=8)


def report(outcome: Outcome) -> str:
    """How to see it again, and what was wrong."""
    return "\n    ".join([f"python -m tests.simulation.run {outcome.schedule}", *outcome.violations])
