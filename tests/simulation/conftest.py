"""The processors that the schedules are run on, and the figures at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Executor

import pytest

from tests.simulation.batch import Tally, workers

TALLY = Tally()
SECONDS: list[float] = []


@pytest.fixture(scope="session")
def pool() -> Iterator[Executor]:
    with workers(2) as pool:
        yield pool


@pytest.fixture
def tally() -> Iterator[Tally]:
    """Counts what this test runs into the line at the end."""
    began = time.monotonic()
    yield TALLY
    SECONDS.append(time.monotonic() - began)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not TALLY.schedules:
        return
    terminalreporter.write_line(
        f"simulation: schedules={TALLY.schedules} courses={len(TALLY.fingerprints)} kills={TALLY.kills}"
        f" faults={len(TALLY.struck)} side_effects={TALLY.side_effects} violations={len(TALLY.red)}"
        f" seconds={sum(SECONDS):.0f}"
    )
