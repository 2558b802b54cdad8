from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from launcher.cli.main import main
from tests.flow.house import House

Run = Callable[[str], Awaitable[tuple[int, str, str]]]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path).open() as opened:
        yield opened


@pytest.fixture
def launcher(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line, given a line as a user types it: exit code, stdout and stderr."""

    async def run(line: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, shlex.split(line))
        out, err = capsys.readouterr()
        return code, out, err

    return run
