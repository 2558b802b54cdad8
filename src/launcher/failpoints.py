"""Named points before and after every effect of a launch, its end or an import, where a test kills, holds or fails it.

    LAUNCHER_FAILPOINT=imaging:after:1:kill launcher serve      SIGKILL when the step has been done for the first time
    LAUNCHER_FAILPOINT=spawning:before:2:sleep=5 …              hold the second spawning for 5 s before it begins
    LAUNCHER_FAILPOINT=spawning:before:1:raise,report.fault:before:1:kill …

`python -m launcher.failpoints` lists the points. With the variable unset, passing one costs a look into an empty dict.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import sys
import time
from types import TracebackType

VARIABLE = "LAUNCHER_FAILPOINT"

LAUNCH = {
    "accept": "the transaction that accepts a launch",
    "cast.schedule": "the order on its way to the scheduler",
    "cast.run": "the order on its way to the chosen host",
    "report.step": "the word that a step begins; the first is the host's claim",
    "move": "the transaction that moves a row, with its line in the event log",
    "networking": "the step",
    "lease": "the transaction that leases an address",
    "bridging": "the step",
    "imaging": "the step",
    "image.base": "an image's file, built aside and checked, gets its name",
    "image.disk": "an instance's directory, built aside, gets its name",
    "injecting": "the step",
    "image.drive": "a config drive, built aside, gets its name",
    "image.key": "a disk with its key is marked as having it",
    "filtering": "the step",
    "spawning": "the step",
    "image.settled": "the mark that an instance's files might not survive a power cut is taken away",
    "report.active": "the word that the machine runs",
}
FAILURE = {"report.fault": "the word that a step failed"}
TERMINATE = {
    "delete": "the transaction that accepts a deletion",
    "nudge": "the cast that moves a row on: the end of an instance, or what a restart found unfinished",
    "undo.spawning": "the domain is destroyed",
    "undo.filtering": "the filters are removed",
    "undo.imaging": "the files are deleted",
    "image.trash": "an instance's directory is moved away, to be deleted there",
    "undo.bridging": "the tap is removed",
    "undo.networking": "the address is given back",
    "release": "the transaction that gives it back",
    "report.gone": "the word that nothing is left",
}
VOLUMES = {
    "volume.accept": "the transaction that accepts a volume or a snapshot",
    "volume.move": "the transaction that accepts an attachment, a detachment, an extension or a deletion",
    "volume.nudge": "the cast that moves a volume on",
    "volume.claim": "the host's word that it is at it",
    "volume.creating": "a volume or snapshot is made",
    "volume.file": "its files, built aside, get their name",
    "volume.attaching": "it is plugged into the machine",
    "volume.detaching": "it is pulled",
    "volume.extending": "it grows",
    "volume.deleting": "it is deleted",
    "volume.trash": "its files are moved away, to be deleted there",
    "volume.report": "the host's word that it is done",
    "volume.fault": "the host's word that it failed",
    "volume.end": "the transaction that makes a move of the host's word",
}
LIFE = {
    "act": "the transaction that accepts what is to be done to an instance",
    "stopping": "the task: the guest is asked, then its domain is destroyed",
    "starting": "the task: the steps of a launch, on the disk that is there",
    "rebooting": "the task: both",
    "pausing": "the task",
    "unpausing": "the task",
    "suspending": "the task: the guest's memory is written to a file, its domain ends",
    "resuming": "the task: the steps of a launch, but its domain goes on from the file",
    "rebuilding": "the task: the domain ends, the disks go, the steps of a launch",
    "rescuing": "the task: the domain ends, the steps of a launch on another root",
    "unrescuing": "the task: that domain ends, its root goes, the steps of a launch on the disk that is there",
    "report.changed": "the word that a task is done",
}
SNAPSHOT = {
    "image_snapshot": "the task: an image is made of the instance's root disk",
    "image.copy": "its root disk is copied",
    "image.bring": "the copy is brought to the controller's vault",
}
IMPORT = {
    "image.arrive": "a part of an image's bytes is written",
    "image.admit": "an image's file that has passed the gate gets its content's name",
    "image.active": "the transaction that makes an image active",
}
POINTS = LAUNCH | FAILURE | TERMINATE | LIFE | SNAPSHOT | IMPORT | VOLUMES

_WORDS = re.compile(r"([\w.]+):(before|after):([1-9]\d*):(kill|raise|sleep=\d+(?:\.\d+)?)")
log = logging.getLogger(__name__)


class FailpointReached(Exception):
    """What `raise` raises: an error without a name, as a bug would."""


class Armed:
    """A point that somebody waits at. `with` is for threads and `async with` for coroutines."""

    def __init__(self, name: str, moment: str, visit: int, action: str) -> None:
        self.name, self.moment, self.visit, self.action = name, moment, visit, action
        self.visits = 0

    def __enter__(self) -> None:
        time.sleep(self._reach("before"))

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            time.sleep(self._reach("after"))

    async def __aenter__(self) -> None:
        await asyncio.sleep(self._reach("before"))

    async def __aexit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            await asyncio.sleep(self._reach("after"))

    def _reach(self, moment: str) -> float:
        """Act if this is the visit; returns how many seconds to hold."""
        self.visits += moment == self.moment
        if moment != self.moment or self.visits != self.visit:
            return 0.0
        log.warning("failpoint %s:%s:%d: %s", self.name, moment, self.visit, self.action)
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == "raise":
            raise FailpointReached(f"failpoint {self.name}:{moment}")
        return float(self.action.removeprefix("sleep="))


def parse(text: str) -> dict[str, Armed]:
    """The points that the variable names. Raises ValueError that says what was expected."""
    armed = {}
    for word in filter(None, text.split(",")):
        found = _WORDS.fullmatch(word)
        if found is None or found[1] not in POINTS:
            raise ValueError(
                f"{VARIABLE}: {word!r} is no NAME:before|after:VISIT:kill|raise|sleep=SECONDS; "
                "`python -m launcher.failpoints` lists the names"
            )
        armed[found[1]] = Armed(found[1], found[2], int(found[3]), found[4])
    return armed


ARMED = parse(os.environ.get(VARIABLE, ""))
_NOTHING = contextlib.nullcontext()


def failpoint(name: str) -> Armed | contextlib.nullcontext[None]:
    """Around an effect: `with` in a thread, `async with` in a coroutine."""
    return ARMED.get(name, _NOTHING)


if __name__ == "__main__":
    sys.stdout.writelines(f"{name:<17} {what}\n" for name, what in POINTS.items())
