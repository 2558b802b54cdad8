"""What one piece of work on an instance knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.drivers.virt.driver import Disks
from launcher.messaging import Context
from launcher.models import LaunchOrder, TaskState
from launcher.networks import FixedIp


@dataclass
class Launch:
    """One run of the saga. What a step found is here for the steps after it; undo needs none of it.

    `keep_address` is for an undo after which the launch goes on at another host. With a `task` the machine is not new.
    """

    ctx: Context
    order: LaunchOrder
    keep_address: bool = False
    task: TaskState | None = None
    nics: Sequence[FixedIp] = ()
    disks: Disks | None = None
    injection: str = "none"
    step: TaskState | None = None
    step_span: str = ""
    step_since_ms: float = 0.0

    def within_step(self) -> Context:
        """The context for calls made on behalf of the present step."""
        return self.ctx.within(self.step_span) if self.step_span else self.ctx
