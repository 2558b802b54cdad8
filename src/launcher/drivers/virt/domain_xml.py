"""The domain's XML, from an order and its files; pure. Built as a tree, so nothing a user wrote can become markup.

Where an element is not obvious, the reason was measured on libvirt 9.0 and QEMU 7.2 under TCG:

- `cpu mode='maximum'` gives RDRAND, without which the first boot waits a second for entropy.
- one serial port that is a pty with a log: the console can be used and read from a file at the same time.
- no USB, no balloon, no option ROM for the NIC: each costs memory or boot time and nobody asked for it.
- `tb-cache` bounds the memory of TCG's translated code to a quarter of the guest's, at least 32 MiB.
- an interface of type `ethernet` takes a tap that exists already, so root and ordinary users go the same way.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from launcher.drivers.virt import disk_xml
from launcher.drivers.virt.driver import Disks
from launcher.errors import InvalidDomainConfig
from launcher.models import ImageFormat, InstanceId, LaunchOrder, Machine

NAMESPACE = "urn:launcher:instance:1"
COMMAND_LINE = "root=/dev/vda console=ttyS0 quiet"
LEAST_TB_CACHE_MB = 32
FIRMWARE, FIRMWARE_STATE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
"""Debian's package ovmf; without Secure Boot, which would need a machine with SMM."""
SPARE_PORTS = 4
"""PCI Express has no room for what comes while a guest runs, except in ports made before."""
RESCUED, RESCUED_SERIAL = "vdy", "own-root"  # behind its volumes: these keep their devices
CONFIG_DRIVE = "vdz"  # behind all others; its guest finds it by its label

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

ElementTree.register_namespace("launcher", NAMESPACE)


class Mark(NamedTuple):
    """What our metadata element says; a domain without it is not ours."""

    instance_id: InstanceId
    number: int
    generation: int
    launcher: str = ""


def build(order: LaunchOrder, disks: Disks, *, virt_type: str, launcher: str = "") -> str:
    """Raises InvalidDomainConfig for a character that XML cannot carry (a control character in `kernel_args`)."""
    domain = Element("domain", type=virt_type)
    _text(domain, "name", order.name)
    _text(domain, "uuid", order.instance_id)
    _add_mark(domain, Mark(order.instance_id, order.number, order.generation, launcher))
    _text(domain, "memory", str(order.flavor.memory_mb), unit="MiB")
    _text(domain, "vcpu", str(order.flavor.vcpus))
    _add_boot(domain, order, disks)
    _add_processor(domain, order, virt_type)
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    _add_devices(SubElement(domain, "devices"), order, disks)
    return _written(domain, order)


def read_mark(metadata: str) -> Mark | None:
    """The mark in what libvirt returns for our namespace; None when somebody made up the element."""
    element = ElementTree.fromstring(metadata)  # noqa: S314 - libvirt parsed and wrote it
    found = element.attrib
    try:
        return Mark(found["id"], int(found["number"]), int(found["generation"]), found.get("launcher", ""))
    except (KeyError, ValueError):
        return None


def _add_mark(domain: Element, mark: Mark) -> None:
    element = SubElement(
        SubElement(domain, "metadata"),
        f"{{{NAMESPACE}}}instance",
        id=mark.instance_id,
        number=str(mark.number),
        generation=str(mark.generation),
    )
    if mark.launcher:
        element.set("launcher", mark.launcher)


def _add_boot(domain: Element, order: LaunchOrder, disks: Disks) -> None:
    """A kernel of its own beside the disk (Nova's triple), or whatever the disk's boot sector starts."""
    boot = SubElement(domain, "os")
    kind = {} if order.image.machine is Machine.PC else {"machine": str(order.image.machine)}
    _text(boot, "type", "hvm", **kind)
    if disks.firmware_state is not None:
        _text(boot, "loader", str(FIRMWARE), readonly="yes", type="pflash")
        _text(boot, "nvram", str(disks.firmware_state), template=str(FIRMWARE_STATE))
    if disks.kernel is None:
        SubElement(boot, "boot", dev="hd")
        return
    _text(boot, "kernel", str(disks.kernel))
    if disks.ramdisk is not None:
        _text(boot, "initrd", str(disks.ramdisk))
    _text(boot, "cmdline", f"{COMMAND_LINE} {order.image.kernel_args}".strip())


def _add_processor(domain: Element, order: LaunchOrder, virt_type: str) -> None:
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    if virt_type == "qemu":
        cache_mb = max(LEAST_TB_CACHE_MB, order.flavor.memory_mb // 4)
        _text(SubElement(features, "tcg"), "tb-cache", str(cache_mb), unit="MiB")
    SubElement(domain, "cpu", mode="maximum" if virt_type == "qemu" else "host-passthrough")


def _add_devices(devices: Element, order: LaunchOrder, disks: Disks) -> None:
    SubElement(devices, "controller", type="usb", model="none")
    SubElement(devices, "memballoon", model="none")
    if order.image.machine is Machine.Q35:
        SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
        for _ in range(SPARE_PORTS):
            SubElement(devices, "controller", type="pci", model="pcie-root-port")

    writable = [path for path in (disks.root, disks.ephemeral, disks.swap) if path is not None]
    for letter, path in zip("abc", writable, strict=False):
        _add_disk(devices, path, f"vd{letter}", disks.root_format)
    if disks.rescued is not None:
        own = _add_disk(devices, disks.rescued, RESCUED, disks.rescued_format)
        SubElement(own, "serial").text = RESCUED_SERIAL
    devices.extend(map(disk_xml.build, disks.volumes))
    if disks.config_drive is not None:
        SubElement(_add_disk(devices, disks.config_drive, CONFIG_DRIVE, ImageFormat.RAW), "readonly")

    for position, nic in enumerate(order.nics):
        interface = SubElement(devices, "interface", type="ethernet")
        SubElement(interface, "mac", address=nic.mac)
        SubElement(interface, "target", dev=order.tap_of(position), managed="no")
        SubElement(interface, "model", type="virtio")
        SubElement(interface, "rom", enabled="no")

    serial = SubElement(devices, "serial", type="pty")
    SubElement(serial, "log", file=str(disks.console_log), append="off")
    SubElement(serial, "target", port="0")


def _add_disk(devices: Element, path: Path, device: str, format: ImageFormat) -> Element:
    disk = SubElement(devices, "disk", type="file", device="disk")
    SubElement(disk, "driver", name="qemu", type=format)
    SubElement(disk, "source", file=str(path))
    SubElement(disk, "target", dev=device, bus="virtio")
    return disk


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text


def _written(domain: Element, order: LaunchOrder) -> str:
    ElementTree.indent(domain)
    xml = ElementTree.tostring(domain, encoding="unicode") + "\n"
    if odd := _NOT_XML.search(xml):
        raise InvalidDomainConfig(
            f"{order.name}: the character {odd.group()!r} cannot stand in a domain's XML",
            hint="look at the image's kernel_args and at the configured paths",
        )
    return xml
