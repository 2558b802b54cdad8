"""To the scheduler."""

from __future__ import annotations

from launcher.messaging import Cast
from launcher.models import LaunchOrder


class ScheduleInstance(Cast):
    """Choose a host and cast the order on to it. On the wire it keeps Nova's name."""

    topic = "scheduler"
    traced = True
    method = "run_instance"
    order: LaunchOrder
