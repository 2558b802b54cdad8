"""A volume as a disk of a domain, written and read; pure.

Its alias names it (libvirt keeps those that begin with `ua-`), so that the hypervisor's own description says which
volume a machine has. Its serial is the beginning of the volume's id: a guest finds it as /dev/disk/by-id/virtio-SERIAL,
whatever letter its kernel gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from launcher.drivers.virt.driver import Plugged

PREFIX = "ua-"
SERIAL_LENGTH = 20
"""What virtio-blk has room for."""


def build(disk: Plugged) -> Element:
    kind, source = ("block", "dev") if disk.block else ("file", "file")
    element = Element("disk", type=kind, device="disk")
    SubElement(element, "driver", name="qemu", type=disk.format, discard="unmap")
    SubElement(element, "source", {source: str(disk.path)})
    SubElement(element, "target", dev=disk.device, bus="virtio")
    SubElement(element, "serial").text = disk.serial[:SERIAL_LENGTH]
    SubElement(element, "alias", name=PREFIX + disk.name)
    return element


def written(disk: Plugged) -> str:
    return ElementTree.tostring(build(disk), encoding="unicode")


def read(domain: str) -> Mapping[str, str]:
    """The devices of the volumes that a domain has, by the volumes' names."""
    root = ElementTree.fromstring(domain)  # noqa: S314 - libvirt wrote it
    found = {}
    for disk in root.iterfind("./devices/disk"):
        alias, target = disk.find("alias"), disk.find("target")
        if alias is not None and target is not None and alias.get("name", "").startswith(PREFIX):
            found[alias.get("name", "").removeprefix(PREFIX)] = target.get("dev", "")
    return found
