from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.serving import LIBRARY, Server


@pytest.fixture
async def server(sandboxed: None, tmp_path: Path) -> AsyncIterator[Server]:
    """A server on this sandbox's network. It is not started; whatever it left running is ended."""
    if not (LIBRARY / "ami-tiny" / "image.json").exists():
        pytest.skip("HOST TEST NOT RUN: the tiny image is missing; run `make setup`")
    server = Server(tmp_path / "state")
    yield server
    if server.process is not None and not server.ended:
        await server.stop()
    leave_nothing(server)


def leave_nothing(server: Server) -> None:
    """End the guests of this state directory."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if str(server.state).encode() in words and int(process.name) != os.getpid():
            os.kill(int(process.name), signal.SIGKILL)
