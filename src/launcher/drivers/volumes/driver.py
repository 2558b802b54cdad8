"""The contract of the volumes' storage on one host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import Field

from launcher.models import Image, ImageFormat, Model
from launcher.volumes import VolumeRef


class Storage(Model):
    """Where a machine finds a volume's content."""

    path: Path
    format: ImageFormat
    block: bool = Field(default=False, description="a device, not a file")


class VolumeDriver(Protocol):
    """Keeps volumes and snapshots by their names. Called once at a time per volume.

    Making what is there and deleting what is not are success; what bears a volume's name is whole, so that a kill at
    any moment leaves it there or not there. What was never written reads as zeros, whatever lay there before.
    """

    async def start(self) -> None:
        """Throw away what an earlier process left half made. Raises HostResourceMissing where it cannot work."""

    async def create(self, ref: VolumeRef, size_gb: int, *, image: Image | None = None) -> None:
        """Empty, or with the image's content at its beginning.

        Raises BadImage, InsufficientSpace (with the numbers), VolumeFailed.
        """

    async def copy(self, source: VolumeRef, ref: VolumeRef, size_gb: int) -> None:
        """A volume of a snapshot, or a snapshot of a volume that nobody writes to now. Raises as `create` does."""

    async def extend(self, ref: VolumeRef, size_gb: int, *, in_use: bool) -> None:
        """At least so large. One in use by a machine is left for the hypervisor to grow, where that can."""

    async def delete(self, ref: VolumeRef) -> None: ...

    async def find(self, ref: VolumeRef) -> Storage:
        """Raises NotFound when there is none, or when another volume's is in its place."""

    async def list_volumes(self) -> Sequence[VolumeRef]:
        """All that are here and ours, snapshots too; what has no mark of ours is not looked at."""

    async def free_mb(self) -> int: ...
