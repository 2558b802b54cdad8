"""The only place that starts programs: argument lists, an explicit environment, always a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from launcher.errors import HostResourceMissing, ProgramFailed

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
OUTPUT_KEPT = 2000


async def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | bytes = b"",
    timeout: float = 30.0,
    environment: Mapping[str, str] = ENVIRONMENT,
) -> str:
    """Run a program to its end and return what it wrote to stdout.

    Raises HostResourceMissing when the program is not installed, ProgramFailed (with its words and the
    command that can be pasted into a shell) when it exits non-zero or outlives `timeout` seconds.
    """
    data = stdin.encode() if isinstance(stdin, str) else stdin
    pipe = asyncio.subprocess.PIPE
    async with spawn(argv, stdin=pipe, stdout=pipe, environment=environment) as process:
        try:
            async with asyncio.timeout(timeout):
                out, err = await process.communicate(data)
        except TimeoutError:
            raise ProgramFailed(f"{_shown(argv)}: still running after {timeout:g} s") from None
    if process.returncode:
        said = (err or out).decode(errors="replace").strip()[-OUTPUT_KEPT:]
        raise ProgramFailed(f"{_shown(argv)}: {_exit_words(process.returncode)}: {said}")
    return out.decode(errors="replace")


@contextlib.asynccontextmanager
async def spawn(
    argv: Sequence[str | Path],
    *,
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int = asyncio.subprocess.DEVNULL,
    stderr: int = asyncio.subprocess.PIPE,
    environment: Mapping[str, str] = ENVIRONMENT,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A running program that does not outlive the block: it gets TERM, then KILL after two seconds."""
    try:
        process = await asyncio.create_subprocess_exec(
            *map(str, argv), stdin=stdin, stdout=stdout, stderr=stderr, env=dict(environment)
        )
    except FileNotFoundError:
        raise HostResourceMissing(
            f"the program {argv[0]} is not installed", hint="run `launcher doctor` to see what is missing"
        ) from None
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Make sure that the program is gone and reaped."""
    for number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await process.wait()


def alive(pid: int, argument: str) -> bool:
    """Whether `pid` is a program that was started with `argument` among its words."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(argument) in words


def _shown(argv: Sequence[str | Path]) -> str:
    return shlex.join(map(str, argv))


def _exit_words(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
