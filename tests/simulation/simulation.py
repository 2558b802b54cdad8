"""One run of a schedule: the real roles on a simulated world, clients that ask for instances and for their end."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from launcher.accounts import AdminAccess, UserRole
from launcher.config import FLAVORS, TimeoutsConfig
from launcher.drivers.images.fake import FAKE_IMAGES
from launcher.drivers.images.fake_vault import FakeDownloads, FakeVault
from launcher.drivers.scheduler.chance import ChanceScheduler
from launcher.drivers.volumes.fake import FakeVolumes
from launcher.errors import BusError, Conflict, InsufficientSpace, LauncherError, NotFound
from launcher.messages.instances import CreateInstances, DeleteInstance, NicRequest
from launcher.messaging import Call, Context
from launcher.models import Image, Quotas
from launcher.services.compute.compute import Compute
from launcher.services.controller.access import AccessRules
from launcher.services.controller.controller import Controller
from launcher.services.controller.images import ImageSupply
from launcher.services.controller.passwords import Passwords
from launcher.services.controller.reconcile import LaunchRules
from launcher.services.network import NetworkController
from launcher.services.role import Role
from launcher.services.scheduler import Scheduler
from tests.simulation import invariants
from tests.simulation.bus import Broker, SimBus
from tests.simulation.database import InlineDatabase
from tests.simulation.drivers import SimFirewall, SimImages, SimNat, SimNetwork, SimVirt
from tests.simulation.life import Client, Life
from tests.simulation.loop import LoopClock
from tests.simulation.requests import OUTWARD, acts, changes, floats
from tests.simulation.schedule import Schedule
from tests.simulation.world import BAD_WEATHER, NETWORK, Host, World

Requests = Callable[[str, str], Sequence[Call[Any]]]
CTX = Context(request_id="req-simulated", project_id="demo", user_id="demo", role=UserRole.ADMIN, trace_id="0" * 32)
ADMIN = AdminAccess(token="t", password="p", access_key="LA", secret_key="s")
LIMIT = 3600.0
"""Virtual seconds that a schedule may take, bad weather included."""
LONGEST_SILENCE = 70.0
"""Virtual seconds: longer than any call waits for its answer."""
PROMPT = 13.0
"""Virtual seconds within which kills alone are made up for: hardly more than one step is waited for."""
SWEEP_EVERY = 20.0
QUIET = 2 * SWEEP_EVERY + 5.0
"""Virtual seconds without anything to do before a schedule is over: the sweep has looked twice."""


class PlainPasswords(Passwords):
    """Without threads, which know no virtual time."""

    async def hash(self, password: str) -> str:
        return password


@dataclass(frozen=True)
class Outcome:
    """`effects` are all side effects in their order, `struck` the points at which a kill or a fault hit."""

    schedule: Schedule
    violations: tuple[str, ...]
    states: tuple[str, ...]
    effects: tuple[str, ...]
    killed: tuple[str, ...]
    struck: tuple[str, ...]
    seconds: float

    @property
    def fingerprint(self) -> str:
        """Two runs with the same one did the same things in the same order."""
        return hashlib.sha256("\n".join(self.effects).encode()).hexdigest()[:16]


class Simulation:
    """Starts the processes, starts them again when they die, and waits until all is quiet."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.world = schedule, World(schedule)
        self.rng = Random(schedule.seed + 2)
        self.broker = Broker()
        self.lives: dict[str, Life] = {}
        self.dead: list[Life] = []
        self.computes: dict[str, Compute] = {}
        self.busy_until = 0.0
        self.client = Client(self.world, "client", on_death=lambda *_: None)
        self.asked: dict[int, str] = {}
        self.time_to_delete = {number: asyncio.Event() for number in schedule.deletes}
        self.time_to_change = {number: asyncio.Event() for number in schedule.changes}
        self.time_to_act = {number: asyncio.Event() for number in schedule.acts}
        self.time_to_float = {number: asyncio.Event() for number in schedule.floats}
        self.world.on_effect, self.world.on_reboot = self._count, self._reboot

    def run(self) -> Outcome:
        world = self.world
        with _errors_are_violations(world):
            world.loop.run_until_complete(self._whole())
            violations, seconds = tuple(world.violations), world.loop.now
        world.violations, world.on_effect = [], lambda _: None
        world.loop.bury()
        return Outcome(
            schedule=self.schedule,
            violations=violations,
            states=tuple(invariants.states(world)),
            effects=tuple(world.trace),
            killed=tuple(world.killed),
            struck=tuple(world.strikes),
            seconds=seconds,
        )

    async def _whole(self) -> None:
        for name in self._processes():
            self._start(name)
        clients = [asyncio.ensure_future(self._launch(number)) for number in range(self.schedule.launches)]
        clients += [
            asyncio.ensure_future(self._delete(index % self.schedule.launches, self.time_to_delete[number]))
            for index, number in enumerate(self.schedule.deletes)
        ]
        clients += [
            asyncio.ensure_future(self._change(partial(changes, index), self.time_to_change[number]))
            for index, number in enumerate(self.schedule.changes)
        ]
        clients += [
            asyncio.ensure_future(self._change(partial(acts, index), self.time_to_act[number]))
            for index, number in enumerate(self.schedule.acts)
        ]
        clients += [
            asyncio.ensure_future(self._change(partial(floats, index), self.time_to_float[number]))
            for index, number in enumerate(self.schedule.floats)
        ]
        await self._quiet(clients)
        for problem in self._problems():
            self.world.violate(problem)

    def _own_problems(self) -> Iterator[str]:
        """What the processes remember must agree with the rows, too, and nobody may have dawdled."""
        for name, compute in self.computes.items():
            live = invariants.live_on(self.world, name)
            if set(compute.holdings.held) != live:
                yield f"{name} counts {len(compute.holdings.held)} instances, {len(live)} are its"
            if compute.holdings.running != (running := invariants.running_on(self.world, name)):
                yield f"{name} counts {compute.holdings.running} machines, {running} are its"
            if compute.holdings.turns._turns:
                yield f"{name} still has {len(compute.holdings.turns._turns)} instances' turns"
        took = self.busy_until - self.world.last_start
        if took > PROMPT and invariants.must_be_prompt(self.schedule):
            yield f"it took {took:.0f} s after the last start"

    async def _quiet(self, clients: Sequence[asyncio.Future[None]]) -> None:
        """Return when nothing happens any more, or when it took too long. Deletes that still wait come at rest."""
        world, since = self.world, None
        while world.loop.now < LIMIT:
            await asyncio.sleep(2.0)
            restless = invariants.restless(world)
            self.busy_until = world.loop.now if restless or self._unfiltered() else self.busy_until
            if restless or not self._at_rest():
                since = None
            elif not all(client.done() for client in clients):
                since = None
                for waiting in (self.time_to_delete, self.time_to_change, self.time_to_float, self.time_to_act):
                    for event in waiting.values():
                        event.set()
            elif since is None:
                since = world.loop.now
            elif self._over(world.loop.now - max(since, world.last_start)):
                return

    def _over(self, quiet: float) -> bool:
        """After so many seconds of it: at once when all is well, else when nobody can be expected to mend it."""
        if quiet < QUIET:
            return False
        alone = self.schedule.roles == "one" and self.schedule.weather == "fair" and not self.schedule.faults
        patience = QUIET if alone else LONGEST_SILENCE
        lasting = quiet >= patience and (
            self.schedule.weather == "fair" or self.world.loop.now > BAD_WEATHER + patience
        )
        return lasting or not self._problems()

    def _unfiltered(self) -> bool:
        return invariants.must_be_prompt(self.schedule) and any(invariants.unfiltered(self.world))

    def _problems(self) -> list[str]:
        return [*invariants.problems(self.world, self.asked), *self._own_problems()]

    def _at_rest(self) -> bool:
        """Nothing is on its way to the world, and nobody waits for an answer."""
        if self.world.pending or len(self.asked) < self.schedule.launches:
            return False
        return all(life.up and not life.calls for life in self.lives.values())

    # --- the processes -------------------------------------------------------------------------------

    def _processes(self) -> list[str]:
        if self.schedule.roles == "one":
            return ["launcher"]
        return ["controller", "scheduler", "network", *self.world.hosts]

    def _start(self, name: str) -> None:
        self.lives[name] = life = Life(self.world, name, on_death=self._died)
        self.world.loop.create_task(self._live(life))

    async def _live(self, life: Life) -> None:
        """What `app.serve` does, and a supervisor that starts it again."""
        try:
            async with AsyncExitStack() as stack:
                for role in self._roles(life):
                    await stack.enter_async_context(role.serving())
                self.world.last_start = self.world.loop.now
                life.up = True
                await life.stopping.wait()
                life.up = False
        except LauncherError as error:
            logging.getLogger(__name__).info("%s did not start: %s", life.name, error)
        await life.look()
        life.die("ended")

    def _hosts_of(self, name: str) -> list[Host]:
        hosts = self.world.hosts
        return list(hosts.values()) if self.schedule.roles == "one" else [hosts[name]] if name in hosts else []

    def _died(self, life: Life, _: str) -> None:
        self.dead.append(life)
        for host in self._hosts_of(life.name):
            host.watcher = None
        if self.schedule.roles == "one":
            self.broker = Broker()
        self.world.loop.call_later(self.world.rng.uniform(0.1, 5.0), self._start, life.name)

    def _reboot(self, name: str) -> None:
        """The machine of this process; where every role has its own, that of the first compute host."""
        name = name if self.schedule.roles == "one" else next(iter(self.world.hosts))
        for host in self._hosts_of(name):
            host.reboot()
        self.lives[name].die("rebooted")

    def _roles(self, life: Life) -> Iterator[Role]:
        """In the order of their start, as `app.py` has it."""
        one, hosts = life.name == "launcher", self.world.hosts
        shared: Any = {
            "bus": SimBus(life, self.broker, self.rng),
            "clock": LoopClock(self.world.loop),
            "rng": self.rng,
        }
        first = next(iter(hosts))
        if one or life.name == "controller":
            yield _controller({"host": first, **shared}, life)
        if one or life.name == "scheduler":
            yield Scheduler(host=first, **shared, driver=ChanceScheduler(rng=self.rng), host_timeout=60.0)
        if one or life.name == "network":
            yield NetworkController(
                host=first,
                **shared,
                db=InlineDatabase(life, "network"),
                network=NETWORK,
                driver=SimNetwork(life, hosts[first]),
                firewall=SimFirewall(life, hosts[first]),
                nat=SimNat(life, hosts[first]),
                outward=OUTWARD,
            )
        for name, host in hosts.items():
            if one or life.name == name:
                self.computes[name] = Compute(
                    host=name,
                    **shared,
                    availability_zone="nova",
                    heartbeat=10.0,
                    virt=SimVirt(life, host),
                    firewall=SimFirewall(life, host),
                    network=SimNetwork(life, host),
                    images=SimImages(life, host),
                    volumes=FakeVolumes(),
                )
                yield self.computes[name]

    # --- the clients ---------------------------------------------------------------------------------

    def _bus(self) -> SimBus:
        return SimBus(self.client, self.broker, self.rng)

    def _nics(self, number: int) -> tuple[NicRequest, ...]:
        """Some launches want two NICs; a seed has them always or never at the same place."""
        return (NicRequest(network="default"),) * 2 if (self.schedule.seed + number) % 3 == 2 else ()

    async def _launch(self, number: int) -> None:
        """Ask until there is an answer, with a key, as a careful client does."""
        name = f"vm-{number}"
        request = CreateInstances(
            image="ami-tiny", flavor="m1.tiny", name=name, networks=self._nics(number), idempotency_key=name
        )
        while number not in self.asked:
            try:
                (made,) = await self._bus().call(CTX, request, timeout=10.0)
                self.asked[number] = made.id
            except (BusError, InsufficientSpace):
                await asyncio.sleep(1.0)
            except LauncherError as error:
                self.world.violate(f"a launch was answered with {error!r}")
                return
        return

    async def _delete(self, number: int, event: asyncio.Event) -> None:
        """Ask until there is an answer; before the launch was answered, by name."""
        await event.wait()
        while True:
            wanted = self.asked.get(number, f"vm-{number}")
            try:
                deleted = await self._bus().call(CTX, DeleteInstance(instance_id=wanted), timeout=10.0)
            except (BusError, NotFound, InsufficientSpace):
                await asyncio.sleep(1.0)
            except LauncherError as error:
                return self.world.violate(f"a delete was answered with {error!r}")
            else:
                self.world.deleted.add(deleted.id)
                return None

    async def _change(self, requests: Requests, event: asyncio.Event) -> None:
        """Ask until there is an answer; that it is done already, or has nobody to be done to, is one."""
        await event.wait()
        first, second = (self.asked.get(number, f"vm-{number}") for number in range(2))
        for request in requests(first, second):
            while True:
                try:
                    await self._bus().call(CTX, request, timeout=10.0)
                except (BusError, InsufficientSpace):
                    await asyncio.sleep(1.0)
                except (Conflict, NotFound):
                    break
                except LauncherError as error:
                    if "nat.apply" in " ".join(self.world.strikes):
                        break
                    return self.world.violate(f"a change was answered with {error!r}")
                else:
                    break
        return None

    def _count(self, total: int) -> None:
        for waiting in (self.time_to_delete, self.time_to_change, self.time_to_float, self.time_to_act):
            if event := waiting.get(total):
                event.set()


