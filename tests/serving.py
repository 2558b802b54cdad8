"""The product as its user runs it: `launcher serve` as a process, and the `launcher` command beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests import preloaded
from tests.preloaded import Forked
from tests.waiting import eventually, until

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / ".cache" / "images"
Json = dict[str, Any]


@dataclass
class Server:
    """One state directory, and now and then a process that serves it; `preloaded` says how that begins."""

    state: Path
    settings: Sequence[str] = ()
    program: str = "launcher"
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    preloaded: bool = False
    process: asyncio.subprocess.Process | Forked | None = None
    client_home: Path = field(init=False)
    log_begins: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.client_home = self.state.with_name(self.state.name + "-client")

    @property
    def log(self) -> Path:
        return self.state.with_name(self.state.name + ".log")

    @property
    def admin(self) -> Json:
        """What the server tells its command line: where it is, and the admin's token."""
        found: Json = json.loads((self.state / "admin.json").read_text())
        return found

    @contextlib.asynccontextmanager
    async def running(self, *, within: float = 60.0) -> AsyncIterator[Server]:
        """The server from "listening" on; it is told to stop at the end, if it has not ended before."""
        await self.start(within=within)
        try:
            yield self
        finally:
            await self.stop()

    async def start(self, *, within: float = 60.0) -> None:
        await self.spawn()
        await until(lambda: self.listening or self.ended, within=within)
        assert not self.ended, self.log.read_text()

    async def spawn(self) -> None:
        """Start the process, and wait for nothing."""
        settings = [f"images.library={LIBRARY}", *self.settings]
        argv = ["serve", "--state", str(self.state), "--listen", "127.0.0.1:0", *self.options]
        argv += [word for setting in settings for word in ("--set", setting)]
        if self.preloaded:
            self.log.touch()
            self.log_begins = self.log.stat().st_size
            self.process = preloaded.start(argv, {**os.environ, **self.environment}, self.log)
            return
        with self.log.open("ab") as log:
            self.log_begins = self.log.stat().st_size
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", self.program, *argv),
                stdout=log,
                stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, **self.environment},
            )

    @property
    def said(self) -> str:
        """The log of the present process."""
        return self.log.read_bytes()[self.log_begins :].decode(errors="replace")

    @property
    def listening(self) -> bool:
        return "listening on" in self.said

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.returncode is not None

    async def stop(self) -> int:
        """TERM, and the exit code."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            return await self.process.wait()

    async def kill(self) -> None:
        """KILL, to the process that the user started; what it had started goes or stays by the product's rules."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def cli(self, *words: str, code: int = 0, within: float = 60.0, stdin: bytes = b"") -> str:
        """What the command says on stdout."""
        environment = {
            **os.environ,
            "LAUNCHER_STATE": str(self.state),
            "XDG_DATA_HOME": str(self.client_home),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "launcher", *words),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        async with asyncio.timeout(within):
            out, err = await process.communicate(stdin)
        assert process.returncode == code, f"{words}: {process.returncode}\n{out.decode()}\n{err.decode()}"
        return out.decode()

    async def cli_json(self, *words: str) -> Any:
        return json.loads(await self.cli("--json", *words))

    @contextlib.asynccontextmanager
    async def http(self, token: str = "") -> AsyncIterator[aiohttp.ClientSession]:
        """Asks this server, by default with its own admin's token."""
        headers = {"Authorization": f"Bearer {token or self.admin['token']}"}
        async with aiohttp.ClientSession(self.admin["url"], headers=headers) as session:
            yield session

    async def get(self, path: str) -> Json:
        async with self.http() as http, http.get(path) as response:
            assert response.status == 200, await response.text()
            found: Json = await response.json()
            return found

    async def until_instance(self, name: str, *, within: float = 60.0, **wanted: object) -> Json:
        """The instance once these fields have these values."""

        async def look() -> Json | None:
            found = await self.get(f"/instances/{name}")
            return found if all(found[key] == value for key, value in wanted.items()) else None

        return await eventually(look, within=within, what=f"{name} with {wanted}")
