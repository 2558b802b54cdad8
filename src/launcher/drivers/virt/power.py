"""Which of libvirt's lifecycle events are news: those of our domains that we did not cause ourselves."""

from __future__ import annotations

from collections.abc import Iterable

import libvirt

from launcher.drivers.virt.driver import Domain, PowerWatcher
from launcher.models import InstanceId, PowerState

# (new state, libvirt's words for the event's detail); events that are not here change no power state
EVENTS: dict[int, tuple[PowerState, tuple[str, ...]]] = {
    libvirt.VIR_DOMAIN_EVENT_STARTED: (PowerState.RUNNING, ("booted", "migrated", "restored", "snapshot", "wakeup")),
    libvirt.VIR_DOMAIN_EVENT_RESUMED: (PowerState.RUNNING, ("unpaused", "migrated", "snapshot")),
    libvirt.VIR_DOMAIN_EVENT_SUSPENDED: (
        PowerState.PAUSED,
        ("paused", "migrated", "ioerror", "watchdog", "restored", "snapshot", "api-error"),
    ),
    libvirt.VIR_DOMAIN_EVENT_PMSUSPENDED: (PowerState.PAUSED, ("memory", "disk")),
    libvirt.VIR_DOMAIN_EVENT_STOPPED: (
        PowerState.STOPPED,
        ("shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "snapshot"),
    ),
}

STATES = {
    libvirt.VIR_DOMAIN_RUNNING: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: PowerState.PAUSED,
}
"""Every other state, "being shut down" included, is STOPPED: nothing runs in it any more."""


def power_of(state: int, reason: int) -> PowerState:
    """What libvirt calls paused while it is "starting up" does not run yet. A libvirt that was killed while it started
    a domain lists it so afterwards, for up to 30 s, whether there is a QEMU or not; then it ends it.
    """
    if (state, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP):
        return PowerState.STOPPED
    return STATES.get(state, PowerState.STOPPED)


class PowerWatch:
    """Knows our domains by id, because an event of a domain that is gone carries no metadata. Lives on the event loop.

    A domain is *expected* from before its creation and *watched* from its start event on. So the late end of an
    older generation, which arrives between the two, is not taken for the end of the new one.
    """

    def __init__(self) -> None:
        self.watcher: PowerWatcher = _nobody
        self.expected: set[InstanceId] = set()
        self.watched: set[InstanceId] = set()

    def expect(self, instance_id: InstanceId) -> None:
        self.watched.discard(instance_id)
        self.expected.add(instance_id)

    def forget(self, instance_id: InstanceId) -> None:
        """We are about to end it; its end is no news."""
        self.expected.discard(instance_id)
        self.watched.discard(instance_id)

    def watch(self, instance_id: InstanceId) -> None:
        """It runs after all."""
        self.watched.add(instance_id)

    def observe(self, uuid: InstanceId, event: int, detail: int) -> None:
        if event == libvirt.VIR_DOMAIN_EVENT_STARTED and uuid in self.expected:
            self.expected.discard(uuid)
            self.watched.add(uuid)
        if uuid not in self.watched or event not in EVENTS:
            return
        power, words = EVENTS[event]
        if power is PowerState.STOPPED:
            self.watched.discard(uuid)
        self.watcher(uuid, power, words[detail] if detail < len(words) else f"detail {detail}")

    def resume(self, domains: Iterable[Domain]) -> None:
        """After a (re)connection: these are ours and alive; what was and is not any more ended unseen."""
        alive = {domain.instance_id for domain in domains if domain.power is not PowerState.STOPPED}
        vanished = sorted(self.watched - alive)
        self.watched = alive
        self.expected -= alive
        for instance_id in vanished:
            self.watcher(instance_id, PowerState.STOPPED, "gone while libvirt was away")


def _nobody(_: InstanceId, __: PowerState, ___: str) -> None:
    """Before `start` there is nobody to tell."""