def run(schedule: Schedule) -> Outcome:
    return Simulation(schedule).run()


def _controller(shared: Any, life: Life) -> Controller:
    async def read_image(name: str) -> list[Image]:
        return []

    return Controller(
        **shared,
        db=InlineDatabase(life, "controller"),
        quotas=Quotas(),
        flavors={flavor.name: flavor for flavor in FLAVORS},
        images=ImageSupply(
            read_image=read_image,
            library=FAKE_IMAGES,
            known={},
            vault=FakeVault(),
            downloads=FakeDownloads(),
            most=2**30,
        ),
        admin=ADMIN,
        access=AccessRules(passwords=PlainPasswords()),
        launches=LaunchRules(
            build_timeout=600.0,
            state_timeouts=TimeoutsConfig().of_states(),
            max_attempts=3,
            restart_missing=True,
        ),
        tick=2.0,
        sweep_every=SWEEP_EVERY,
    )


class _Errors(logging.Handler):
    """What the product logs as an error is a bug of the product."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self.world = world

    def emit(self, record: logging.LogRecord) -> None:
        if "translation" in record.getMessage():
            return  # tried again until it is done, and said each time
        cause = record.exc_info[1] if record.exc_info else None
        self.world.violate(f"logged: {record.getMessage()} {cause!r}")


@contextmanager
def _errors_are_violations(world: World) -> Iterator[None]:
    log, errors = logging.getLogger("launcher"), _Errors(world)
    level, propagate = log.level, log.propagate
    log.addHandler(errors)
    log.setLevel(logging.ERROR)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(errors)
        log.setLevel(level)
        log.propagate = propagate
