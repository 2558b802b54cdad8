"""To the controller about volumes: what users ask, and what the hosts that have them report. To a host: one order."""

from __future__ import annotations

from pydantic import Field

from launcher.accounts import UserRole
from launcher.messaging import Call, Cast
from launcher.models import Generation, InstanceId, Name
from launcher.volumes import (
    LARGEST_GB,
    Description,
    Device,
    Metadata,
    Snapshot,
    Volume,
    VolumeDisk,
    VolumeId,
    VolumeOrder,
    VolumeStatus,
)


class CreateVolume(Call[Volume]):
    """Accept a volume: quota and row in one transaction. Without a source it is empty and reads as zeros.

    It is made on a host: on that of the snapshot it is made of, on that of the instance it is `near`, else on the one
    that the scheduler chooses. Without a size it has that of what it is made of. Raises QuotaExceeded, NotFound,
    BadRequest when what it is made of does not fit, Conflict when that is not available.
    """

    topic = "controller"
    name: Name | None = None
    description: Description = ""
    metadata: Metadata = Field(default_factory=dict)
    size_gb: int | None = Field(default=None, ge=1, le=LARGEST_GB)
    snapshot: str | None = None
    image: str | None = None
    availability_zone: str | None = None
    near: str | None = None
    idempotency_key: str | None = Field(default=None, description="a repetition returns the same volume")


class ListVolumes(Call[list[Volume]]):
    """The project's, in order of creation."""

    topic = "controller"
    needs = UserRole.READER
    all_projects: bool = False
    deleted: bool = False


class GetVolume(Call[Volume]):
    topic = "controller"
    needs = UserRole.READER
    volume: str = Field(description="its id, or a unique name in the project")


class AttachVolume(Call[Volume]):
    """Let an instance have it, running or stopped. Repeating it is success.

    Raises Conflict when it, the instance or the device is not free for that, or when they are on different hosts.
    """

    topic = "controller"
    volume: str
    instance: str
    device: Device | None = Field(default=None, description="without it, the first free one")
    delete_on_termination: bool = False


class DetachVolume(Call[Volume]):
    """Take it away from its instance. Repeating it is success; with `force` the machine is reset without it.

    Raises Conflict when it is attached to another than `instance`, or is an instance's root.
    """

    topic = "controller"
    volume: str
    instance: str | None = None
    force: bool = False


class ExtendVolume(Call[Volume]):
    """Make it larger, attached or not. Raises QuotaExceeded, BadRequest when it is as large already, Conflict."""

    topic = "controller"
    volume: str
    size_gb: int = Field(ge=1, le=LARGEST_GB)


class DeleteVolume(Call[Volume]):
    """Its content is gone for good. Repeating it is success. Raises Conflict with who holds it."""

    topic = "controller"
    volume: str


class CreateSnapshot(Call[Snapshot]):
    """Keep what is in a volume now. One in use only with `force`: its machine is paused while it is copied.

    Raises QuotaExceeded, Conflict.
    """

    topic = "controller"
    volume: str
    name: Name | None = None
    description: Description = ""
    metadata: Metadata = Field(default_factory=dict)
    force: bool = False


class ListSnapshots(Call[list[Snapshot]]):
    """The project's, in order of creation."""

    topic = "controller"
    needs = UserRole.READER
    all_projects: bool = False
    deleted: bool = False


class GetSnapshot(Call[Snapshot]):
    topic = "controller"
    needs = UserRole.READER
    snapshot: str


class DeleteSnapshot(Call[Snapshot]):
    """Volumes that were made of it keep what they have. Raises Conflict while one is being made of it."""

    topic = "controller"
    snapshot: str


# --- to the controller, from the hosts ---------------------------------------------------------------


class ClaimVolume(Call[None]):
    """A host is about to end what is under way with a volume: the first time, the volume becomes this host's.

    Raises StaleGeneration when it has moved on; then the work is dropped.
    """

    topic = "controller"
    volume_id: VolumeId
    generation: Generation
    status: VolumeStatus
    host: str


class ReportVolumeDone(Call[None]):
    """What was under way is done. Raises StaleGeneration."""

    topic = "controller"
    volume_id: VolumeId
    generation: Generation
    status: VolumeStatus
    host: str


class ReportVolumeFault(Call[None]):
    """It failed, and nothing is left of the attempt. Raises StaleGeneration."""

    topic = "controller"
    volume_id: VolumeId
    generation: Generation
    status: VolumeStatus
    host: str | None
    code: str
    message: str
    hint: str = ""
    retriable: bool


class GetAttachments(Call[list[VolumeDisk]]):
    """The volumes that a machine is to have when it starts, as things stand. Raises StaleGeneration."""

    topic = "controller"
    instance_id: InstanceId
    generation: Generation


# --- to a compute host -------------------------------------------------------------------------------


class WorkOnVolume(Cast):
    """End what is under way with a volume or snapshot, from wherever an earlier attempt was cut off."""

    topic = "compute"
    order: VolumeOrder

    @property
    def subject(self) -> InstanceId | None:
        """No launch's trace has it."""
        return None


# --- to the scheduler --------------------------------------------------------------------------------


class ScheduleVolume(Cast):
    """Choose a host for a new volume and cast the order on to it."""

    topic = "scheduler"
    order: VolumeOrder

    @property
    def subject(self) -> InstanceId | None:
        """No launch's trace has it."""
        return None
