"""The README's blocks of commands, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.serving import ROOT, Server

BIN = Path(sys.executable).parent


def commands(heading: str) -> str:
    """The first block below the heading."""
    found = re.search(rf"## {heading}\n.*?```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def shell(script: str, server: Server, directory: Path, *, timeout: float = 120) -> str:
    """What it says on stdout, run in the directory by somebody who is logged in at the server."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=directory,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "LAUNCHER_STATE": str(server.state)},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
