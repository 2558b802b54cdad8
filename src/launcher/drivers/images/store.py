"""The contract of the image store: an instance's files on its compute host."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from launcher.drivers.virt.driver import Disks
from launcher.models import InstanceRef, LaunchOrder
from launcher.networks import FixedIp


class Injection(StrEnum):
    """How a key reached the guest: through its disk, or left to the metadata service."""

    STORAGE_DAEMON = "storage-daemon"
    METADATA = "metadata"
    NONE = "none"


class ImageStore(Protocol):
    """An instance's files live in one directory. Creating again and deleting an absent one are success."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def create_disks(self, order: LaunchOrder) -> Disks:
        """Base files (copied once per checksum), overlay of the root; built aside, renamed into place.

        Raises BadImage, InsufficientSpace (with the numbers), HostResourceMissing.
        """

    async def inject(self, order: LaunchOrder, nics: Sequence[FixedIp] = ()) -> Injection:
        """Put `order.public_key` into the root disk and read it back; repeating it does nothing.

        Where a network has no DHCP server, the addresses of the NICs go into the disk, too. A disk that already has
        both, or whose domain may run, is not touched again.
        Raises InjectionFailed.
        """

    async def has_disks(self, order: InstanceRef) -> bool:
        """Whether its directory is here."""

    def memory_file(self, order: InstanceRef) -> Path:
        """Where the memory of a suspended guest is kept; it goes with the disks."""

    async def delete_disks(self, order: InstanceRef) -> None: ...

    async def read_console(self, order: LaunchOrder, max_bytes: int) -> bytes:
        """The end of the console log; empty when there is none yet."""

    async def list_instances(self) -> Sequence[InstanceRef]:
        """Whose directories are here, by the mark in each; what has no mark of ours is not looked at."""

    async def list_bases(self) -> Sequence[str]:
        """The checksums of the images' files that are here, kept for the next launch whether used or not."""

    async def list_exports(self) -> Sequence[str]:
        """What injections that were cut off have left open; nothing of one that is at work now."""

    async def remove_exports(self) -> None:
        """Close and remove these; injections at work are not disturbed."""

    async def free_mb(self) -> int: ...
