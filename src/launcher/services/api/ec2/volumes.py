"""Volumes: made, described, given to instances and taken from them, deleted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from launcher.errors import Conflict, NotFound, QuotaExceeded, WrongState
from launcher.messages import catalogue
from launcher.messages import volumes as messages
from launcher.models import HostState
from launcher.services.api.ec2 import finding, ids, volume_shapes
from launcher.services.api.ec2.operation import TAG_FILTERS, Ask, Listing, Operation, Paged, plain
from launcher.services.api.ec2.query import Ignored, Refused, Request
from launcher.services.api.ec2.refusals import Refusal, bad_value
from launcher.services.api.ec2.shapes import Detail, Summary
from launcher.services.api.ec2.tags import TagSpecification, specified
from launcher.services.api.ec2.volume_shapes import ONE_KIND, Attached, VolumeItem
from launcher.services.api.ec2.xml import Done, Named
from launcher.volumes import LARGEST_GB, Snapshot, Volume, VolumeStatus

DEVICE = re.compile(r"(?:/dev/)?(?:sd|vd|xvd|hd)([b-y])")


class CreateVolume(Request):
    """Make a volume, empty or of a snapshot, in whose zone it then is."""

    availability_zone: str
    size: Annotated[int | None, Field(ge=1, le=LARGEST_GB, description="GiB")] = None
    snapshot_id: str | None = None
    client_token: Annotated[str | None, Field(max_length=64, pattern=r"^[ -~]+$")] = None
    tag_specification: tuple[TagSpecification, ...] = ()
    volume_type: Annotated[str | None, Ignored(ONE_KIND)] = None
    iops: Annotated[int | None, Ignored(ONE_KIND)] = None
    throughput: Annotated[int | None, Ignored(ONE_KIND)] = None
    encrypted: Annotated[bool, Refused("volumes are not encrypted", harmless="false")] = False
    multi_attach_enabled: Annotated[bool, Refused("one instance has it at a time", harmless="false")] = False
    kms_key_id: Annotated[str | None, Refused("volumes are not encrypted")] = None
    outpost_arn: Annotated[str | None, Refused("there are no outposts")] = None

    @model_validator(mode="after")
    def _size_or_snapshot(self) -> CreateVolume:
        if self.size is None and self.snapshot_id is None:
            raise ValueError("The request must contain the parameter size or snapshotId")
        return self


class DescribeVolumes(Paged):
    """Volumes and which instances have them."""

    volume_id: tuple[str, ...] = ()


class DeleteVolume(Request):
    """Delete a volume that nobody has, for good."""

    volume_id: str


class AttachVolume(Request):
    """Give a volume to an instance, running or stopped, on the same host."""

    volume_id: str
    instance_id: str
    device: Annotated[str, Field(description="the last letter counts: `/dev/sdf` is `/dev/vdf` here")]


class DetachVolume(Request):
    """Take a volume from its instance. With `Force` the machine is reset if its guest does not let go."""

    volume_id: str
    instance_id: str | None = None
    device: str | None = None
    force: bool = False


class DescribeVolumeStatus(Paged):
    """Whether volumes can be used."""

    volume_id: tuple[str, ...] = ()


class DescribeVolumeAttribute(Request):
    """Tell one property of a volume."""

    volume_id: str
    attribute: Literal["autoEnableIO", "productCodes"]


class Volumes(NamedTuple):
    volume_set: tuple[VolumeItem, ...]
    next_token: str | None = None


class Status(NamedTuple):
    volume_id: str
    availability_zone: str
    volume_status: Summary
    events_set: tuple[str, ...] = ()
    actions_set: tuple[str, ...] = ()


class Statuses(NamedTuple):
    volume_status_set: tuple[Status, ...]
    next_token: str | None = None


class Flag(NamedTuple):
    value: bool


class Attributes(NamedTuple):
    """Of which one is told."""

    volume_id: str
    auto_enable_io: Annotated[Flag | None, Named("autoEnableIO")] = None
    product_codes: tuple[str, ...] | None = None


async def create_volume(ask: Ask, request: CreateVolume) -> VolumeItem:
    hosts = await _hosts(ask)
    if request.availability_zone not in {host.availability_zone for host in hosts.values()}:
        raise Refusal("InvalidZone.NotFound", f"The zone '{request.availability_zone}' does not exist.")
    source = await _source(ask, request, hosts) if request.snapshot_id else None
    tags = specified(request.tag_specification, "volume")
    made = await ask.change(
        messages.CreateVolume(
            name=finding.name_of(tags),
            metadata=tags,
            size_gb=request.size,
            snapshot=source.id if source else None,
            availability_zone=request.availability_zone,
            idempotency_key=request.client_token,
        )
    )
    return volume_shapes.told(made, hosts)


async def _source(ask: Ask, request: CreateVolume, hosts: Mapping[str, HostState]) -> Snapshot:
    """A snapshot's content is on its host."""
    (found,) = await finding.snapshots(ask, [request.snapshot_id or ""])
    host = hosts.get(found.host or "")
    if host is not None and host.availability_zone != request.availability_zone:
        raise bad_value("AvailabilityZone", request.availability_zone, f"It is in {host.availability_zone}.")
    return found


async def find_volumes(ask: Ask, request: Any) -> Sequence[VolumeItem]:
    found = await finding.volumes(ask, request.volume_id)
    hosts = await _hosts(ask)
    return [volume_shapes.told(each, hosts) for each in found]


