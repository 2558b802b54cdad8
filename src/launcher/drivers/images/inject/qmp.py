"""QEMU's control protocol over a program's standard input and output: one JSON object per line.

Source: QEMU's docs/interop/qmp-spec. A private pipe needs no socket file, and nobody else can speak on it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

from launcher.errors import InjectionFailed


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
        self._waiting: dict[str, asyncio.Future[dict[str, Any] | None]] = {}  # by id or event; None: lost
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

    async def execute(self, command: str, **arguments: Any) -> Any:
        """The command's answer; argument names are written with `_` for `-`.

        Raises InjectionFailed with the program's words, ConnectionLost, TimeoutError.
        """
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        number = str(next(self._numbers))
        line = json.dumps({"execute": command, "arguments": named, "id": number})
        answer = await self._ask(number, line)
        if "error" in answer:
            raise InjectionFailed(f"{command}: {answer['error']['desc']}")
        return answer["return"]

    async def execute_until(self, event: str, subject: str, command: str, **arguments: Any) -> None:
        """The command, and then the event of the thing with the id `subject`."""
        seen = self._expect(f"{event} {subject}")
        await self.execute(command, **arguments)
        async with asyncio.timeout(self.timeout):
            await self._outcome(seen)

    async def _ask(self, number: str, line: str) -> dict[str, Any]:
        if self.lost:
            raise ConnectionLost
        answer = self._expect(number)
        try:
            async with asyncio.timeout(self.timeout):
                self._stdin.write(line.encode() + b"\n")
                await self._stdin.drain()
                return await self._outcome(answer)
        except (BrokenPipeError, ConnectionResetError):
            raise ConnectionLost from None
        finally:
            self._waiting.pop(number, None)

    def _expect(self, name: str) -> asyncio.Future[dict[str, Any] | None]:
        self._waiting[name] = asyncio.get_running_loop().create_future()
        return self._waiting[name]

    @staticmethod
    async def _outcome(awaited: asyncio.Future[dict[str, Any] | None]) -> dict[str, Any]:
        outcome = await awaited
        if outcome is None:
            raise ConnectionLost
        return outcome

    async def _read(self) -> None:
        """Hand every line to whoever waits for it, and tell all of them when there will be no more."""
        try:
            while line := await self._stdout.readline():
                said = json.loads(line)
                name = f"{said['event']} {said['data'].get('id')}" if "event" in said else said.get("id")
                self._settle(name, said)
        finally:
            for name in list(self._waiting):
                self._settle(name, None)

    def _settle(self, name: str, outcome: dict[str, Any] | None) -> None:
        awaited = self._waiting.pop(name, None)
        if awaited is not None and not awaited.done():
            awaited.set_result(outcome)
