"""What the running kernel may lack, in a kernel that has it: Debian's user-mode-linux, on this host's own files."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KERNEL = "linux.uml"
BOOT = "rootfstype=hostfs rootflags=/ rw mem=256M con=null con0=fd:0,fd:1 quiet"
LIMIT = 120.0


async def run_in_kernel(module: str) -> Any:
    """What a module of the tests, run by the other kernel, gave as its RESULT."""
    if shutil.which(KERNEL) is None:
        pytest.skip(f"KERNEL TEST NOT RUN: {KERNEL} is missing; install the package user-mode-linux")
    words = [*BOOT.split(), f"init={ROOT}/tests/kernel/init", f"home={ROOT}", f"module={module}"]
    pipe, merged = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    kernel = await asyncio.create_subprocess_exec(
        KERNEL, *words, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=merged, start_new_session=True
    )
    try:
        async with asyncio.timeout(LIMIT):
            said = (await kernel.communicate())[0].decode(errors="replace")
    except BaseException:
        kernel.kill()
        raise
    results = [line.removeprefix("RESULT ") for line in said.splitlines() if line.startswith("RESULT ")]
    assert len(results) == 1, said
    return json.loads(results[0])
