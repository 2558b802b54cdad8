"""The choice of a host for a new volume; pure."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.errors import NoHostYet, NoValidHost
from launcher.models import HostState
from launcher.volumes import VolumeOrder


def roomiest(order: VolumeOrder, hosts: Sequence[HostState]) -> HostState:
    """The one with the most room for volumes, in the zone if one was asked for. Raises NoValidHost.

    A volume takes its room as it is written to, so one that is larger than what is free now is no mistake.
    """
    if not hosts:
        raise NoHostYet("no compute host has reported yet", hint="see `launcher host list`")
    zone = order.availability_zone
    there = [host for host in hosts if zone in (None, host.availability_zone)]
    if not there:
        raise NoValidHost(f"{order.name}: no live host is in zone {zone}", hint="see `launcher host list`")
    return max(there, key=lambda host: (host.volumes_free_mb, host.name))
