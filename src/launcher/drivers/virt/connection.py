"""A connection to libvirt that mends itself, and the threads its blocking calls run in.

        open() ──► settling ──► up ──► lost (closed, keep-alive missed) ──► reopening, with growing pauses ─┐
                      ▲                                                                                    │
                      └────────────────────────────────────────────────────────────────────────────────────┘

Calls wait for "up", at most `patience` seconds. Settling: for about two seconds after its start libvirt lists
half-started domains that it is about to bury, and may not list what it is about to find again, so a list counts when
it held still for `settle` seconds.

Events use libvirt's own loop in a daemon thread: libvirtaio calls asyncio from foreign threads and its events
come late, and without any loop a frozen daemon would block a thread for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import libvirt

from launcher.drivers.virt import embed, faults
from launcher.errors import DriverError, HostResourceMissing, HypervisorUnavailable, LauncherError

T = TypeVar("T")
Work = Callable[[libvirt.virConnect], T]
OnEvent = Callable[[str, int, int], None]
OnUnplugged = Callable[[str, str], None]

KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 5, 3
"""Seconds and misses: a frozen daemon is noticed after 20 s."""
CALL_LIMIT = 120.0
"""Seconds one call may run; starting a domain on a crowded host takes up to ten."""
OPEN_LIMIT = 60.0
"""Seconds for an open or a close; a frozen daemon answers neither."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
SETTLE_LOOKS = 6
LONGEST_SETTLING = 15.0

log = logging.getLogger(__name__)


class Lane:
    """A few threads for one kind of call, so that clean-up cannot queue behind hung starts."""

    def __init__(self, name: str, threads: int, *, limit: float = CALL_LIMIT) -> None:
        self.name, self.threads, self.limit = name, threads, limit
        self.pool = self._threads()
        self.free = asyncio.Semaphore(threads)

    async def run(self, work: Callable[[], T]) -> T:
        """Raises HypervisorUnavailable when the work, once begun, takes too long.

        Its thread cannot be stopped and may never come back, so the works after it get new ones.
        """
        async with self.free:
            try:
                async with asyncio.timeout(self.limit):
                    return await asyncio.get_running_loop().run_in_executor(self.pool, work)
            except TimeoutError:
                self.pool.shutdown(wait=False)
                self.pool = self._threads()
                raise HypervisorUnavailable(f"libvirt ({self.name}): no answer in {self.limit:g} s") from None

    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.threads, thread_name_prefix=f"libvirt-{self.name}")


@dataclass
class _Link:
    """One opened handle, the numbers of its event subscriptions, and the news of its end."""

    handle: libvirt.virConnect
    events: tuple[int, ...]
    lost: asyncio.Event


