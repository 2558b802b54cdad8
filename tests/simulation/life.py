"""A process's life: from its start until it is killed. Everything it does to the world goes through `effect`.

A killed process is frozen at its next step towards the world: it waits for something that never comes, so no `finally`
of its own and no error handling decides what is left, as with `kill -9`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from launcher.errors import HostResourceMissing, HypervisorUnavailable, LauncherError
from launcher.models import InstanceRef
from tests.simulation.schedule import INSTANT, ODD_FAULTS, UNDO_POINTS
from tests.simulation.world import Host, World

T = TypeVar("T")
FIRST = 1
"""The number of the instance that faults are meant for; the others must not notice."""


class Life:
    """`on_death` is told once, with the mode of the kill; one that is asked to stop ends by itself.

    `calls` of its own have no answer yet.
    """

    def __init__(self, world: World, name: str, *, on_death: Callable[[Life, str], None]) -> None:
        self.world, self.name, self.on_death = world, name, on_death
        self.dead, self.up, self.stopping = False, False, asyncio.Event()
        self.consumers: list[asyncio.Task[Any]] = []
        self.frozen: list[asyncio.Future[Any]] = []
        self.calls = 0

    def die(self, mode: str) -> None:
        if self.dead:
            return
        if mode == "stop":
            self.stopping.set()
            return
        if mode == "reboot":
            self.world.on_reboot(self.name)
            return
        self.dead, self.up = True, False
        for consumer in self.consumers:
            consumer.cancel()
        self.on_death(self, mode)

    async def look(self) -> None:
        """A moment passes. The dead wait for ever."""
        await asyncio.sleep(0)
        if self.dead:
            never = self.world.loop.create_future()
            self.frozen.append(never)  # or the garbage collector would run the `finally` of whoever waits for it
            await never

    async def begin(self, point: str) -> bool:
        """Before a side effect: whether this life ends right after it."""
        await self.look()
        mode = self.world.next_effect(point)
        if mode in ("before", "reboot", "stop"):
            self.die(mode)
            await self.look()
        return mode in ("after", "late")

    async def effect(self, point: str, apply: Callable[[], T]) -> T:
        """A side effect that takes no time: a commit."""
        last = await self.begin(point)
        result = apply()
        if last:
            self.die("after")
        await self.look()
        return result

    async def touch(
        self,
        host: Host,
        point: str,
        apply: Callable[[], T],
        *,
        order: InstanceRef | None = None,
        makes: str = "",
        partly: Callable[[], object] | None = None,
    ) -> T:
        """A side effect on a host: it takes a while, it may fail, and it may be done after its caller is gone.

        `makes` is the kind of artefact that is there afterwards.
        """
        late = functools.partial(host.come_late, makes, order, apply) if makes and order else apply
        await self.look()
        fault = self._fault(point, order)
        await self._take_time(100.0 if fault == "slow" else self.world.rng.choice((0.0, 0.0, 0.02, 0.5)))
        await self.look()
        mode = self.world.next_effect(point)
        if mode == "late" and point not in INSTANT:
            self.world.later(late, after=self._lateness())
        if mode in ("before", "late", "reboot", "stop"):
            self.die(mode)
            await self.look()
        result = self._struck(fault, point, apply, late, partly or apply)
        if mode == "after":
            self.die(mode)
        await self.look()
        return result

    async def _take_time(self, seconds: float) -> None:
        self.world.pending += 1
        await asyncio.sleep(seconds)
        self.world.pending -= 1

    def _lateness(self) -> float:
        """Seconds; short ones are tried often, because they fall into the clean-up."""
        return self.world.rng.uniform(0.0, self.world.rng.choice((0.5, 3.0, 40.0)))

    def _fault(self, point: str, order: InstanceRef | None) -> str | None:
        """What befalls this call, if it is meant for it and has not run out."""
        if order is not None and order.number != FIRST:
            return None
        for fault in self.world.schedule.faults:
            where, _, kind = fault.partition(":")
            if where == point and fault not in ODD_FAULTS and self.world.strikes[fault] < _lasting(kind, point):
                self.world.strikes[fault] += 1
                return kind
        return None

    def _struck(
        self,
        fault: str | None,
        point: str,
        apply: Callable[[], T],
        late: Callable[[], object],
        partly: Callable[[], object],
    ) -> T:
        if fault in ("timeout", "partial"):
            (apply if fault == "timeout" else partly)()
        elif fault == "late":
            self.world.later(late, after=self._lateness())
        elif fault in (None, "slow"):
            return apply()
        raise _error(fault, point)


class Client(Life):
    """Somebody outside: never killed, and what it sends is no side effect of the launcher."""

    async def begin(self, point: str) -> bool:
        await self.look()
        return False


def _lasting(kind: str, point: str) -> int:
    """How often a fault strikes: what is asked for again for ever must pass some time."""
    if kind == "broken":
        return 4 if point in (*UNDO_POINTS, "firewall.update") else 1000
    return 2 if kind == "slow" else 1


def _error(fault: str | None, point: str) -> LauncherError:
    if fault == "broken":
        return LauncherError(f"{point} is broken")
    if point.startswith("virt."):
        return HypervisorUnavailable(f"{point}: outcome unknown ({fault})")
    return HostResourceMissing(f"{point}: try again ({fault})")