async def delete_volume(ask: Ask, request: DeleteVolume) -> Done:
    (volume,) = await finding.volumes(ask, [request.volume_id])
    await ask.change(messages.DeleteVolume(volume=volume.id))
    return Done()


async def attach_volume(ask: Ask, request: AttachVolume) -> Attached:
    (volume,) = await finding.volumes(ask, [request.volume_id])
    (instance,) = await finding.instances(ask, [request.instance_id])
    device = DEVICE.fullmatch(request.device)
    if device is None:
        raise bad_value("device", request.device, f"{request.device} is not a valid device name.")
    if volume.attachment is not None:
        raise Refusal("VolumeInUse", f"{request.volume_id} is already attached to an instance")
    now = await ask.change(messages.AttachVolume(volume=volume.id, instance=instance.id, device=f"vd{device[1]}"))
    return volume_shapes.attached(now)


async def detach_volume(ask: Ask, request: DetachVolume) -> Attached:
    (volume,) = await finding.volumes(ask, [request.volume_id])
    if request.instance_id is not None:
        await finding.instances(ask, [request.instance_id])
    if volume.attachment is None:
        state = volume_shapes.status(volume)
        raise Refusal("IncorrectState", f"Volume '{request.volume_id}' is in the '{state}' state.")
    there = volume_shapes.attached(volume)
    device = DEVICE.fullmatch(request.device) if request.device else None
    if request.instance_id not in (None, there.instance_id) or (device and device[1] != there.device[-1]):
        raise Refusal("InvalidAttachment.NotFound", f"The volume '{request.volume_id}' is not attached there.")
    now = await ask.change(
        messages.DetachVolume(volume=volume.id, instance=volume.attachment.instance_id, force=request.force)
    )
    return volume_shapes.attached(now if now.attachment else volume)._replace(status="detaching")


async def find_statuses(ask: Ask, request: Any) -> Sequence[Status]:
    found = await finding.volumes(ask, request.volume_id)
    hosts = await _hosts(ask)
    return [_status(each, volume_shapes.told(each, hosts)) for each in found if each.status not in UNTOLD]


UNTOLD = (VolumeStatus.CREATING, VolumeStatus.DELETING)


def _status(volume: Volume, item: VolumeItem) -> Status:
    word, passed = ("impaired", "failed") if volume.status is VolumeStatus.ERROR else ("ok", "passed")
    return Status(item.volume_id, item.availability_zone, Summary(word, (Detail("io-enabled", passed),)))


async def describe_volume_attribute(ask: Ask, request: DescribeVolumeAttribute) -> Attributes:
    await finding.volumes(ask, [request.volume_id])
    told = {"autoEnableIO": {"auto_enable_io": Flag(False)}, "productCodes": {"product_codes": ()}}
    return Attributes(request.volume_id, **told[request.attribute])  # type: ignore[arg-type]


async def _hosts(ask: Ask) -> dict[str, HostState]:
    return {host.name: host for host in await ask.look(catalogue.ListHosts())}


VOLUME_FILTERS = {
    **plain(["availability_zone", "create_time", "encrypted", "multi_attach_enabled", "size", "snapshot_id", "status"]),
    **plain(["volume_id", "volume_type"]),
    "attachment.attach-time": "attachment_set.attach_time",
    "attachment.delete-on-termination": "attachment_set.delete_on_termination",
    "attachment.device": "attachment_set.device",
    "attachment.instance-id": "attachment_set.instance_id",
    "attachment.status": "attachment_set.status",
    **TAG_FILTERS,
}
STATUS_FILTERS = {
    **plain(["availability_zone"]),
    "volume-status.status": "volume_status.status",
    "volume-status.details-name": "volume_status.details.name",
    "volume-status.details-status": "volume_status.details.status",
}
OPERATIONS = (
    Operation(
        CreateVolume,
        VolumeItem,
        create_volume,
        {
            (NotFound, "snapshot"): "InvalidSnapshot.NotFound",
            (Conflict, "Idempotency-Key"): "IdempotentParameterMismatch",
            QuotaExceeded: "VolumeLimitExceeded",
        },
    ),
    Listing(DescribeVolumes, Volumes, find_volumes, VOLUME_FILTERS, ("volume_id",), named=("volume_id",)).operation(),
    Operation(
        DeleteVolume,
        Done,
        delete_volume,
        {WrongState: "IncorrectState", Conflict: "VolumeInUse", NotFound: ids.VOLUME.unknown},
    ),
    Operation(
        AttachVolume,
        Attached,
        attach_volume,
        {
            WrongState: "IncorrectState",
            (Conflict, "volume"): "VolumeInUse",
            (Conflict, "host"): "InvalidVolume.ZoneMismatch",
            (Conflict, "device"): "InvalidParameterValue",
            NotFound: ids.INSTANCE.unknown,
        },
    ),
    Operation(
        DetachVolume,
        Attached,
        detach_volume,
        {(Conflict, "device"): "OperationNotPermitted", NotFound: ids.VOLUME.unknown},
    ),
    Listing(
        DescribeVolumeStatus, Statuses, find_statuses, STATUS_FILTERS, ("volume_id",), named=("volume_id",)
    ).operation(),
    Operation(DescribeVolumeAttribute, Attributes, describe_volume_attribute, changes=False),
)