class Connection(Generic[T]):
    """One URI. `census` lists what must hold still before a new connection is trusted; `on_up` is told the result."""

    def __init__(
        self,
        uri: str,
        *,
        census: Work[T],
        on_up: Callable[[T], None],
        on_event: OnEvent,
        patience: float,
        settle: float,
        on_unplugged: OnUnplugged = lambda uuid, alias: None,
    ) -> None:
        self.uri, self.embedded, self.patience, self.settle = uri, embed.embed_root(uri), patience, settle
        self.census, self.on_up, self.on_event, self.on_unplugged = census, on_up, on_event, on_unplugged
        self.opening, self.looking = Lane("open", 1, limit=OPEN_LIMIT), Lane("look", 2)
        self.up, self.settled = asyncio.Event(), False
        self.link: _Link | None = None
        self.keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """The first connection; raises HypervisorUnavailable or HostResourceMissing instead of waiting for one."""
        if self.embedded:
            await asyncio.to_thread(embed.prepare, self.embedded)
        _run_event_loop()
        self.link = await self._connect()
        self.keeper = asyncio.create_task(self._keep(self.link))

    async def close(self) -> None:
        if self.keeper is not None:
            self.keeper.cancel()
            await asyncio.gather(self.keeper, return_exceptions=True)
        self.up.clear()
        if self.link is not None:
            with contextlib.suppress(HypervisorUnavailable):  # the process ends all the same
                await self.opening.run(functools.partial(self._release, self.link))
        for lane in (self.opening, self.looking):
            lane.pool.shutdown(wait=False, cancel_futures=True)

    async def call(self, lane: Lane, work: Work[Any], what: str, otherwise: type[DriverError] = DriverError) -> Any:
        """Run `work` when the connection is up. Raises what `faults` makes of libvirt's error: "`what`: its words"."""
        try:
            async with asyncio.timeout(self.patience):
                await self.up.wait()
        except TimeoutError:
            raise HypervisorUnavailable(
                f"{what}: no connection to {self.uri} for {self.patience:g} s", hint="is libvirtd running?"
            ) from None
        assert self.link is not None
        return await self._run(self.link, lane, work, what, otherwise)

    async def _run(self, link: _Link, lane: Lane, work: Work[Any], what: str, otherwise: type[DriverError]) -> Any:
        try:
            return await lane.run(functools.partial(work, link.handle))
        except libvirt.libvirtError as error:
            fault = faults.translate(error, what, otherwise)
            if isinstance(fault, HypervisorUnavailable):
                link.lost.set()
            raise fault from error

    async def _keep(self, link: _Link) -> None:
        """Notice a lost connection and open it again, for as long as the driver lives."""
        while True:
            with contextlib.suppress(LauncherError):
                await self._settle(link)
                self.up.set()
                await link.lost.wait()
                log.warning("lost the connection to %s", self.uri)
            self.up.clear()
            link = self.link = await self._reopen(link)

    async def _settle(self, link: _Link) -> None:
        """Wait until the list has held still for `settle` seconds. An empty one counts at once before anybody was
        told of any domain; later it may be the list of a daemon that has yet to find its guests.
        """
        clock = asyncio.get_running_loop().time
        seen, still_since = await self._census(link), clock()
        deadline = still_since + LONGEST_SETTLING
        while (seen or self.settled) and clock() < min(still_since + self.settle, deadline):
            await asyncio.sleep(self.settle / SETTLE_LOOKS)
            now = await self._census(link)
            if now != seen:
                seen, still_since = now, clock()
        self.settled = True
        asyncio.get_running_loop().call_soon(self.on_up, seen)  # before the calls that wait for "up"

    async def _census(self, link: _Link) -> T:
        found: T = await self._run(link, self.looking, self.census, "listing the domains", DriverError)
        return found

    async def _reopen(self, old: _Link) -> _Link:
        with contextlib.suppress(LauncherError):  # a handle that cannot even be closed is left behind
            await self.opening.run(functools.partial(self._release, old))
        pause = FIRST_PAUSE
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            try:
                link = await self._connect()
            except LauncherError as error:
                log.info("%s; next attempt in %g s", error, pause)
            else:
                log.info("connected to %s again", self.uri)
                return link

    async def _connect(self) -> _Link:
        """Open, and ask for events and for news of the connection's end."""
        loop = asyncio.get_running_loop()
        lost, given_up = asyncio.Event(), threading.Event()

        def on_lifecycle(_: Any, domain: libvirt.virDomain, event: int, detail: int, __: Any) -> None:
            _hop(loop, functools.partial(self.on_event, domain.UUIDString(), event, detail))

        def on_unplugged(_: Any, domain: libvirt.virDomain, alias: str, __: Any) -> None:
            _hop(loop, functools.partial(self.on_unplugged, domain.UUIDString(), alias))

        subscriptions = (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, on_unplugged),
        )

        def furnished() -> _Link:
            handle = _embedded(self.uri) if self.embedded else libvirt.open(self.uri)
            if given_up.is_set():
                return _Link(handle, (), lost)  # let go of: nobody may be told twice
            if not self.embedded:
                handle.setKeepAlive(KEEPALIVE_INTERVAL, KEEPALIVE_COUNT)
                handle.registerCloseCallback(lambda *_: _hop(loop, lost.set), None)
            events = tuple(handle.domainEventRegisterAny(None, kind, told, None) for kind, told in subscriptions)
            return _Link(handle, events, lost)

        try:
            return await self.opening.run(furnished)
        except HypervisorUnavailable:
            given_up.set()
            raise
        except libvirt.libvirtError as error:
            fault = faults.translate(error, f"cannot connect to {self.uri}", HostResourceMissing)
            fault.hint = "is libvirt's QEMU driver installed? run `launcher doctor`"
            raise fault from error

    def _release(self, link: _Link) -> None:
        """Let go of a handle, dead or alive; a subscription left behind would keep it open and calling back."""
        handle = link.handle
        steps: list[Callable[[], object]] = [
            functools.partial(handle.domainEventDeregisterAny, number) for number in link.events
        ]
        if not self.embedded:
            steps += [handle.unregisterCloseCallback, handle.close]
        for step in steps:
            with contextlib.suppress(libvirt.libvirtError):
                step()


def _hop(loop: asyncio.AbstractEventLoop, step: Callable[[], None]) -> None:
    """From libvirt's thread to the loop; after the loop's end there is nobody to tell."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(step)


@functools.cache
def _embedded(uri: str) -> libvirt.virConnect:
    """The driver inside this process, opened once and for good: every open registers it anew, and the 20th fails."""
    return libvirt.open(uri)


@functools.cache
def _run_event_loop() -> threading.Thread:
    """Once per process, before the first open: libvirt takes one loop for all connections, for good."""
    libvirt.registerErrorHandler(_say_nothing, None)
    libvirt.virEventRegisterDefaultImpl()
    thread = threading.Thread(target=_turn_for_ever, name="libvirt-events", daemon=True)
    thread.start()
    return thread


def _turn_for_ever() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            log.exception("libvirt's event loop stumbled")
            time.sleep(0.1)  # a thread of its own: without the pause a lasting error would take a core


def _say_nothing(*_: Any) -> None:
    """Errors are raised; without this libvirt prints each of them to stderr as well."""
