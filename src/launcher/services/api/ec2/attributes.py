"""One property of an instance at a time."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from launcher.messages.instances import GetGuestMetadata
from launcher.models import GuestMetadata, Instance, VmState
from launcher.services.api.ec2 import finding, ids
from launcher.services.api.ec2.instance_shapes import ROOT, Device, devices
from launcher.services.api.ec2.operation import Ask, Operation
from launcher.services.api.ec2.query import Request
from launcher.services.api.ec2.shapes import GroupName
from launcher.services.api.ec2.world import World

Attribute = Literal[
    "instanceType",
    "kernel",
    "ramdisk",
    "userData",
    "disableApiTermination",
    "instanceInitiatedShutdownBehavior",
    "rootDeviceName",
    "blockDeviceMapping",
    "productCodes",
    "sourceDestCheck",
    "groupSet",
    "ebsOptimized",
]


class DescribeInstanceAttribute(Request):
    """Tell one property of an instance."""

    instance_id: str
    attribute: Annotated[Attribute, Field(description="its name")]


class Text(NamedTuple):
    value: str | None


class Flag(NamedTuple):
    value: bool


class Attributes(NamedTuple):
    """Of which one is told."""

    instance_id: str
    instance_type: Text | None = None
    kernel: Text | None = None
    ramdisk: Text | None = None
    user_data: Text | None = None
    disable_api_termination: Flag | None = None
    instance_initiated_shutdown_behavior: Text | None = None
    root_device_name: Text | None = None
    block_device_mapping: tuple[Device, ...] | None = None
    product_codes: tuple[str, ...] | None = None
    source_dest_check: Flag | None = None
    group_set: tuple[GroupName, ...] | None = None
    ebs_optimized: Flag | None = None


async def describe_instance_attribute(ask: Ask, request: DescribeInstanceAttribute) -> Attributes:
    (instance,) = await finding.instances(ask, [request.instance_id])
    blank = Attributes(ids.INSTANCE.id(instance.number))
    if request.attribute == "userData":
        told = await _guest(ask, instance)
        return blank._replace(user_data=Text(told.user_data if told else None))
    world = await World.look(ask)
    kernel, ramdisk = world.kernel(instance)
    known: dict[str, dict[str, Any]] = {
        "instanceType": {"instance_type": Text(instance.flavor.name)},
        "kernel": {"kernel": Text(kernel)},
        "ramdisk": {"ramdisk": Text(ramdisk)},
        "disableApiTermination": {"disable_api_termination": Flag(instance.protected)},
        "instanceInitiatedShutdownBehavior": {
            "instance_initiated_shutdown_behavior": Text(instance.shutdown_behaviour)
        },
        "blockDeviceMapping": {"block_device_mapping": devices(instance, world)},
        "groupSet": {"group_set": world.group_names(instance.security_groups)},
        **_SAME,
    }
    return blank._replace(**known[request.attribute])


async def _guest(ask: Ask, instance: Instance) -> GuestMetadata | None:
    """What only the guest reads; nothing when it is gone."""
    if instance.vm_state is VmState.DELETED:
        return None
    return await ask.look(GetGuestMetadata(instance_id=instance.id))


_SAME: dict[str, dict[str, Any]] = {
    "rootDeviceName": {"root_device_name": Text(ROOT)},
    "productCodes": {"product_codes": ()},
    "sourceDestCheck": {"source_dest_check": Flag(True)},
    "ebsOptimized": {"ebs_optimized": Flag(False)},
}
"""What is the same of every instance."""

OPERATIONS = (Operation(DescribeInstanceAttribute, Attributes, describe_instance_attribute, changes=False),)
