"""The image catalogue's nouns: what is known of an image before, while and after its bytes arrive.

    queued ──► saving ──────────┐          an upload: announced, arriving; an instance's disk begins as saving
                                ├──► active ──► deleted
    importing ──────────────────┘          a download
         └─────────► error ◄──── saving    with the reason; an upload may be tried again

An image is active when its bytes have come whole, their checksum is right and the gate has let them pass; from then on
they never change. A deleted one is nobody's any more; its bytes stay as long as an instance needs them.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints

from launcher.errors import BadRequest, Conflict
from launcher.models import LARGEST, Firmware, Image, ImageFormat, ImageKind, Machine, Model, Name

LIBRARY, UPLOAD, KNOWN, COPY, INSTANCE = "library", "upload", "known:", "copy:", "instance:"
"""Sources beside URLs: a directory on the server, the client, the list of known images, another image, an instance's
root disk."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Checksum = Annotated[str, StringConstraints(pattern=r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$")]
Architecture = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,32}$")]
ImageName = Annotated[str, StringConstraints(min_length=1, max_length=255)]
"""A name or an id, as somebody who looks for an image says it."""


class ImageState(StrEnum):
    QUEUED = "queued"
    SAVING = "saving"
    IMPORTING = "importing"
    ACTIVE = "active"
    ERROR = "error"
    DELETED = "deleted"


class Progress(Model):
    """How far a download is, in bytes. `total` None: the source does not say, and no end can be told."""

    done: int = Field(ge=0)
    total: int | None = None
    per_second: int = Field(default=0, description="over the last ten seconds")
    eta_s: int | None = None
    attempt: int = 1
    remark: str = Field(default="", description="why it does not go on at the moment")


class Properties(Model):
    """What an owner says of an image, and may change."""

    kernel_id: str | None = None
    ramdisk_id: str | None = None
    architecture: Architecture = "x86_64"
    min_disk_gb: int = Field(default=0, ge=0, le=2**31)
    min_memory_mb: int = Field(default=0, ge=0, le=2**31)
    kernel_args: str = Field(default="", max_length=2048)
    firmware: Firmware = Firmware.BIOS
    machine: Machine = Machine.PC
    description: str = Field(default="", max_length=1024)
    public: bool = Field(default=False, description="every project may use it")
    projects: tuple[str, ...] = Field(default=(), max_length=1000, description="these may use it, too")


class CatalogueImage(Properties):
    """An image as the catalogue knows it. What is None is known when it is active."""

    id: str
    name: Name
    kind: ImageKind
    state: ImageState = ImageState.ACTIVE
    reason: str = Field(default="", description="why it is in error, or not gone yet")
    project_id: str = Field(default="admin", description="its owner")
    source: str = LIBRARY
    checksum: Checksum | None = Field(default=None, description="what the bytes must have")
    checksum_source: str = Field(default="", description="who says so")
    verify: bool = True
    format: ImageFormat | None = None
    size: int | None = Field(default=None, ge=0, le=LARGEST, description="bytes of the file")
    virtual_size: int | None = Field(default=None, ge=0, le=LARGEST, description="bytes the guest sees")
    sha256: Sha256 | None = None
    path: Path | None = Field(default=None, description="the file, on the controller's host")
    public: bool = True
    created_ms: int = 0
    updated_ms: int = 0
    progress: Progress | None = None

    @property
    def of_instance(self) -> bool:
        """Its instance's task says how it goes on."""
        return self.source.startswith(INSTANCE)

    def content(self) -> Image:
        """What a host is told of it. Raises Conflict while it is not active."""
        if self.state is not ImageState.ACTIVE:
            far = f", {self.progress.done} bytes so far" if self.progress else ""
            why = f": {self.reason}" if self.reason else ""
            raise Conflict(
                f"the image {self.name} is {self.state}{far}{why}",
                hint="wait until it is active: `launcher image show`",
                field="image",
            )
        return Image.model_validate({name: getattr(self, name) for name in Image.model_fields})


class Received(Model):
    """Bytes that have arrived whole."""

    size: int = Field(ge=0)
    sha256: Sha256
    sha512: str = Field(default="", description="only where it was asked for")

    def like(self, checksum: str) -> str:
        """Their checksum by the same algorithm."""
        algorithm = checksum.partition(":")[0]
        return f"{algorithm}:{self.sha256 if algorithm == 'sha256' else self.sha512}"

    def fits(self, checksum: str) -> bool:
        return checksum == self.like(checksum)


class Stored(Model):
    """Bytes that have passed the gate, and where they are."""

    format: ImageFormat
    size: int
    virtual_size: int
    sha256: Sha256
    path: Path


class Ticket(Model):
    """Lets its holder fetch or bring one image's bytes, for a while. Without a `url` only on the controller's host."""

    image_id: str
    most: int = Field(description="bytes")
    path: Path | None = None
    sha256: Sha256 | None = None
    sha512: bool = Field(default=False, description="whether the sender has to tell it, too")
    url: str = ""
    token: str = Field(default="", repr=False)


class Pruned(Model):
    """Bytes that were freed, by host; `silent` hosts gave no answer."""

    freed: dict[str, int]
    silent: tuple[str, ...]


class KnownImage(Model):
    """A line of the list of well-known images. `checksum` is one, or the name or URL of a file that has it."""

    name: Name
    title: str
    url: str
    checksum: str
    user: str = Field(description="who may log in with the key")
    min_disk_gb: int = 0
    min_memory_mb: int = 0
    architecture: Architecture = "x86_64"


def check_url(url: str) -> str:
    """An address that may be asked for an image at all. Raises BadRequest."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or re.search(r"[\x00-\x20\x7f]", url):
        raise BadRequest(f"{url[:200]!r} is no http or https URL", field="source")
    if parts.username is not None:
        raise BadRequest("a URL with a user's name or password in it would be shown to others", field="source")
    return url
