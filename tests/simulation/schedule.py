"""A schedule: everything that decides how a simulation goes. The same schedule always goes the same way.

Its text is what a failing run prints and what `python -m tests.simulation.run` takes:

    --seed 7 --kills 31:after,12:before --faults virt.spawn:late --deletes 40 --weather lossy --roles split

A kill is `NUMBER:MODE`, the number counting side effects since the start or since the last kill; a fault is
`POINT:KIND`, of the first instance; a delete is a number of side effects since the start, `rest` when all is quiet, and
so are a change of the security groups, one of a floating IP and an act (stop, start …): the kinds of them follow
one another.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from random import Random

KILL_MODES = ("before", "after", "late", "reboot", "stop")
"""Killed before the effect; right after it; before it, but it is done all the same some seconds later (a program or a
daemon went on); before it, and the machine is rebooted with it; or asked to stop in good order."""

WEATHERS = ("fair", "lossy", "doubling", "delaying", "reordering", "deaf", "replaying", "failing", "full")
"""What becomes of messages, see `bus.py`, or (`full`) of commits. Bad weather lasts some minutes."""

FAULTS = ("timeout", "late", "partial", "flaky", "broken", "slow")
"""Done, but an error is the answer; an error is the answer, and seconds later it is done; half done and an error; an
error that may pass, and does at the second time; an error that stays (four times, for an undo); takes 100 s, twice."""

DO_POINTS = ("network.ensure_bridge", "network.set_leases", "network.plug", "images.create", "images.inject",
             "firewall.apply", "firewall.update", "virt.spawn")  # fmt: skip
UNDO_POINTS = ("virt.destroy", "firewall.remove", "images.delete", "network.unplug", "network.set_leases")
LIFE_POINTS = ("virt.shut_down", "virt.pause", "virt.unpause", "virt.suspend", "virt.resume", "virt.destroy")
ODD_FAULTS = ("virt.spawn:ends", "virt.spawn:stranger", "virt.list:ghost")
"""The guest powers itself off soon; the domain's name is somebody else's; what is gone is listed for a while."""
INSTANT = {"nat.apply", "network.ensure_bridge", "network.set_leases", "images.inject", "firewall.update"}
"""Done by the process itself: nobody else goes on with it when it is gone."""
REST = 0
"""The delete that comes when all is quiet."""


@dataclass(frozen=True)
class Schedule:
    """`roles`: `one` process with its bus in memory, or `split`, a process per role around a broker that lives on."""

    seed: int = 1
    launches: int = 2
    hosts: int = 1
    kills: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    deletes: tuple[int, ...] = ()
    changes: tuple[int, ...] = ()
    acts: tuple[int, ...] = ()
    weather: str = "fair"
    roles: str = "one"
    floats: tuple[int, ...] = ()

    def __str__(self) -> str:
        """The arguments that replay it; what is as usual is left out."""
        usual = Schedule()
        words = []
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "seed" or value != getattr(usual, each.name):
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                words.append(f"--{each.name} {text}")
        return " ".join(words)

    @staticmethod
    def parse(words: Sequence[str]) -> Schedule:
        """The schedule that prints these words."""
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return from_arguments(parser.parse_args(words))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--launches", type=int, default=2)
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--kills", type=_words, default=(), metavar="NUMBER:MODE,…", help=f"modes: {KILL_MODES}")
    parser.add_argument("--faults", type=_words, default=(), metavar="POINT:KIND,…", help=f"kinds: {FAULTS}")
    parser.add_argument("--deletes", type=_numbers, default=(), metavar="NUMBER,…")
    parser.add_argument("--changes", type=_numbers, default=(), metavar="NUMBER,…")
    parser.add_argument("--acts", type=_numbers, default=(), metavar="NUMBER,…")
    parser.add_argument("--floats", type=_numbers, default=(), metavar="NUMBER,…")
    parser.add_argument("--weather", choices=WEATHERS, default="fair")
    parser.add_argument("--roles", choices=("one", "split"), default="one")


def from_arguments(found: argparse.Namespace) -> Schedule:
    return Schedule(**{each.name: getattr(found, each.name) for each in fields(Schedule)})


def draw(seed: int) -> Schedule:
    """Anything at all: for long runs, where each seed is another mixture."""
    rng = Random(seed)
    kills = tuple(f"{rng.randint(1, 75)}:{rng.choice(KILL_MODES)}" for _ in range(rng.choice((0, 1, 1, 2, 3))))
    faults = [rng.choice(possible([*DO_POINTS, *UNDO_POINTS])) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
    faults += [rng.choice(ODD_FAULTS)] if rng.random() < 0.2 else []
    return Schedule(
        seed=seed,
        launches=rng.randint(1, 3),
        hosts=rng.choice((1, 1, 2)),
        kills=kills,
        faults=tuple(faults),
        deletes=tuple(rng.randint(0, 90) for _ in range(rng.choice((0, 1, 1, 2)))),
        weather=rng.choice(WEATHERS),
        roles=rng.choice(("one", "one", "split")),
        changes=tuple(rng.randint(0, 90) for _ in range(rng.choice((0, 1, 3)))),
        acts=tuple(rng.randint(0, 120) for _ in range(rng.choice((0, 0, 2, 4)))),
        floats=tuple(rng.randint(20, 110) for _ in range(rng.choice((0, 2, 5)))),
    )


def possible(points: Sequence[str]) -> list[str]:
    """Every kind of fault at each of the points."""
    return [f"{point}:{kind}" for point in points for kind in FAULTS if kind != "late" or point not in INSTANT]


def _words(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _numbers(text: str) -> Sequence[int]:
    return tuple(int(word) for word in _words(text))
