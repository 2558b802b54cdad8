"""Which way of injection a launch takes: the first of this host's that works here and can do what is asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from launcher.drivers.images.inject.injector import Injector, Payload
from launcher.drivers.images.inject.nbd import Nbd
from launcher.drivers.images.inject.remembering import Remembering
from launcher.drivers.images.inject.storage_daemon import StorageDaemon
from launcher.drivers.images.store import Injection
from launcher.errors import DriverError, HostResourceMissing, InjectionFailed
from launcher.models import LaunchOrder

log = logging.getLogger(__name__)


def make_ways(names: Sequence[Injection], *, state: Path, partition: int = 0) -> Ways:
    """The ways of `[images] inject`, not started; each injector works in a directory of its own in `state`."""
    makers: dict[Injection, Callable[[], Injector]] = {
        Injection.STORAGE_DAEMON: lambda: Remembering(StorageDaemon(state / "inject"), state / "injected"),
        Injection.NBD: lambda: Nbd(state),
    }
    return Ways(names, {name: makers[name]() for name in names if name in makers}, partition=partition)


class Ways:
    """`names` in the order of preference, with an injector for each that writes into the guest's own disk.

    `partition` is the one to write to where a disk has partitions; with 0 such a disk is never written to.
    """

    def __init__(
        self, names: Sequence[Injection], injectors: dict[Injection, Injector] | None = None, *, partition: int = 0
    ) -> None:
        self.names, self.injectors, self.partition = names, injectors or {}, partition
        self.missing: dict[Injection, str] = {}

    async def start(self) -> None:
        """Try each injector. Raises HostResourceMissing when none of the ways works here."""
        self.missing = {}
        for name, injector in self.injectors.items():
            try:
                await injector.start()
            except DriverError as error:
                log.warning("no injection by %s: %s", name, error.message)
                self.missing[name] = error.message
        if len(self.missing) == len(self.names):
            why = "; ".join(self.missing.values())
            raise HostResourceMissing(why, hint='set [images] inject = ["metadata", "config-drive"]')

    async def stop(self) -> None:
        for injector in self.injectors.values():
            await injector.stop()

    def choose(self, order: LaunchOrder, payload: Payload) -> tuple[Injection, ...]:
        """The ways to take, none where there is nothing to tell. Raises InjectionFailed that says why none can."""
        wanted = (Injection.CONFIG_DRIVE,) if order.config_drive else ()
        if payload == Payload():
            return wanted
        refused = dict(self._refusals(order, payload))
        able = [name for name in (*self.names, *wanted) if name not in refused]
        if not able:
            why = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
            hint = "ask for a config drive, or add a way to [images] inject"
            raise InjectionFailed(f"{order.name}: no way into the guest: {why}", hint=hint)
        if wanted and able[0] is Injection.METADATA:
            return wanted
        return tuple(dict.fromkeys((able[0], *wanted)))

    def partition_of(self, order: LaunchOrder) -> int:
        """A disk that boots with a kernel from outside has no partitions."""
        return 0 if order.kernel else self.partition

    def _refusals(self, order: LaunchOrder, payload: Payload) -> Iterator[tuple[Injection, str]]:
        for name in self.names:
            if name in self.missing:
                yield name, self.missing[name]
            elif name in self.injectors and not (order.kernel or self.partition):
                yield name, "a disk with partitions is not written to, see [images] inject_partition"
            elif name is Injection.METADATA and payload._replace(public_key=None) != Payload():
                yield name, "it brings a key only, no address, file or password"

    async def list_leftovers(self) -> Sequence[str]:
        return [name for injector in self.injectors.values() for name in await injector.list_leftovers()]

    async def remove_leftovers(self) -> None:
        for injector in self.injectors.values():
            await injector.remove_leftovers()
