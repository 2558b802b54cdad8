"""The failpoints: each is where the list says and does what it is told."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import failpoints
from launcher.failpoints import FailpointReached, failpoint, parse
from launcher.models import TaskState
from launcher.volumes import ENDINGS

SOURCES = Path(failpoints.__file__).parent
STEPS = {step.value for step in TaskState} | {f"volume.{status}" for status in ENDINGS}


def arm(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(failpoints, "ARMED", parse(text))


def test_the_list_names_every_point_of_the_source_and_no_other() -> None:
    named = {
        name for path in SOURCES.rglob("*.py") for name in re.findall(r'failpoint\("([\w.]+)"\)', path.read_text())
    }
    steps = {name for name in failpoints.POINTS if name.removeprefix("undo.") in STEPS}
    assert named | steps == set(failpoints.POINTS)
    assert "failpoint(step.name)" in (SOURCES / "services" / "saga.py").read_text()
    assert 'failpoint(f"volume.{order.status}")' in (SOURCES / "services" / "volumes.py").read_text()


def test_the_command_lists_them() -> None:
    said = subprocess.run([sys.executable, "-m", "launcher.failpoints"], capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in said.stdout.splitlines()] == list(failpoints.POINTS)


async def test_it_acts_at_its_visit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    arm(monkeypatch, "imaging:before:2:raise")
    done = []
    for number in (1, 2, 3):
        try:
            async with failpoint("imaging"):
                done.append(number)
        except FailpointReached:
            continue
    assert done == [1, 3]


def test_after_is_when_the_effect_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    arm(monkeypatch, "image.disk:after:1:raise")
    done = []
    with pytest.raises(FailpointReached), failpoint("image.disk"):
        done.append("renamed")
    assert done == ["renamed"]


def test_an_effect_that_failed_has_no_after(monkeypatch: pytest.MonkeyPatch) -> None:
    arm(monkeypatch, "image.disk:after:1:raise")
    with pytest.raises(OSError, match="full"), failpoint("image.disk"):
        raise OSError("full")


async def test_it_holds_a_coroutine_without_holding_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    arm(monkeypatch, "lease:before:1:sleep=30")

    async def held() -> None:
        async with failpoint("lease"):
            raise AssertionError("it should still be held")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(held(), 0.01)


def test_kill_is_a_kill() -> None:
    script = "from launcher.failpoints import failpoint\nwith failpoint('accept'): print('not reached', flush=True)"
    environment = {failpoints.VARIABLE: "accept:before:1:kill", "PYTHONPATH": str(SOURCES.parent)}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (-9, "")
    assert "failpoint accept:before:1: kill" in ended.stderr


@pytest.mark.parametrize("word", ["imaging", "imaging:now:1:kill", "imaging:after:0:kill", "imagine:after:1:kill"])
def test_a_mistake_is_refused_with_what_was_expected(word: str) -> None:
    with pytest.raises(ValueError, match="lists the names"):
        parse(word)
