"""What is done to a running domain: asked to end, paused, written to a file and taken from there. Blocks, in threads.

The domains are transient, so libvirt's managed save is not theirs; a file of ours serves as well. It is written
beside and renamed, so bearing its name it is whole. libvirt marks one that was cut off, and does not go on from it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import libvirt

from launcher.drivers.virt import domain_xml, domains
from launcher.drivers.virt.driver import Domain
from launcher.errors import NotFound
from launcher.models import InstanceRef, LaunchOrder, PowerState


def shut_down(connection: libvirt.virConnect, *, order: InstanceRef) -> None:
    """As by ACPI's power button."""
    seen = domains.look(connection, order.instance_id)
    if seen is not None and seen.domain is not None and seen.domain.power is PowerState.RUNNING:
        with _ending():
            seen.handle.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)


def pause(connection: libvirt.virConnect, *, order: LaunchOrder) -> None:
    handle, domain = of_generation(connection, order)
    if domain.power is PowerState.RUNNING:
        handle.suspend()


def unpause(connection: libvirt.virConnect, *, order: LaunchOrder) -> None:
    handle, domain = of_generation(connection, order)
    if domain.power is PowerState.PAUSED:
        handle.resume()


def suspend(
    connection: libvirt.virConnect, *, order: LaunchOrder, memory: Path, announce: Callable[[], object]
) -> None:
    """`announce` is called before the domain ends. Raises NotFound when there is neither a domain nor a file."""
    draft = memory.with_suffix(".new")
    if domains.find(connection, instance_id=order.instance_id) is not None:
        handle, _ = of_generation(connection, order)
        draft.unlink(missing_ok=True)
        announce()
        handle.saveFlags(str(draft), None, 0)
    if draft.exists() and _is_whole(connection, draft):
        draft.replace(memory)
    if not memory.exists():
        raise NotFound(f"{order.name}: there is no domain to suspend")


def resume(connection: libvirt.virConnect, *, order: LaunchOrder, memory: Path, announce: Callable[[], object]) -> None:
    """The file is used up. What is in it bears the generation that it was written at; it goes on as this one."""
    found = domains.find(connection, instance_id=order.instance_id)
    if found is None or found.generation != order.generation:
        xml = _renewed(connection.saveImageGetXMLDesc(str(memory), libvirt.VIR_DOMAIN_XML_SECURE), order)
        announce()
        connection.restoreFlags(str(memory), xml, libvirt.VIR_DOMAIN_SAVE_RUNNING)
    forget(memory)


def forget(memory: Path) -> None:
    memory.unlink(missing_ok=True)
    memory.with_suffix(".new").unlink(missing_ok=True)


def of_generation(connection: libvirt.virConnect, order: LaunchOrder) -> tuple[libvirt.virDomain, Domain]:
    """Raises NotFound when it does not run in this one."""
    seen = domains.look(connection, order.instance_id)
    if seen is None or seen.domain is None or seen.domain.generation != order.generation:
        raise NotFound(f"{order.name}: there is no such domain on this host")
    return seen.handle, seen.domain


def _is_whole(connection: libvirt.virConnect, file: Path) -> bool:
    try:
        connection.saveImageGetXMLDesc(str(file), 0)
    except libvirt.libvirtError:
        return False
    return True


def _renewed(xml: str, order: LaunchOrder) -> str:
    domain = ElementTree.fromstring(xml)  # noqa: S314 - libvirt wrote it
    mark = domain.find(f"metadata/{{{domain_xml.NAMESPACE}}}instance")
    assert mark is not None, "only domains of ours are written"
    mark.set("generation", str(order.generation))
    return ElementTree.tostring(domain, encoding="unicode")


@contextlib.contextmanager
def _ending() -> Iterator[None]:
    """It may end by itself in the same moment."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            raise
