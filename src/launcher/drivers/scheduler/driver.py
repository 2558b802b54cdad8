"""The contract of the schedulers: a pure choice among known hosts, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from launcher.errors import NoHostYet, NoValidHost
from launcher.models import HostState, LaunchOrder


class SchedulerDriver(Protocol):
    def select(self, order: LaunchOrder, hosts: Sequence[HostState]) -> HostState:
        """One of `hosts`, which are all alive. Raises NoValidHost with a line per refused host."""


def fitting(order: LaunchOrder, hosts: Sequence[HostState]) -> list[HostState]:
    """The hosts with room for the order's flavor; raises NoValidHost saying what each lacks.

    A host whose disk was full at its last heartbeat is passed over for others; if all were, the chosen one says so.
    """
    if not hosts:
        raise NoHostYet("no compute host has reported yet", hint="see `launcher host list`")
    lacks = {host.name: lack for host in hosts if (lack := _lack(order, host))}
    if len(lacks) == len(hosts):
        raise NoValidHost(
            f"{order.name}: no host has room: " + "; ".join(f"{name}: {lack}" for name, lack in lacks.items()),
            hint="delete an instance or take a smaller flavor",
        )
    fit = [host for host in hosts if host.name not in lacks]
    return [host for host in fit if host.disk_free_mb > 0] or fit


def _lack(order: LaunchOrder, host: HostState) -> str:
    free_mb = host.memory_mb - host.memory_used_mb
    if order.flavor.memory_mb > free_mb:
        return f"{order.flavor.memory_mb} MB of memory needed, {free_mb} MB free"
    return ""
