"""An instance as EC2 tells it."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Annotated, NamedTuple

from launcher.models import Instance, Nic
from launcher.services.api.ec2 import ids, states, volume_shapes
from launcher.services.api.ec2.shapes import GROUP_IDS, INTERFACES, TAGS, VPC, GroupName, TagSet, moment, tag_set
from launcher.services.api.ec2.states import Reason, State
from launcher.services.api.ec2.world import World
from launcher.services.api.ec2.xml import UNTOLD, Moment, Since

ROOT = "/dev/vda"
MONITORING, REASONS, DETAILS = "2009-04-04", "2009-10-31", "2011-02-28"


class Placement(NamedTuple):
    availability_zone: str
    group_name: Annotated[str, Since(DETAILS)] = ""
    tenancy: Annotated[str, Since(DETAILS)] = "default"


class Monitored(NamedTuple):
    state: str


class Public(NamedTuple):
    public_ip: str
    public_dns_name: str
    ip_owner_id: str


class PrivateAddress(NamedTuple):
    private_ip_address: str
    primary: bool
    association: Public | None


class Attachment(NamedTuple):
    attachment_id: str
    device_index: int
    status: str
    attach_time: Moment
    delete_on_termination: bool


class InterfaceOf(NamedTuple):
    """A NIC."""

    network_interface_id: str
    subnet_id: str | None
    vpc_id: str | None
    owner_id: str
    status: str
    mac_address: str
    private_ip_address: str | None
    private_dns_name: str | None
    source_dest_check: bool
    group_set: tuple[GroupName, ...]
    attachment: Attachment
    association: Public | None
    private_ip_addresses_set: tuple[PrivateAddress, ...]


class Ebs(NamedTuple):
    volume_id: str
    status: str
    attach_time: Moment
    delete_on_termination: bool


class Device(NamedTuple):
    """A volume that the instance has. Its root disk is none, and ends with it."""

    device_name: str
    ebs: Ebs


class Running(NamedTuple):
    """An instance. What stands behind `Reservation` belongs to all of its launch."""

    instance_id: str
    image_id: str
    instance_state: State
    private_dns_name: str
    dns_name: str
    reason: str
    key_name: str | None
    ami_launch_index: int
    product_codes: tuple[str, ...]
    instance_type: str
    launch_time: Moment
    placement: Placement
    kernel_id: str | None
    ramdisk_id: str | None
    monitoring: Annotated[Monitored, Since(MONITORING)]
    subnet_id: Annotated[str | None, Since(VPC)]
    vpc_id: Annotated[str | None, Since(VPC)]
    private_ip_address: Annotated[str | None, Since(REASONS)]
    ip_address: Annotated[str | None, Since(REASONS)]
    source_dest_check: Annotated[bool, Since(VPC)]
    group_set: Annotated[tuple[GroupName, ...], Since(GROUP_IDS)]
    state_reason: Annotated[Reason | None, Since(REASONS)]
    architecture: Annotated[str, Since(REASONS)]
    root_device_type: Annotated[str, Since(REASONS)]
    root_device_name: Annotated[str, Since(REASONS)]
    block_device_mapping: Annotated[tuple[Device, ...], Since(REASONS)]
    virtualization_type: Annotated[str, Since(TAGS)]
    client_token: Annotated[str, Since(TAGS)]
    tag_set: TagSet
    hypervisor: Annotated[str, Since(GROUP_IDS)]
    network_interface_set: Annotated[tuple[InterfaceOf, ...], Since(INTERFACES)]
    ebs_optimized: Annotated[bool, Since("2012-07-20")]
    owner_id: Annotated[str, UNTOLD]
    reservation_id: Annotated[str, UNTOLD]


class Reservation(NamedTuple):
    """What one launch made."""

    reservation_id: str
    owner_id: str
    group_set: tuple[GroupName, ...]
    instances_set: tuple[Running, ...]
    requester_id: Annotated[str | None, Since(REASONS)] = None


def reservations(found: Sequence[Running]) -> list[Reservation]:
    """In the order in which the first of each comes."""
    grouped: dict[str, list[Running]] = {}
    for each in found:
        grouped.setdefault(each.reservation_id, []).append(each)
    return [Reservation(name, those[0].owner_id, those[0].group_set, tuple(those)) for name, those in grouped.items()]


def running(instance: Instance, world: World) -> Running:
    groups, (kernel, ramdisk) = world.group_names(instance.security_groups), world.kernel(instance)
    state, why = states.of(instance), states.reason(instance)
    alive = state not in (states.TERMINATED, states.SHUTTING_DOWN)
    nics = instance.nics if alive else ()
    first = nics[0] if nics else None
    network = world.networks.get(first.network or "") if first else None
    address = first.address if first else None
    public = world.public(instance, address)
    return Running(
        instance_id=ids.INSTANCE.id(instance.number),
        image_id=ids.of_image("ami", instance.image_id),
        instance_state=state,
        private_dns_name=f"{instance.hostname}.{network.domain}" if network and address else "",
        dns_name=str(public or ""),
        reason=why.message if why and not alive else "",
        key_name=instance.key_name,
        ami_launch_index=instance.launch_index,
        product_codes=(),
        instance_type=instance.flavor.name,
        launch_time=moment(instance.created_ms),
        placement=Placement(world.zone(instance)),
        kernel_id=kernel,
        ramdisk_id=ramdisk,
        monitoring=Monitored("disabled"),
        subnet_id=ids.SUBNET.id(network.id) if network else None,
        vpc_id=ids.VPC.id(network.id) if network else None,
        private_ip_address=str(address) if address else None,
        ip_address=str(public) if public else None,
        source_dest_check=True,
        group_set=groups,
        state_reason=why,
        architecture="x86_64",
        root_device_type="instance-store",
        root_device_name=ROOT,
        block_device_mapping=devices(instance, world),
        virtualization_type="hvm",
        client_token="",
        tag_set=tag_set(instance.metadata),
        hypervisor="xen",
        network_interface_set=tuple(
            interface(instance, world, index, nic, groups) for index, nic in enumerate(nics) if nic.address
        ),
        ebs_optimized=False,
        owner_id=instance.project_id,
        reservation_id=instance.reservation_id,
    )


def devices(instance: Instance, world: World) -> tuple[Device, ...]:
    """In the order of their names."""
    those = (volume_shapes.attached(each) for each in world.volumes.get(instance.id, ()))
    found = [Device(at.device, Ebs(at.volume_id, at.status, at.attach_time, at.delete_on_termination)) for at in those]
    return tuple(sorted(found))


def interface(instance: Instance, world: World, index: int, nic: Nic, groups: tuple[GroupName, ...]) -> InterfaceOf:
    network = world.networks.get(nic.network or "")
    name = f"{instance.hostname}.{network.domain}" if network else None
    seen = _public(world, instance, nic.address)
    attached = Attachment(
        f"eni-attach-{ids.of_interface(nic.mac)[4:]}", index, "attached", moment(instance.created_ms), True
    )
    return InterfaceOf(
        network_interface_id=ids.of_interface(nic.mac),
        subnet_id=ids.SUBNET.id(network.id) if network else None,
        vpc_id=ids.VPC.id(network.id) if network else None,
        owner_id=instance.project_id,
        status="in-use",
        mac_address=nic.mac,
        private_ip_address=str(nic.address),
        private_dns_name=name,
        source_dest_check=True,
        group_set=groups,
        attachment=attached,
        association=seen,
        private_ip_addresses_set=(PrivateAddress(str(nic.address), True, seen),),
    )


def _public(world: World, instance: Instance, fixed: IPv4Address | None) -> Public | None:
    address = world.public(instance, fixed)
    return Public(str(address), str(address), instance.project_id) if address else None
