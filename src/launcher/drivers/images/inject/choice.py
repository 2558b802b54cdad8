"""Which way of injection this host has: tried, not guessed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from launcher.drivers.images.inject.injector import Injector
from launcher.drivers.images.inject.metadata import MetadataOnly
from launcher.drivers.images.inject.storage_daemon import StorageDaemon
from launcher.drivers.images.store import Injection
from launcher.errors import DriverError
from launcher.models import ImageFormat

Choice = Literal["auto", "storage-daemon", "metadata"]

log = logging.getLogger(__name__)


def choose_injector(choice: Choice, *, state: Path) -> Injector:
    """The injector for this host, not started; the storage daemon works in a directory of its own in `state`."""
    match choice:
        case "metadata":
            return MetadataOnly()
        case "storage-daemon":
            return StorageDaemon(state / "inject")
        case "auto":
            return BestInjector(StorageDaemon(state / "inject"))


class BestInjector:
    """`first` if it starts, else the metadata service; `reason` says why not."""

    def __init__(self, first: Injector) -> None:
        self.reason = ""
        self._first = first
        self._chosen = first

    @property
    def name(self) -> Injection:
        return self._chosen.name

    async def start(self) -> None:
        self.reason, self._chosen = "", self._first
        try:
            await self._first.start()
        except DriverError as error:
            self.reason, self._chosen = error.message, MetadataOnly()
            log.warning("keys are left to the metadata service: %s", error.message)

    async def stop(self) -> None:
        await self._chosen.stop()

    async def inject(
        self, disk: Path, format: ImageFormat, public_key: str | None, interfaces: str | None = None
    ) -> None:
        await self._chosen.inject(disk, format, public_key, interfaces)

    async def list_leftovers(self) -> Sequence[str]:
        return await self._first.list_leftovers()

    async def remove_leftovers(self) -> None:
        await self._first.remove_leftovers()
