"""What is done to domains through an open connection. Everything here blocks and runs in a thread of its own lane."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import libvirt

from launcher.drivers.virt import domain_xml
from launcher.drivers.virt.driver import Domain
from launcher.drivers.virt.power import power_of
from launcher.errors import DomainConflict, HypervisorBusy, NotFound, StaleGeneration
from launcher.models import Diagnostics, InstanceId, InstanceRef, LaunchOrder, PowerState

GONE_CHECKS, GONE_PAUSE = 5, 0.2
"""How often the end of a domain is checked, and the seconds between two checks."""


class Seen(NamedTuple):
    """A domain as libvirt has it, and what it is to us."""

    handle: libvirt.virDomain
    domain: Domain | None
    """None when the domain is a stranger's."""


def capacity(connection: libvirt.virConnect) -> tuple[int, int]:
    """Processors and MiB of memory. getInfo's memory leaves out what was hot-plugged (4.5 of 24 GiB, seen)."""
    memory = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS, 0)
    return connection.getInfo()[2], memory[libvirt.VIR_NODE_MEMORY_STATS_TOTAL] // 1024


def census(connection: libvirt.virConnect) -> list[Domain]:
    """Our domains by name. One that ends while we look is left out: libvirt lists ghosts."""
    seen = (_described(handle) for handle in connection.listAllDomains(0))
    return sorted((item.domain for item in seen if item and item.domain), key=lambda domain: domain.name)


def find(connection: libvirt.virConnect, *, instance_id: InstanceId) -> Domain | None:
    seen = look(connection, instance_id)
    return seen.domain if seen else None


def ensure_started(
    connection: libvirt.virConnect, *, order: LaunchOrder, xml: str, announce: Callable[[], object]
) -> None:
    """Leave exactly this generation running: what runs already stays, what is older of ours is replaced.

    `announce` is called before anything is changed, so before any event of it.

    Domains are transient: nothing is defined, so a reboot of the host leaves no stale definition behind.
    Raises StaleGeneration when a newer one runs, DomainConflict when a stranger has our uuid.
    """
    seen = look(connection, order.instance_id)
    if seen is not None:
        found = seen.domain
        if found is None:
            raise DomainConflict(f"{order.name}: the domain with uuid {order.instance_id} is not ours")
        if found.generation > order.generation:
            raise StaleGeneration(f"{order.name}: generation {found.generation} runs, {order.generation} is older")
        if found.generation == order.generation and found.power is not PowerState.STOPPED:
            return
    announce()
    if seen is not None:
        ensure_gone(connection, order=order)
    connection.createXML(xml, 0)


def ensure_gone(connection: libvirt.virConnect, *, order: InstanceRef) -> None:
    """Return when no domain of ours has this id; raises HypervisorBusy when it stays.

    The end is looked at, not assumed: libvirt may answer "not found" to a destroy that is still at work
    (seen right after the embedded driver was opened).
    """
    for _ in range(GONE_CHECKS):
        seen = look(connection, order.instance_id)
        if seen is None or seen.domain is None:
            return
        _end(seen.handle)
        if find(connection, instance_id=order.instance_id) is None:
            return
        time.sleep(GONE_PAUSE)
    raise HypervisorBusy(f"{order.name}: the domain is still there after {GONE_CHECKS} attempts to destroy it")


def diagnose(connection: libvirt.virConnect, *, order: LaunchOrder) -> Diagnostics:
    seen = look(connection, order.instance_id)
    if seen is None or seen.domain is None:
        raise NotFound(f"{order.name}: there is no such domain on this host")
    _, _, memory_kib, _, cpu_time_ns = seen.handle.info()
    return Diagnostics(power=seen.domain.power, cpu_time_ms=cpu_time_ns // 1_000_000, memory_mb=memory_kib // 1024)


def look(connection: libvirt.virConnect, instance_id: InstanceId) -> Seen | None:
    """A domain with this id, whosever it is."""
    try:
        return _described(connection.lookupByUUIDString(instance_id))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _described(handle: libvirt.virDomain) -> Seen | None:
    """What a domain is to us; None when it ended under our eyes. A copy of ours has its own uuid and is not ours."""
    try:
        metadata = handle.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, domain_xml.NAMESPACE, 0)
        power = power_of(*handle.state())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return Seen(handle, None)
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
    mark = domain_xml.read_mark(metadata)
    if mark is None or mark.instance_id != handle.UUIDString():
        return Seen(handle, None)
    return Seen(handle, Domain(**mark._asdict(), name=handle.name(), power=power))


def _end(handle: libvirt.virDomain) -> None:
    """Stop it; somebody may have made it persistent (`virsh define`), so that too is taken back."""
    try:
        if handle.isActive():
            handle.destroy()
        if handle.isPersistent():
            handle.undefine()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            raise
