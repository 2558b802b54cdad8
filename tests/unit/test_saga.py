"""The laws of the saga, one test each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from launcher.errors import SpawnFailed, StaleGeneration
from launcher.models import TaskState
from launcher.services.saga import Saga, Step, StepFailed

NAMES = (TaskState.NETWORKING, TaskState.IMAGING, TaskState.SPAWNING)


class Diary:
    """A saga over three steps that writes down what happens; steps and undos can be told to fail."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.saga: Saga[str] = Saga(*(self._step(name) for name in NAMES), report=self._report)

    def _step(self, name: TaskState) -> Step[str]:
        async def do(work: str) -> None:
            self._write(f"do {name}")

        async def undo(work: str) -> None:
            self._write(f"undo {name}")

        return Step(name, do, undo)

    async def _report(self, work: str, step: TaskState) -> None:
        self._write(f"report {step}")

    def _write(self, line: str) -> None:
        self.lines.append(line)
        if line in self.failing:
            raise self.failing[line]


async def test_every_step_is_reported_before_its_action() -> None:
    diary = Diary()
    await diary.saga.run("i-1")
    assert diary.lines == [line for name in NAMES for line in (f"report {name}", f"do {name}")]


async def test_a_failing_step_stops_the_run_and_says_which_it_was() -> None:
    diary = Diary()
    diary.failing["do imaging"] = SpawnFailed("no space")
    with pytest.raises(StepFailed) as failed:
        await diary.saga.run("i-1")
    assert (failed.value.step, str(failed.value.cause)) == (TaskState.IMAGING, "no space")
    assert "report spawning" not in diary.lines


async def test_what_the_report_raises_comes_through_as_it_is() -> None:
    diary = Diary()
    diary.failing["report imaging"] = SpawnFailed("overtaken")
    with pytest.raises(SpawnFailed):
        await diary.saga.run("i-1")
    assert diary.lines[-1] == "report imaging"


class Slow:
    """A saga of two steps whose reports are answered when the test says so."""

    def __init__(self, *, waits: bool) -> None:
        self.lines: list[str] = []
        self.answers: list[asyncio.Future[None]] = []
        steps = [Step(name, self._doing(name), waits=waits) for name in (TaskState.BRIDGING, TaskState.IMAGING)]
        self.run = asyncio.ensure_future(Saga(*steps, report=self._report).run("i-1"))

    def _doing(self, name: TaskState) -> Callable[[str], Awaitable[None]]:
        async def do(work: str) -> None:
            self.lines.append(f"do {name}")
            if name == self.failing:
                raise SpawnFailed("no space")

        return do

    failing = ""

    async def _report(self, work: str, step: TaskState) -> None:
        self.lines.append(f"report {step}")
        self.answers.append(asyncio.get_running_loop().create_future())
        await self.answers[-1]

    async def lines_are(self, *lines: str) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        assert self.lines == list(lines)


async def test_what_waits_begins_when_its_report_was_answered() -> None:
    slow = Slow(waits=True)
    await slow.lines_are("report bridging")
    slow.answers[0].set_result(None)
    await slow.lines_are("report bridging", "do bridging", "report imaging")
    slow.run.cancel()


async def test_the_others_begin_while_it_is_on_the_way_and_no_next_one_before_the_answer() -> None:
    slow = Slow(waits=False)
    await slow.lines_are("report bridging", "do bridging")
    slow.answers[0].set_result(None)
    await slow.lines_are("report bridging", "do bridging", "report imaging", "do imaging")
    slow.answers[1].set_result(None)
    await slow.run


@pytest.mark.parametrize("failing", ["", "bridging"])
async def test_a_refusal_counts_more_than_how_the_step_ended(failing: str) -> None:
    slow = Slow(waits=False)
    slow.failing = failing
    await slow.lines_are("report bridging", "do bridging")
    slow.answers[0].set_exception(StaleGeneration("overtaken"))
    with pytest.raises(StaleGeneration):
        await slow.run
    assert "report imaging" not in slow.lines


async def test_unwinding_undoes_everything_in_reverse_whatever_was_done() -> None:
    diary = Diary()
    await diary.saga.unwind("i-1")
    await diary.saga.unwind("i-1")
    assert diary.lines == [f"undo {name}" for name in reversed(NAMES)] * 2


async def test_all_undos_run_although_two_fail_and_the_first_error_is_raised() -> None:
    diary = Diary()
    diary.failing = {"undo spawning": SpawnFailed("first"), "undo imaging": SpawnFailed("second")}
    with pytest.raises(StepFailed, match="first"):
        await diary.saga.unwind("i-1")
    assert diary.lines == ["undo spawning", "undo imaging", "undo networking"]


async def test_nothing_is_taken_away_from_under_a_step_whose_undo_fails() -> None:
    """An address was released while its domain ran, because destroying the domain had failed."""
    diary = Diary()
    diary.saga.steps = [replace(step, needs_earlier=step.name is TaskState.SPAWNING) for step in diary.saga.steps]
    diary.failing["undo spawning"] = SpawnFailed("it stays")
    with pytest.raises(StepFailed, match="it stays"):
        await diary.saga.unwind("i-1")
    assert diary.lines == ["undo spawning"]


async def test_cancellation_is_a_crash_and_undoes_nothing() -> None:
    diary = Diary()
    diary.failing["do imaging"] = asyncio.CancelledError()  # type: ignore[assignment]
    with pytest.raises(asyncio.CancelledError):
        await diary.saga.run("i-1")
    assert not [line for line in diary.lines if line.startswith("undo")]
