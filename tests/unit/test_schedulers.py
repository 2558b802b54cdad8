"""The schedulers are pure: tables of hosts in, one host out."""

from __future__ import annotations

from random import Random

import pytest

from launcher.drivers.scheduler.chance import ChanceScheduler
from launcher.drivers.scheduler.driver import SchedulerDriver
from launcher.drivers.scheduler.simple import SimpleScheduler
from launcher.drivers.scheduler.zone import ZoneScheduler
from launcher.errors import NoHostYet, NoValidHost
from tests.orders import make_host, make_order

ALL: list[SchedulerDriver] = [
    ChanceScheduler(rng=Random(1)),
    ZoneScheduler(rng=Random(1)),
    SimpleScheduler(max_vcpus=16),
]


@pytest.mark.parametrize("driver", ALL)
def test_without_any_host_it_is_worth_waiting(driver: SchedulerDriver) -> None:
    with pytest.raises(NoHostYet):
        driver.select(make_order(), [])


@pytest.mark.parametrize("driver", ALL)
def test_a_full_host_is_never_chosen_and_the_refusal_has_numbers(driver: SchedulerDriver) -> None:
    full = make_host("full", memory_mb=1000, memory_used_mb=600)
    assert driver.select(make_order(), [full, make_host("free")]).name == "free"
    with pytest.raises(NoValidHost, match="full: 512 MB of memory needed, 400 MB free"):
        driver.select(make_order(), [full])


@pytest.mark.parametrize("driver", ALL)
def test_a_host_without_space_is_passed_over_while_there_are_others(driver: SchedulerDriver) -> None:
    full, free = make_host("full", disk_free_mb=0), make_host("free")
    assert {driver.select(make_order(), [full, free]).name for _ in range(20)} == {"free"}
    assert driver.select(make_order(), [full]).name == "full"


def test_chance_takes_every_host_now_and_then() -> None:
    driver, hosts = ChanceScheduler(rng=Random(7)), [make_host(name) for name in "abc"]
    assert {driver.select(make_order(), hosts).name for _ in range(50)} == {"a", "b", "c"}


def test_zone_stays_within_the_zone_asked_for() -> None:
    driver = ZoneScheduler(rng=Random(7))
    hosts = [make_host("a", availability_zone="left"), make_host("b", availability_zone="right")]
    assert {driver.select(make_order(availability_zone="right"), hosts).name for _ in range(20)} == {"b"}
    assert {driver.select(make_order(), hosts).name for _ in range(50)} == {"a", "b"}
    with pytest.raises(NoValidHost, match="no live host in zone 'top'; there are: left, right"):
        driver.select(make_order(availability_zone="top"), hosts)


def test_simple_takes_the_least_loaded_and_stops_at_its_limit() -> None:
    driver = SimpleScheduler(max_vcpus=4)
    hosts = [make_host("busy", vcpus_used=4), make_host("calm", vcpus_used=3)]
    assert driver.select(make_order(), hosts).name == "calm"
    with pytest.raises(NoValidHost, match="too many cores"):
        driver.select(make_order(), [make_host("busy", vcpus_used=4)])
