"""Instances: launched, described, ended."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from launcher.errors import BadRequest, Conflict, NotFound, QuotaExceeded
from launcher.messages import instances as messages
from launcher.models import Instance, ShutdownBehaviour
from launcher.services.api.ec2 import finding, ids, states
from launcher.services.api.ec2.instance_shapes import Reservation, Running, reservations, running
from launcher.services.api.ec2.operation import TAG_FILTERS, Ask, Listing, Operation, Paged, plain
from launcher.services.api.ec2.query import Ignored, Parameters, Refused, Request
from launcher.services.api.ec2.refusals import Refusal, bad_value
from launcher.services.api.ec2.shapes import Detail, Summary, moment
from launcher.services.api.ec2.states import State
from launcher.services.api.ec2.tags import TagSpecification, specified
from launcher.services.api.ec2.world import World
from launcher.services.api.ec2.xml import Moment

NO_VOLUMES = "there are no volumes at launch yet"
NO_CHOICE = "there is one kind"


class Placement(Parameters):
    availability_zone: str | None = None
    tenancy: Annotated[str | None, Ignored("every instance shares its host")] = None
    group_name: Annotated[str | None, Refused("there are no placement groups")] = None


class Monitoring(Parameters):
    enabled: Annotated[bool, Ignored("the host is always watched")] = False


class Ebs(Parameters):
    volume_size: Annotated[int | None, Ignored("a root disk has its instance type's size")] = None
    volume_type: Annotated[str | None, Ignored(NO_CHOICE)] = None
    delete_on_termination: Annotated[bool, Ignored("a root disk ends with its instance")] = True
    snapshot_id: Annotated[str | None, Refused(NO_VOLUMES)] = None
    encrypted: Annotated[bool, Refused("disks are not encrypted", harmless="false")] = False


class BlockDevice(Parameters):
    device_name: str | None = None
    no_device: Annotated[str | None, Ignored("there is no such device anyway")] = None
    virtual_name: Annotated[str | None, Refused("there are no ephemeral disks")] = None
    ebs: Ebs | None = None


class RunInstances(Request):
    """Launch instances."""

    image_id: str
    min_count: Annotated[int, Field(ge=1, le=1000)]
    max_count: Annotated[int, Field(ge=1, le=1000)]
    client_token: Annotated[str | None, Field(max_length=64, pattern=r"^[ -~]+$")] = None
    instance_type: str = "m1.small"
    key_name: str | None = None
    user_data: Annotated[str | None, Field(description="base64")] = None
    security_group: tuple[str, ...] = ()
    security_group_id: tuple[str, ...] = ()
    subnet_id: str | None = None
    private_ip_address: str | None = None
    placement: Placement = Placement()
    tag_specification: tuple[TagSpecification, ...] = ()
    block_device_mapping: tuple[BlockDevice, ...] = ()
    disable_api_termination: bool = False
    instance_initiated_shutdown_behavior: Literal["stop", "terminate"] = "stop"
    monitoring: Annotated[Monitoring, Ignored("the host is always watched")] = Monitoring()
    addressing_type: Annotated[str | None, Ignored("every instance has a private address")] = None
    ebs_optimized: Annotated[bool | None, Ignored(NO_CHOICE)] = None
    kernel_id: Annotated[str | None, Refused("an image names its kernel")] = None
    ramdisk_id: Annotated[str | None, Refused("an image names its ramdisk")] = None

    @model_validator(mode="after")
    def _no_second_disk(self) -> RunInstances:
        if len(self.block_device_mapping) > 1:
            raise ValueError(f"one device can be named, the root disk: {NO_VOLUMES}")
        return self


class DescribeInstances(Paged):
    """Instances by their reservations; a terminated one for an hour."""

    instance_id: tuple[str, ...] = ()


class TerminateInstances(Request):
    """End instances, for good. All of them or, where one is not there, none."""

    instance_id: Annotated[tuple[str, ...], Field(min_length=1)]


class DescribeInstanceStatus(Paged):
    """Whether instances run; without `IncludeAllInstances` of running ones only."""

    instance_id: tuple[str, ...] = ()
    include_all_instances: bool = False


class GetConsoleOutput(Request):
    """The end of an instance's console log."""

    instance_id: str
    latest: Annotated[bool, Ignored("it is always the latest")] = False


class Described(NamedTuple):
    reservation_set: tuple[Reservation, ...]
    next_token: str | None = None


class Change(NamedTuple):
    instance_id: str
    current_state: State
    previous_state: State


class Changed(NamedTuple):
    instances_set: tuple[Change, ...]


class Status(NamedTuple):
    instance_id: str
    availability_zone: str
    instance_state: State
    system_status: Summary
    instance_status: Summary


class Statuses(NamedTuple):
    instance_status_set: tuple[Status, ...]
    next_token: str | None = None


class Console(NamedTuple):
    instance_id: str
    timestamp: Moment
    output: str


