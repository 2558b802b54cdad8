"""What every test may ask for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

from launcher.sandbox import INSIDE

# The same examples on every machine and every day; HYPOTHESIS_PROFILE=search looks for others, and for longer.
settings.register_profile("same", derandomize=True, deadline=None, database=None, print_blob=True)
settings.register_profile("search", deadline=None, max_examples=3000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture
def sandboxed() -> None:
    """Skip, loudly, unless the test runs inside `python -m launcher.sandbox` (as `make test` does)."""
    if os.environ.get(INSIDE) != "1":
        pytest.skip("HOST TEST NOT RUN: needs the sandbox; use `make test` or `python -m launcher.sandbox pytest`")
    _empty_the_network()


def _empty_the_network() -> None:
    """What an earlier test left in this sandbox must not meet the next one. Everything here is the tests' own."""
    subprocess.run(["pkill", "-KILL", "-x", "dnsmasq"], check=False)
    links = [link.name for link in Path("/sys/class/net").iterdir() if link.name != "lo"]
    empty = "".join(f"*{table}\nCOMMIT\n" for table in ("filter", "nat"))
    for command, text in (
        (["ip", "-force", "-batch", "-"], "".join(f"link del {name}\n" for name in links)),
        (["iptables-restore"], empty),
        (["ip6tables-restore"], empty),
        (["nft", "flush", "ruleset"], ""),
    ):
        subprocess.run(command, input=text, text=True, check=False, capture_output=True)
