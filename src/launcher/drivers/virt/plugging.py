"""Volumes of running domains, through an open connection. Everything here blocks: call it in a thread."""

from __future__ import annotations

import libvirt

from launcher.drivers.virt import disk_xml, domains
from launcher.drivers.virt.driver import Plugged
from launcher.errors import DomainConflict, NotFound
from launcher.models import InstanceId, InstanceRef


def plug(connection: libvirt.virConnect, *, order: InstanceRef, disk: Plugged) -> None:
    """What is there stays. Raises NotFound when the machine does not run, DomainConflict when the device is taken."""
    handle = _running(connection, order)
    there = disk_xml.read(handle.XMLDesc())
    if disk.name in there:
        return
    if disk.device in there.values():
        raise DomainConflict(f"{order.name}: /dev/{disk.device} is another volume's")
    handle.attachDeviceFlags(disk_xml.written(disk), libvirt.VIR_DOMAIN_AFFECT_LIVE)


def begin_unplugging(connection: libvirt.virConnect, *, order: InstanceRef, name: str) -> bool:
    """Ask the guest to let go of it; whether it still has it when this returns."""
    handle = _found(connection, order)
    if handle is None or name not in disk_xml.read(handle.XMLDesc()):
        return False
    try:
        handle.detachDeviceAlias(disk_xml.PREFIX + name, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as error:
        gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_DEVICE_MISSING)
        if error.get_error_code() in (*gone, libvirt.VIR_ERR_OPERATION_INVALID):
            return has(connection, order=order, name=name)
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_FAILED:
            raise  # that one: it was asked already and has not answered yet
    return has(connection, order=order, name=name)


def has(connection: libvirt.virConnect, *, order: InstanceRef, name: str) -> bool:
    handle = _found(connection, order)
    return handle is not None and name in disk_xml.read(handle.XMLDesc())


def resize(connection: libvirt.virConnect, *, order: InstanceRef, name: str, size: int) -> None:
    """Never smaller: libvirt would cut it off."""
    handle = _running(connection, order)
    device = disk_xml.read(handle.XMLDesc()).get(name)
    if device is None:
        raise NotFound(f"{order.name} has no {name}")
    if handle.blockInfo(device)[0] < size:
        handle.blockResize(device, size, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)


def pause(connection: libvirt.virConnect, *, order: InstanceRef) -> bool:
    """Whether it ran; then nothing is on its way to a disk any more."""
    handle = _found(connection, order)
    if handle is None or handle.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
        return False
    handle.suspend()
    return True


def go_on(connection: libvirt.virConnect, *, order: InstanceRef) -> None:
    handle = _found(connection, order)
    if handle is not None and handle.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
        handle.resume()


def list_plugged(connection: libvirt.virConnect) -> dict[InstanceId, tuple[str, ...]]:
    """Of our domains; one that ends while we look has nothing."""
    found = {}
    for domain in domains.census(connection):
        handle = _found(connection, InstanceRef(instance_id=domain.instance_id, number=domain.number))
        try:
            found[domain.instance_id] = tuple(disk_xml.read(handle.XMLDesc())) if handle else ()
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return found


def _running(connection: libvirt.virConnect, order: InstanceRef) -> libvirt.virDomain:
    handle = _found(connection, order)
    if handle is None:
        raise NotFound(f"{order.name}: there is no such domain on this host")
    return handle


def _found(connection: libvirt.virConnect, order: InstanceRef) -> libvirt.virDomain | None:
    """A domain of ours only."""
    seen = domains.look(connection, order.instance_id)
    return seen.handle if seen is not None and seen.domain is not None else None
