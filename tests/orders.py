"""Launch orders and leases for tests; every field has a value, any may be changed."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from launcher.models import (
    Flavor,
    GuestMetadata,
    HostState,
    Image,
    ImageFormat,
    ImageKind,
    Instance,
    LaunchOrder,
    Nic,
    VmState,
)
from launcher.networks import FixedIp, Network, NetworkMode
from launcher.policy import Policy, SecurityGroup

NETWORK = Network(
    name="default",
    mode=NetworkMode.FLAT_DHCP,
    bridge="br100",
    cidr=IPv4Network("10.0.0.0/24"),
    gateway=IPv4Address("10.0.0.1"),
)
TINY = Flavor(name="m1.tiny", vcpus=1, memory_mb=512, root_gb=0)


def instance_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def make_image(**changes: Any) -> Image:
    values: dict[str, Any] = {
        "id": "11111111-0000-4000-8000-000000000001",
        "name": "ami-tiny",
        "kind": ImageKind.MACHINE,
        "format": ImageFormat.RAW,
        "size": 1 << 24,
        "virtual_size": 1 << 24,
        "sha256": "0" * 64,
        "path": Path("/library/ami-tiny/disk"),
    }
    return Image(**{**values, **changes})


def make_order(number: int = 1, **changes: Any) -> LaunchOrder:
    values: dict[str, Any] = {
        "instance_id": instance_id(number),
        "number": number,
        "generation": 1,
        "project_id": "admin",
        "hostname": f"server-{number}",
        "nics": (Nic(mac=f"02:16:3e:00:{number >> 8:02x}:{number & 255:02x}"),),
        "flavor": TINY,
        "image": make_image(),
    }
    return LaunchOrder(**{**values, **changes})


def make_instance(number: int = 1, **changes: Any) -> Instance:
    """A running one, as its owner sees it."""
    order = make_order(number)
    values: dict[str, Any] = {
        **order.model_dump(include={"number", "generation", "project_id", "hostname", "flavor"}),
        "id": order.instance_id,
        "user_id": "u",
        "name": order.hostname,
        "status": "ACTIVE",
        "vm_state": VmState.ACTIVE,
        "task_state": None,
        "state_since_ms": 0,
        "host": "node-1",
        "nics": order.nics,
        "image_id": order.image.id,
        "image_name": order.image.name,
        "key_name": None,
        "security_groups": ("default",),
        "availability_zone": "nova",
        "metadata": {},
        "reservation_id": "r-00000001",
        "launch_index": 0,
        "created_ms": 0,
        "launched_ms": 1,
        "fault": None,
        "trace_id": "0" * 31 + "1",
    }
    return Instance(**{**values, **changes})


def make_told(instance: Instance | None = None, **changes: Any) -> GuestMetadata:
    """What the controller tells of a guest."""
    values: dict[str, Any] = {
        "instance": instance or make_instance(),
        "region": "RegionOne",
        "availability_zone": "nova",
        "public_key": None,
        "kernel_id": None,
        "ramdisk_id": None,
        "user_data": None,
    }
    return GuestMetadata(**{**values, **changes})


def make_lease(order: LaunchOrder, address: str = "10.0.0.3", network: Network = NETWORK, *, nic: int = 0) -> FixedIp:
    mac = order.nics[nic].mac
    return FixedIp(
        instance_id=order.instance_id,
        nic=nic,
        address=IPv4Address(address),
        address6=network.address6_of(mac),
        mac=mac,
        hostname=order.hostname,
        network=network,
    )


def make_launch(
    number: int, *groups: SecurityGroup, address: str | None = None, network: Network = NETWORK
) -> tuple[LaunchOrder, list[FixedIp], Policy]:
    """What a packet filter is told of an instance with one NIC."""
    order = make_order(number)
    lease = make_lease(order, address or str(network.cidr[number + 2]), network)
    return order, [lease], Policy(groups=groups)


def make_host(name: str = "node-1", **changes: Any) -> HostState:
    values: dict[str, Any] = {
        "name": name,
        "availability_zone": "nova",
        "boot_id": "b",
        "vcpus": 4,
        "memory_mb": 8192,
        "disk_free_mb": 10_000,
        "vcpus_used": 0,
        "memory_used_mb": 0,
        "instances": 0,
        "virt_type": "qemu",
        "virt_reason": "",
        "seen_ms": 0,
    }
    return HostState(**{**values, **changes})
