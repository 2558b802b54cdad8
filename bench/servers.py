"""Launchers to measure, each with a directory of its own that goes with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import eventually

from bench import processes

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / ".cache" / "images"
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    "PYTHONPYCACHEPREFIX": str(ROOT / ".cache" / "bytecode"),
}
"""Modules are compiled once, as they are for whoever installs the launcher, and nothing is written beside them."""
PROGRAM = Path(sys.executable).with_name("launcher")
START_PATIENCE = 60.0
STOP_PATIENCE = 30.0

FAKE = ("virt.driver=fake",)
REAL = (f"images.library={LIBRARY}",)
ROOMY = (
    *(f"quotas.{name}=1000000" for name in ("instances", "cores")),
    *("quotas.memory_mb=1000000000", "network.cidr=10.0.0.0/16"),
    *("fake.vcpus=1000000", "fake.memory_mb=1000000000"),
)
"""Limits that thousands of instances do not reach."""


@dataclass(frozen=True)
class Server:
    """`parents` only reap (see launcher/sandbox.py); `pid` has all the roles."""

    url: str
    token: str
    state: Path
    pid: int
    parents: tuple[int, ...]


@contextlib.asynccontextmanager
async def directory() -> AsyncIterator[Path]:
    """On a disk: /tmp may be memory, where a durable write costs nothing."""
    with tempfile.TemporaryDirectory(prefix="launcher-bench-", dir="/var/tmp") as made:
        yield Path(made)


@contextlib.asynccontextmanager
async def serving(*settings: str, sandbox: bool = False) -> AsyncIterator[Server]:
    """`launcher serve` with these settings, from its first request on until the block is left."""
    async with directory() as made:
        options = [word for setting in settings for word in ("--set", setting)]
        options += ["--sandbox"] if sandbox else []
        serve = ("serve", "--state", str(made), "--listen", "127.0.0.1:0")
        async with started(PROGRAM, *serve, *options, log=made / "log") as process:
            await _listening(process, made / "log")
            *parents, pid = processes.lineage(process.pid)
            known = json.loads((made / "admin.json").read_text())
            yield Server(known["url"], known["token"], made, pid, tuple(parents))


@contextlib.asynccontextmanager
async def started(*argv: str | Path, log: Path, pipes: bool = False) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that ends with the block; what it says goes to `log`, with `pipes` only what it complains of."""
    pipe = asyncio.subprocess.PIPE if pipes else None
    bound = ("setpriv", "--pdeathsig", "TERM")  # however this process ends, the program does, too
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *bound, *map(str, argv), cwd=ROOT, env=ENVIRONMENT, stdin=pipe, stdout=pipe or output, stderr=output
        )
    try:
        yield process
    finally:
        await _end(process)


async def _listening(process: asyncio.subprocess.Process, log: Path) -> None:
    async def look() -> bool:
        text = await asyncio.to_thread(log.read_text)
        if process.returncode is not None:
            raise RuntimeError(f"the launcher did not start:\n{text[-2000:]}")
        return "listening on" in text

    await eventually(look, within=START_PATIENCE, what="the launcher listens")


async def _end(process: asyncio.subprocess.Process) -> None:
    for stop in (process.terminate, process.kill):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_PATIENCE):
                await process.wait()
