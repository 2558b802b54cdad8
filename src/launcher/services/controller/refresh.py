"""Tells hosts that what they filter by has changed: at once, and again when a heartbeat shows that one did not ask."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Mapping

from launcher.bus import Bus
from launcher.db import policies, versions
from launcher.db.database import Database
from launcher.errors import BusError
from launcher.messages.compute import RefreshGroups
from launcher.messaging import Context
from launcher.models import HostState

PAUSE = 0.05
"""Seconds between two rounds: changes that come thick and fast are one message to each host that they concern."""


class Refresh:
    """A round goes to the hosts that something concerns which came after the round before it."""

    def __init__(self, *, db: Database, bus: Bus, context: Callable[[], Context]) -> None:
        self.db, self.bus, self.context = db, bus, context
        self.told, self.changed = 0, asyncio.Event()

    def recover(self) -> None:
        """An earlier process may have died before it told anybody."""
        self.changed.set()

    def hear_of(self, version: int) -> None:
        """This is the version after a transaction; a round begins when it is news."""
        if version > self.told:
            self.changed.set()

    async def next_round(self) -> None:
        """Waits for news."""
        await self.changed.wait()
        self.changed.clear()
        version, hosts = await self.db.read(self._read)
        await self._tell(hosts)
        self.told = version

    async def hear_host(self, host: HostState) -> None:
        """A host that is behind was not reached, or could not do it; one that is ahead knows a lost database."""
        known = host.policy_version
        if known > await self.db.read(versions.get):
            await self.db.write(lambda db: versions.overtake(db, known))
            self.changed.set()
        hosts = await self.db.read(lambda db: policies.list_hosts(db, known, host=host.name))
        await self._tell(hosts)

    def _read(self, db: sqlite3.Connection) -> tuple[int, Mapping[str, int]]:
        return versions.get(db), policies.list_hosts(db, self.told)

    async def _tell(self, hosts: Mapping[str, int]) -> None:
        for host, version in hosts.items():
            with contextlib.suppress(BusError):
                await self.bus.cast(self.context(), RefreshGroups(version=version), host=host)
