"""A launch as a list of named steps, each an `ensure` that may run twice and an undo that may run without it.

The one list serves launch, failure, crash recovery and terminate. Its laws, each with a test: a step is reported
before its action, and the answer is there before the next step; the failing step is undone too; undo runs in reverse,
all undos run although one fails, the first error being the one raised, except that nothing is taken away from under a
step that needs it; cancellation is a crash, not a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from launcher.failpoints import failpoint
from launcher.models import TaskState

W = TypeVar("W")
Action = Callable[[W], Awaitable[None]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step(Generic[W]):
    """`undo` needs only what identifies the work, never a value that `do` left in memory.

    What `needs_earlier` runs on what the steps before it made: while its undo fails, those are not undone. What `waits`
    begins when its report was answered; the others while it is on the way, because they only prepare their own host.
    """

    name: TaskState
    do: Action[W]
    undo: Action[W] | None = None
    needs_earlier: bool = False
    waits: bool = False


class StepFailed(Exception):
    """A step raised; `cause` is what it raised."""

    def __init__(self, step: TaskState, cause: Exception) -> None:
        super().__init__(f"{step} failed: {cause}")
        self.step, self.cause = step, cause


class Saga(Generic[W]):
    """Runs the steps forward or all undos backward. The caller runs it once at a time per work."""

    def __init__(self, *steps: Step[W], report: Callable[[W, TaskState], Awaitable[None]]) -> None:
        self.steps: Sequence[Step[W]] = steps
        self.report = report

    async def run(self, work: W) -> None:
        """Raises what `report` raises, as it is, and StepFailed for a step; nothing is undone here."""
        for step in self.steps:
            async with self._reported(work, step):
                try:
                    async with failpoint(step.name):
                        await step.do(work)
                except Exception as cause:
                    raise StepFailed(step.name, cause) from cause

    @contextlib.asynccontextmanager
    async def _reported(self, work: W, step: Step[W]) -> AsyncIterator[None]:
        """What the report is refused with counts more than how the step ended; a step that was cut off is a crash."""
        report = asyncio.ensure_future(self.report(work, step.name))
        try:
            await asyncio.sleep(0)  # it is sent, or refused here already, before anything is done
            if step.waits or report.done():
                await report
            try:
                yield
            except StepFailed:
                await report
                raise
            await report
        finally:
            report.cancel()

    async def unwind(self, work: W) -> None:
        """Undo all that may be undone, whether it was done or not. Raises StepFailed with the first that failed."""
        first: StepFailed | None = None
        for step in reversed(self.steps):
            if step.undo is None:
                continue
            try:
                async with failpoint(f"undo.{step.name}"):
                    await step.undo(work)
            except Exception as cause:  # noqa: BLE001 - the other undos run all the same
                log.warning("undo of %s failed: %s", step.name, cause)
                first = first or StepFailed(step.name, cause)
                if step.needs_earlier:
                    break
        if first:
            raise first
