"""What every test may ask for."""

from __future__ import annotations

import os

import pytest

from launcher.sandbox import INSIDE


@pytest.fixture
def sandboxed() -> None:
    """Skip, loudly, unless the test runs inside `python -m launcher.sandbox` (as `make test` does)."""
    if os.environ.get(INSIDE) != "1":
        pytest.skip("HOST TEST NOT RUN: needs the sandbox; use `make test` or `python -m launcher.sandbox pytest`")
