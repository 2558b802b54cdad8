"""A copy of a running domain's root disk, as it is at one moment, by QEMU's own backup job. Blocks, in threads.

The guest writes on meanwhile: what it overwrites is copied first. The copy is whole and stands on nothing, whatever the
disk stands on. libvirt knows of the job, so one that an earlier process has left is found, and ended.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import libvirt

from launcher.drivers.virt.life import of_generation
from launcher.errors import DriverError, InsufficientSpace
from launcher.models import LaunchOrder

ROOT = "vda"


def begin(connection: libvirt.virConnect, *, order: LaunchOrder, target: Path) -> None:
    """Raises NotFound when no domain of this generation runs."""
    handle, _ = of_generation(connection, order)
    handle.backupBegin(_description(target), None, 0)


def is_done(connection: libvirt.virConnect, *, order: LaunchOrder) -> bool:
    """Whether the copy is whole. Raises DriverError when it will not be, InsufficientSpace, NotFound."""
    handle, _ = of_generation(connection, order)
    if handle.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
        return False
    ended = handle.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
    if ended.get("type") == libvirt.VIR_DOMAIN_JOB_COMPLETED:
        return True
    why = ended.get("errmsg", "it was ended")
    if "No space left" in why:
        raise InsufficientSpace(f"{order.name}: no space left for the copy of its disk", hint="free space there")
    raise DriverError(f"{order.name}: its disk could not be copied: {why}")


def is_idle(connection: libvirt.virConnect, *, order: LaunchOrder) -> bool:
    """Ask a copy that is under way to end; whether none is. Raises NotFound."""
    handle, _ = of_generation(connection, order)
    job = handle.jobStats()
    if job["type"] == libvirt.VIR_DOMAIN_JOB_NONE:
        return True
    if job.get("operation") == libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP:
        handle.abortJob()
    return False


def _description(target: Path) -> str:
    backup = Element("domainbackup", mode="push")
    disk = SubElement(SubElement(backup, "disks"), "disk", name=ROOT, backup="yes", type="file")
    SubElement(disk, "target", file=str(target))
    SubElement(disk, "driver", type="qcow2")
    return ElementTree.tostring(backup, encoding="unicode")