INSTANCE_FILTERS = {
    **plain(
        [
            *("image_id", "instance_id", "instance_type", "key_name", "kernel_id", "launch_time", "private_dns_name"),
            *(
                "private_ip_address",
                "ramdisk_id",
                "reservation_id",
                "subnet_id",
                "vpc_id",
                "architecture",
                "hypervisor",
            ),
            *("root_device_name", "root_device_type", "virtualization_type", "owner_id", "dns_name", "hypervisor"),
        ]
    ),
    "availability-zone": "placement.availability_zone",
    "tenancy": "placement.tenancy",
    "instance-state-name": "instance_state.name",
    "instance-state-code": "instance_state.code",
    "instance.group-id": "group_set.group_id",
    "instance.group-name": "group_set.group_name",
    "group-id": "group_set.group_id",
    "group-name": "group_set.group_name",
    "ip-address": "ip_address",
    "launch-index": "ami_launch_index",
    "state-reason-code": "state_reason.code",
    "network-interface.network-interface-id": "network_interface_set.network_interface_id",
    "network-interface.mac-address": "network_interface_set.mac_address",
    "network-interface.subnet-id": "network_interface_set.subnet_id",
    "network-interface.vpc-id": "network_interface_set.vpc_id",
    "network-interface.addresses.private-ip-address": "network_interface_set.private_ip_address",
    **TAG_FILTERS,
}
STATUS_FILTERS = {
    **plain(["availability_zone", "instance_id"]),
    "instance-state-name": "instance_state.name",
    "instance-state-code": "instance_state.code",
    "instance-status.status": "instance_status.status",
    "instance-status.reachability": "instance_status.details.status",
    "system-status.status": "system_status.status",
    "system-status.reachability": "system_status.details.status",
}


async def run_instances(ask: Ask, request: RunInstances) -> Reservation:
    if request.min_count > request.max_count:
        raise bad_value("MinCount", request.min_count, "It is larger than MaxCount.")
    world = await World.look(ask)
    image = finding.image(world.images.values(), request.image_id)
    zone = request.placement.availability_zone
    if zone is not None and zone not in {host.availability_zone for host in world.hosts.values()}:
        raise Refusal("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
    tags = specified(request.tag_specification, "instance", "volume", "network-interface")
    made = await ask.change(
        messages.CreateInstances(
            image=image.id,
            flavor=request.instance_type,
            name=finding.name_of(tags),
            key_name=request.key_name,
            min_count=request.min_count,
            max_count=request.max_count,
            security_groups=finding.groups(world.groups.values(), request.security_group, request.security_group_id),
            networks=finding.nics(world.networks.values(), request.subnet_id, request.private_ip_address),
            user_data=request.user_data,
            availability_zone=zone,
            metadata=tags,
            shutdown_behaviour=ShutdownBehaviour(request.instance_initiated_shutdown_behavior),
            protected=request.disable_api_termination,
            idempotency_key=request.client_token,
        )
    )
    return reservations([running(each, world) for each in made])[0]


async def find_instances(ask: Ask, request: Any) -> Sequence[Running]:
    found = await finding.instances(ask, request.instance_id)
    world = await World.look(ask)
    return [running(each, world) for each in found]


async def terminate_instances(ask: Ask, request: TerminateInstances) -> Changed:
    found = await finding.instances(ask, request.instance_id)
    ended = [await ask.change(messages.DeleteInstance(instance_id=each.id)) for each in found]
    return Changed(tuple(map(change, ended, found)))


async def find_statuses(ask: Ask, request: DescribeInstanceStatus) -> Sequence[Status]:
    found = await finding.instances(ask, request.instance_id)
    world = await World.look(ask)
    shown = [_status(each, world) for each in found]
    return [each for each in shown if request.include_all_instances or each.instance_state is states.RUNNING]


async def get_console_output(ask: Ask, request: GetConsoleOutput) -> Console:
    (found,) = await finding.instances(ask, [request.instance_id])
    said = await ask.look(messages.GetConsoleOutput(instance_id=found.id, max_bytes=65536))
    return Console(request.instance_id, moment(ask.now_ms), base64.b64encode(said.encode()).decode())


def change(now: Instance, before: Instance) -> Change:
    return Change(ids.INSTANCE.id(now.number), states.of(now), states.of(before))


def _status(instance: Instance, world: World) -> Status:
    state = states.of(instance)
    word = "ok" if state is states.RUNNING else "initializing" if state is states.PENDING else "not-applicable"
    passed = {"ok": "passed", "initializing": "initializing"}.get(word)
    summary = Summary(word, (Detail("reachability", passed),) if passed else ())
    return Status(ids.INSTANCE.id(instance.number), world.zone(instance), state, summary, summary)


OPERATIONS = (
    Operation(
        RunInstances,
        Reservation,
        run_instances,
        {
            (NotFound, "key_name"): "InvalidKeyPair.NotFound",
            (NotFound, "security_groups"): "InvalidGroup.NotFound",
            (NotFound, "networks"): "InvalidSubnetID.NotFound",
            (Conflict, "Idempotency-Key"): "IdempotentParameterMismatch",
            (Conflict, "networks"): "InvalidIPAddress.InUse",
            (QuotaExceeded, "security_groups"): "SecurityGroupsPerInstanceLimitExceeded",
            (QuotaExceeded, "metadata"): "TagLimitExceeded",
            (BadRequest, "user_data"): "InvalidUserData.Malformed",
            QuotaExceeded: "InstanceLimitExceeded",
        },
    ),
    Listing(
        DescribeInstances,
        Described,
        find_instances,
        INSTANCE_FILTERS,
        ("instance_id",),
        named=("instance_id",),
        wrap=reservations,
    ).operation(),
    Operation(TerminateInstances, Changed, terminate_instances, {Conflict: "OperationNotPermitted"}),
    Listing(
        DescribeInstanceStatus, Statuses, find_statuses, STATUS_FILTERS, ("instance_id",), named=("instance_id",)
    ).operation(),
    Operation(GetConsoleOutput, Console, get_console_output, changes=False),
)
