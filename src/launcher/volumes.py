"""Volumes, disks with a life of their own, and snapshots of them. One row and one way of moving for both: a snapshot is
a volume that nobody attaches.

    creating ──► available ◄──► attaching ──► in-use ──► detaching ──► available
        │            │  ▲                      │  ▲
        └► error     │  └────── extending ─────┘  │        every status but `deleted` and a `deleting` one's own
             │       └────────────► deleting ──► deleted    can be what a kill leaves behind; the reconcile loop ends it
             └──────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, NamedTuple

from pydantic import Field, StringConstraints

from launcher.models import Fault, Generation, Image, InstanceId, LaunchOrder, Model
from launcher.tagging import TagKey, TagValue

VolumeId = InstanceId
Device = Annotated[str, StringConstraints(pattern=r"^vd[a-y]$")]
"""What the guest finds it under while the letters before it are in use; `vda` is its root, `vdz` a config drive."""
DEVICES = tuple(f"vd{letter}" for letter in "bcdefghijklmnopqrstuvwxy")
LARGEST_GB = 64 * 1024
Description = Annotated[str, StringConstraints(max_length=255)]
Metadata = Annotated[dict[TagKey, TagValue], Field(max_length=128)]
"""What EC2 calls tags."""


class VolumeStatus(StrEnum):
    """Cinder's words and EC2's meanings; moved only by conditional updates in `db/volumes.py`."""

    CREATING = "creating"
    AVAILABLE = "available"
    ATTACHING = "attaching"
    IN_USE = "in-use"
    DETACHING = "detaching"
    EXTENDING = "extending"
    DELETING = "deleting"
    DELETED = "deleted"
    ERROR = "error"


class Ending(NamedTuple):
    """What becomes of a volume when its host says it is done, and when it says that it never will be.

    `None` is back to rest, as it was: in use where it is attached, else available.
    """

    done: VolumeStatus | None
    failed: VolumeStatus | None


BEGINNINGS: Mapping[VolumeStatus, frozenset[VolumeStatus]] = {
    VolumeStatus.ATTACHING: frozenset({VolumeStatus.AVAILABLE}),
    VolumeStatus.DETACHING: frozenset({VolumeStatus.ATTACHING, VolumeStatus.IN_USE, VolumeStatus.DETACHING}),
    VolumeStatus.EXTENDING: frozenset({VolumeStatus.AVAILABLE, VolumeStatus.IN_USE}),
    VolumeStatus.DELETING: frozenset({VolumeStatus.CREATING, VolumeStatus.AVAILABLE, VolumeStatus.ERROR}),
}
"""What a user may ask for, and out of which statuses; each bumps the generation."""
ENDINGS: Mapping[VolumeStatus, Ending] = {
    VolumeStatus.CREATING: Ending(VolumeStatus.AVAILABLE, VolumeStatus.ERROR),
    VolumeStatus.ATTACHING: Ending(VolumeStatus.IN_USE, VolumeStatus.AVAILABLE),
    VolumeStatus.DETACHING: Ending(VolumeStatus.AVAILABLE, VolumeStatus.DETACHING),
    VolumeStatus.EXTENDING: Ending(None, None),
    VolumeStatus.DELETING: Ending(VolumeStatus.DELETED, VolumeStatus.DELETING),
}
"""What is under way is brought to an end by the host that has the volume; what may not fail is tried for ever."""
TRIED_FOR_EVER = frozenset(status for status, ending in ENDINGS.items() if ending.failed is status)


class VolumeRef(Model):
    """What its artefacts are named from."""

    volume_id: VolumeId
    number: int = Field(ge=1, le=0xFFFFFFFF, description="never used twice; of volumes and snapshots alike")
    snapshot: bool = False

    @property
    def name(self) -> str:
        return f"{'snapshot' if self.snapshot else 'volume'}-{self.number:08x}"


class Attachment(Model):
    """Where a volume is plugged in, or is about to be."""

    instance_id: InstanceId
    instance_number: int
    device: Device
    delete_on_termination: bool
    attached_ms: int | None = None


class Extension(Model):
    """The last one of a volume: what it had, and what it has since or is to have."""

    from_gb: int
    to_gb: int
    began_ms: int


class Stored(Model):
    """What a volume and a snapshot have in common: a row, and files on one host."""

    id: VolumeId
    number: int
    generation: int
    project_id: str
    user_id: str
    name: str
    description: str
    metadata: dict[str, str]
    status: VolumeStatus
    state_since_ms: int
    size_gb: int
    host: str | None


class Volume(Stored):
    """A volume as its owner sees it."""

    availability_zone: str | None
    snapshot_id: VolumeId | None = Field(default=None, description="what it was made of")
    snapshot_number: int | None = None
    image_id: str | None = Field(default=None, description="what it was made of; then an instance can boot from it")
    attachment: Attachment | None
    extension: Extension | None = None
    fault: Fault | None = Field(default=None, description="of the last thing that was tried")
    created_ms: int
    deleted_ms: int | None = None


class Snapshot(Stored):
    """A volume's content at one moment; it does not change and outlives the volume."""

    volume_id: VolumeId
    volume_number: int
    image_id: str | None = None
    fault: Fault | None = None
    created_ms: int
    deleted_ms: int | None = None


class VolumeOrder(VolumeRef):
    """All that a host needs to end what is under way: `status` says what that is."""

    generation: Generation
    status: VolumeStatus
    size_gb: int = Field(ge=1, le=LARGEST_GB, description="what it is to have when that is done")
    availability_zone: str | None = None
    source: VolumeRef | None = Field(default=None, description="a snapshot's volume, or a volume's snapshot")
    image: Image | None = None
    machine: LaunchOrder | None = Field(
        default=None, description="the instance that the volume, or a snapshot's source, is attached to"
    )
    device: Device | None = None
    force: bool = False


class VolumeDisk(Model):
    """A volume that a machine has while it runs."""

    ref: VolumeRef
    device: Device
