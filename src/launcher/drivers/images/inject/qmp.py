"""QEMU's control protocol over a program's standard input and output: one JSON object per line.

Source: QEMU's docs/interop/qmp-spec. A private pipe needs no socket file, and nobody else can speak on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from launcher.errors import InjectionFailed

Said = dict[str, Any]


class ConnectionLost(Exception):
    """The other end is gone; what it was doing is unknown. Never leaves this package."""


class Qmp:
    """A conversation with one program. Commands may overlap; each has a limit of `timeout` seconds."""

    def __init__(self, process: asyncio.subprocess.Process, *, timeout: float) -> None:
        if process.stdin is None or process.stdout is None:
            raise TypeError("the program must be started with both its pipes")
        self.timeout = timeout
        self._stdin, self._stdout = process.stdin, process.stdout
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[Said | None]] = {}  # by number or event; None: lost
        self._reader: asyncio.Task[None] | None = None

    @property
    def lost(self) -> bool:
        return self._reader is None or self._reader.done()

    async def open(self) -> None:
        """Take the greeting and leave the negotiation mode. Raises ConnectionLost, TimeoutError."""
        async with asyncio.timeout(self.timeout):
            if not await self._stdout.readline():
                raise ConnectionLost
        self._reader = asyncio.create_task(self._read())
        await self.execute("qmp_capabilities")

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])

    async def execute(self, command: str, *, until: str = "", **arguments: Any) -> Any:
        """The command's answer; argument names are written with `_` for `-`.

        With `until`, wait also for that event of the thing with the id that the arguments name.
        Raises InjectionFailed with the program's words, ConnectionLost, TimeoutError.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        number = str(next(self._numbers))
        names = [number, f"{until} {arguments['id']}"] if until else [number]
        line = json.dumps({"execute": command, "arguments": named, "id": number}).encode() + b"\n"
        with self._expecting(names) as (answered, *happened):
            async with asyncio.timeout(self.timeout):
                await self._send(line)
                answer = await self._outcome(answered)
                if "error" in answer:
                    raise InjectionFailed(f"{command}: {answer['error']['desc']}")
                for event in happened:
                    await self._outcome(event)
        return answer["return"]

    @contextlib.contextmanager
    def _expecting(self, names: Sequence[str]) -> Iterator[list[asyncio.Future[Said | None]]]:
        loop = asyncio.get_running_loop()
        awaited: dict[str, asyncio.Future[Said | None]] = {name: loop.create_future() for name in names}
        self._waiting |= awaited
        try:
            yield list(awaited.values())
        finally:
            for name in names:
                del self._waiting[name]

    async def _send(self, line: bytes) -> None:
        if self.lost:
            raise ConnectionLost
        try:
            self._stdin.write(line)
            await self._stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise ConnectionLost from None

    @staticmethod
    async def _outcome(awaited: asyncio.Future[Said | None]) -> Said:
        said = await awaited
        if said is None:
            raise ConnectionLost
        return said

    async def _read(self) -> None:
        """Hand every line to whoever waits for it, and tell all of them when there will be no more."""
        try:
            while line := await self._stdout.readline():
                said = json.loads(line)
                self._settle(f"{said['event']} {said['data'].get('id')}" if "event" in said else said.get("id"), said)
        finally:
            for name in self._waiting:
                self._settle(name, None)

    def _settle(self, name: str, said: Said | None) -> None:
        awaited = self._waiting.get(name)
        if awaited is not None and not awaited.done():
            awaited.set_result(said)
