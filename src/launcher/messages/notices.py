"""To everybody who listens."""

from __future__ import annotations

from launcher.messaging import Notice
from launcher.models import Event, HostState


class HostHeartbeat(Notice):
    """A compute host is alive and looks like this."""

    topic = "hosts"
    host: HostState


class InstanceChanged(Notice):
    """A line was added to the event log."""

    topic = "events"
    event: Event
