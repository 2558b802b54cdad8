"""Which lifecycle events become news, and what libvirt's errors become."""

from __future__ import annotations

import libvirt
import pytest

from launcher.drivers.virt.driver import Domain
from launcher.drivers.virt.faults import named
from launcher.drivers.virt.power import PowerWatch, power_of
from launcher.errors import (
    DomainConflict,
    HypervisorBusy,
    HypervisorUnavailable,
    InvalidDomainConfig,
    LauncherError,
    SpawnFailed,
)
from launcher.models import InstanceId, PowerState

OURS = "7d1f0d50-5bf6-4c3e-8b4e-000000000001"
BOOTED = (libvirt.VIR_DOMAIN_EVENT_STARTED, libvirt.VIR_DOMAIN_EVENT_STARTED_BOOTED)
CRASHED = (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED)
DESTROYED = (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED)


class Watched:
    def __init__(self) -> None:
        self.news: list[tuple[InstanceId, PowerState, str]] = []
        self.watch = PowerWatch()
        self.watch.watcher = lambda *change: self.news.append(change)


@pytest.fixture
def watched() -> Watched:
    return Watched()


def a_domain(power: PowerState = PowerState.RUNNING) -> Domain:
    return Domain(instance_id=OURS, number=1, generation=1, name="instance-00000001", power=power)


def test_a_strangers_events_are_no_news(watched: Watched) -> None:
    watched.watch.observe(OURS, *BOOTED)
    watched.watch.observe(OURS, *CRASHED)
    assert watched.news == []


def test_start_and_end_of_an_expected_domain_are_news_in_libvirts_words(watched: Watched) -> None:
    watched.watch.expect(OURS)
    watched.watch.observe(OURS, *BOOTED)
    watched.watch.observe(OURS, libvirt.VIR_DOMAIN_EVENT_SUSPENDED, libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR)
    watched.watch.observe(OURS, *CRASHED)
    assert watched.news == [
        (OURS, PowerState.RUNNING, "booted"),
        (OURS, PowerState.PAUSED, "ioerror"),
        (OURS, PowerState.STOPPED, "crashed"),
    ]


def test_the_late_end_of_an_older_generation_is_not_taken_for_the_new_ones(watched: Watched) -> None:
    watched.watch.resume([a_domain()])
    watched.watch.expect(OURS)
    watched.watch.observe(OURS, *DESTROYED)
    watched.watch.observe(OURS, *BOOTED)
    assert watched.news == [(OURS, PowerState.RUNNING, "booted")]


def test_what_we_destroy_is_no_news(watched: Watched) -> None:
    watched.watch.resume([a_domain()])
    watched.watch.forget(OURS)
    watched.watch.observe(OURS, *DESTROYED)
    assert watched.news == []


@pytest.mark.parametrize("now", [[], [a_domain(PowerState.STOPPED)]])
def test_an_end_that_nobody_saw_is_told_after_the_reconnection(watched: Watched, now: list[Domain]) -> None:
    watched.watch.resume([a_domain()])
    watched.watch.resume(now)
    watched.watch.resume(now)
    assert watched.news == [(OURS, PowerState.STOPPED, "gone while libvirt was away")]


def test_a_word_that_a_newer_libvirt_may_add_is_passed_as_its_number(watched: Watched) -> None:
    watched.watch.resume([a_domain()])
    watched.watch.observe(OURS, libvirt.VIR_DOMAIN_EVENT_STOPPED, 99)
    assert watched.news == [(OURS, PowerState.STOPPED, "detail 99")]


@pytest.mark.parametrize(
    ("code", "domain", "expected"),
    [
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, HypervisorUnavailable),
        (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_STORAGE, SpawnFailed),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC, HypervisorUnavailable),
        (libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_QEMU, SpawnFailed),
        (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_FROM_DOMAIN, DomainConflict),
        (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_FROM_QEMU, SpawnFailed),
        (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_FROM_DOMAIN, HypervisorBusy),
        (libvirt.VIR_ERR_XML_DETAIL, libvirt.VIR_FROM_DOMAIN, InvalidDomainConfig),
        (None, None, SpawnFailed),
    ],
)
def test_code_and_error_domain_decide_together(
    code: int | None, domain: int | None, expected: type[LauncherError]
) -> None:
    assert named(code, domain, SpawnFailed) is expected


@pytest.mark.parametrize(
    ("state", "reason", "power"),
    [
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED, PowerState.RUNNING),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER, PowerState.PAUSED),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP, PowerState.STOPPED),
        (libvirt.VIR_DOMAIN_SHUTDOWN, libvirt.VIR_DOMAIN_SHUTDOWN_USER, PowerState.STOPPED),
    ],
)
def test_what_is_still_starting_does_not_run(state: int, reason: int, power: PowerState) -> None:
    assert power_of(state, reason) is power
