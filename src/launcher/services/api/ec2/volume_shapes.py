"""Volumes and snapshots as EC2 tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

from launcher.models import HostState
from launcher.services.api.ec2 import ids
from launcher.services.api.ec2.shapes import TagSet, moment, tag_set
from launcher.services.api.ec2.world import zone
from launcher.services.api.ec2.xml import Moment, Since
from launcher.volumes import Snapshot, Volume, VolumeStatus

ENDS, KINDS, ENCRYPTION, SEVERAL = "2009-10-31", "2012-07-20", "2014-05-01", "2016-11-15"
"""The versions with which volumes got these."""
KIND, ONE_KIND = "standard", "there is one kind of volume"
SHOWN = {VolumeStatus.CREATING, VolumeStatus.DELETING, VolumeStatus.DELETED, VolumeStatus.ERROR}
"""Statuses that have the same words; in every other one a volume is in use or available."""
PLUGGED = {VolumeStatus.ATTACHING: "attaching", VolumeStatus.DETACHING: "detaching"}
KEPT = {VolumeStatus.CREATING: "pending", VolumeStatus.ERROR: "error"}
"""Of snapshots; every other one is completed."""


class Attached(NamedTuple):
    """Which instance has a volume. While its guest does not let go of it, it is `busy`."""

    volume_id: str
    instance_id: str
    device: str
    status: str
    attach_time: Moment
    delete_on_termination: Annotated[bool, Since(ENDS)]


class VolumeItem(NamedTuple):
    volume_id: str
    size: int
    snapshot_id: str
    availability_zone: str
    status: str
    create_time: Moment
    attachment_set: tuple[Attached, ...]
    tag_set: TagSet
    volume_type: Annotated[str, Since(KINDS)]
    encrypted: Annotated[bool, Since(ENCRYPTION)]
    multi_attach_enabled: Annotated[bool, Since(SEVERAL)]


class SnapshotItem(NamedTuple):
    snapshot_id: str
    volume_id: str
    status: str
    start_time: Moment
    progress: str
    owner_id: str
    volume_size: int
    description: str
    tag_set: TagSet
    encrypted: Annotated[bool, Since(ENCRYPTION)]


def told(volume: Volume, hosts: Mapping[str, HostState]) -> VolumeItem:
    return VolumeItem(
        volume_id=ids.VOLUME.id(volume.number),
        size=volume.size_gb,
        snapshot_id=ids.SNAPSHOT.id(volume.snapshot_number) if volume.snapshot_number else "",
        availability_zone=zone(volume, hosts),
        status=status(volume),
        create_time=moment(volume.created_ms),
        attachment_set=(attached(volume),) if volume.attachment else (),
        tag_set=tag_set(volume.metadata),
        volume_type=KIND,
        encrypted=False,
        multi_attach_enabled=False,
    )


def status(volume: Volume) -> str:
    """In use when its instance has it, and until that has let go: clients wait for both."""
    if volume.status in SHOWN:
        return volume.status
    free = volume.attachment is None or volume.status is VolumeStatus.ATTACHING
    return VolumeStatus.AVAILABLE if free else VolumeStatus.IN_USE


def attached(volume: Volume) -> Attached:
    """Of one that has an attachment."""
    there = volume.attachment
    assert there is not None
    stuck = volume.status is VolumeStatus.DETACHING and volume.fault is not None
    return Attached(
        volume_id=ids.VOLUME.id(volume.number),
        instance_id=ids.INSTANCE.id(there.instance_number),
        device=f"/dev/{there.device}",
        status="busy" if stuck else PLUGGED.get(volume.status, "attached"),
        attach_time=moment(there.attached_ms or volume.state_since_ms),
        delete_on_termination=there.delete_on_termination,
    )


class Modification(NamedTuple):
    """The last extension of a volume."""

    volume_id: str
    modification_state: str
    status_message: str
    target_size: int
    original_size: int
    target_volume_type: str
    original_volume_type: str
    progress: int
    start_time: Moment


def modified(volume: Volume) -> Modification:
    """Of one that was ever extended. What failed left it as it was."""
    last = volume.extension
    assert last is not None
    done = volume.size_gb >= last.to_gb
    running = volume.status is VolumeStatus.EXTENDING
    return Modification(
        volume_id=ids.VOLUME.id(volume.number),
        modification_state="completed" if done else "modifying" if running else "failed",
        status_message=volume.fault.message if volume.fault and not done else "",
        target_size=last.to_gb,
        original_size=last.from_gb,
        target_volume_type=KIND,
        original_volume_type=KIND,
        progress=100 if done else 0,
        start_time=moment(last.began_ms),
    )


def kept(snapshot: Snapshot) -> SnapshotItem:
    state = KEPT.get(snapshot.status, "completed")
    return SnapshotItem(
        snapshot_id=ids.SNAPSHOT.id(snapshot.number),
        volume_id=ids.VOLUME.id(snapshot.volume_number),
        status=state,
        start_time=moment(snapshot.created_ms),
        progress="100%" if state == "completed" else "0%",
        owner_id=snapshot.project_id,
        volume_size=snapshot.size_gb,
        description=snapshot.description,
        tag_set=tag_set(snapshot.metadata),
        encrypted=False,
    )
