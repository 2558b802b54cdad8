"""What a start found and did is told in one line of the log."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from launcher.auditing import ArtefactKind
from launcher.clock import SystemClock
from launcher.drivers.network.driver import Tap
from launcher.services.controller import start_report
from launcher.services.controller.start_report import StartReport
from tests.flow.house import House
from tests.waiting import eventually


@pytest.fixture(autouse=True)
def promptly(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(start_report, "BETWEEN_LOOKS", 0.01)
    caplog.set_level(logging.INFO, start_report.__name__)


async def told(caplog: pytest.LogCaptureFixture) -> str:
    async def look() -> str | None:
        return next((line for line in caplog.messages if line.startswith("start: ")), None)

    return await eventually(look, what="the report")


async def test_a_first_start_has_nothing_to_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with House(tmp_path).open():
        assert await told(caplog) == "start: 0 adopted; 0 resumed; 0 repaired; 0 missing; 0 removed; 0 not heard of"


async def test_everything_has_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = House(tmp_path)
    async with first.open():
        whole, broken, dead = [await first.launch() for _ in range(3)]
        for made in (whole, broken, dead):
            await first.until(made["id"], "ACTIVE")
        gate = first.hold_step("spawning")
        await first.launch()
        await asyncio.wait_for(gate.reached.wait(), 10)
        gone = await first.launch()
        await first.ask("DELETE", f"/instances/{gone['id']}", status=202)
        first.cut()
        await first.until(gone["id"], "DELETED")
    first.network.taps.pop(Tap(broken["number"]))
    first.firewall.torn.add(broken["number"])
    first.virt.domains.pop(dead["id"])
    first.network.taps[Tap(gone["number"])] = "br100"
    caplog.clear()
    async with first.successor().open():
        assert await told(caplog) == (
            "start: 2 adopted (instance-00000001, instance-00000002); 1 resumed (instance-00000004); "
            "1 repaired (instance-00000002: chain, tap); 1 missing (instance-00000003); "
            "1 removed (tap00000005); 0 not heard of"
        )


async def test_silence_is_told_and_long_lists_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    report = StartReport(clock=SystemClock(), sweep=None)
    report.expect({str(number): f"instance-{number:08x}" for number in range(13)})
    report.verified("0", frozenset({ArtefactKind.TAP}))
    report.limit_ms = 1.0
    await report.tick()
    line = caplog.messages[-1]
    assert "1 adopted (instance-00000000); 0 resumed; 1 repaired (instance-00000000: tap)" in line
    assert line.endswith("instance-0000000a, and 2 more)")
    assert "12 not heard of" in line
