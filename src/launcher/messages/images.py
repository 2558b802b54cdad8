"""To the controller, from the API server: images, and the way to their bytes."""

from __future__ import annotations

from pydantic import Field

from launcher.accounts import UserRole
from launcher.images import (
    CatalogueImage,
    Checksum,
    ImageName,
    KnownImage,
    Properties,
    Pruned,
    Received,
    Sha256,
    Ticket,
)
from launcher.messaging import Call
from launcher.models import Firmware, Generation, ImageFormat, ImageKind, InstanceId, Machine, Model, Name


class ImageRequest(Properties):
    """What somebody asks for. `source` is "upload", "known:NAME" or a URL.

    `checksum` is one, or names a file beside the image that has it; without, the usual ones are looked for, and
    only with `verify` false may there be none. `refresh` asks again for what came from the same source before.
    """

    name: Name
    source: str = Field(min_length=1, max_length=2048)
    kind: ImageKind = ImageKind.MACHINE
    format: ImageFormat | None = Field(default=None, description="what it must turn out to be")
    checksum: Checksum | None = None
    checksum_source: str = Field(default="", max_length=2048, description="a file that has the checksum, or its URL")
    verify: bool = True
    refresh: bool = False


class CreateImage(Call[CatalogueImage]):
    """Begin an import. The same import begun twice is one. Raises QuotaExceeded, Forbidden, NotFound, BadRequest."""

    topic = "controller"
    request: ImageRequest


class CreateImageOf(Call[CatalogueImage]):
    """Begin to make a machine image of an instance's root disk as it is now; the instance runs on.

    The answer is the image, which is saving, while the instance has the task `image_snapshot`; then it is active, or in
    error with the reason. Raises WrongState, QuotaExceeded, Conflict.
    """

    topic = "controller"
    traced = True
    instance_id: str
    name: Name
    description: str = Field(default="", max_length=1024)


class OpenSnapshot(Call[Ticket | None]):
    """Where a host brings the bytes of the image that is being made of an instance; EndUpload says that they are there.

    None when they need not be brought (any more). Raises StaleGeneration.
    """

    topic = "controller"
    instance_id: InstanceId
    generation: Generation


class RegisterImage(Call[list[CatalogueImage]]):
    """Enter the image of this name from the image library into the catalogue (admins). Same content, same ids."""

    topic = "controller"
    needs = UserRole.ADMIN
    name: Name


class ListImages(Call[list[CatalogueImage]]):
    """All that the project may use."""

    topic = "controller"
    needs = UserRole.READER


class GetImage(Call[CatalogueImage]):
    topic = "controller"
    needs = UserRole.READER
    image: ImageName


class ListKnownImages(Call[list[KnownImage]]):
    topic = "controller"
    needs = UserRole.READER


class ImageChanges(Model):
    """What is None stays."""

    name: Name | None = None
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    architecture: str | None = Field(default=None, pattern=r"^[a-z0-9_]{1,32}$")
    min_disk_gb: int | None = Field(default=None, ge=0, le=2**31)
    min_memory_mb: int | None = Field(default=None, ge=0, le=2**31)
    kernel_args: str | None = Field(default=None, max_length=2048)
    firmware: Firmware | None = None
    machine: Machine | None = None
    description: str | None = Field(default=None, max_length=1024)
    public: bool | None = None
    projects: tuple[str, ...] | None = Field(default=None, max_length=1000, description="all that may use it, too")
    projects_more: tuple[str, ...] = Field(default=(), max_length=1000, description="these, too; names or ids")
    projects_less: tuple[str, ...] = Field(default=(), max_length=1000, description="these no longer")


class UpdateImage(Call[CatalogueImage]):
    """Raises Forbidden for who is not the owner; Conflict when it was deleted meanwhile."""

    topic = "controller"
    image: ImageName
    changes: ImageChanges


class CopyImage(Call[CatalogueImage]):
    """The same content as an image of one's own. Raises Conflict while it is not active, QuotaExceeded.

    `idempotency_key` makes a repetition return the same image.
    """

    topic = "controller"
    image: ImageName
    name: Name
    description: str = Field(default="", max_length=1024)
    idempotency_key: str | None = None


class DeleteImage(Call[CatalogueImage]):
    """Nobody can use it any more. Its bytes stay until the last instance that needs them has gone; `reason` says so.

    Raises Conflict while another image boots by it.
    """

    topic = "controller"
    image: ImageName


class BeginUpload(Call[Ticket]):
    """Raises Conflict when it does not wait for an upload, or one is under way."""

    topic = "controller"
    image: ImageName


class EndUpload(Call[CatalogueImage]):
    """What has come, or why it has not. Raises BadImage, which is the image's reason, too."""

    topic = "controller"
    image_id: str
    received: Received | None = None
    failure: str = ""


class OpenImage(Call[Ticket]):
    """Where an active image's bytes can be read."""

    topic = "controller"
    needs = UserRole.READER
    image: ImageName


class OpenContent(Call[Ticket]):
    """Where a host that has been ordered to launch can fetch what it has not. The image may have been deleted since."""

    topic = "controller"
    sha256: Sha256


class PruneImages(Call[Pruned]):
    """Remove the copies of images that no instance uses from every host (admins)."""

    topic = "controller"
    needs = UserRole.ADMIN
