"""The contract of the image store: an instance's files on its compute host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

from launcher.drivers.virt.driver import Disks
from launcher.guestdata.guest import Guest
from launcher.images import Received, Ticket
from launcher.models import Image, InstanceRef, LaunchOrder
from launcher.networks import FixedIp


class Injection(StrEnum):
    """A way in which key, address, files and password reach a guest."""

    STORAGE_DAEMON = "storage-daemon"
    NBD = "nbd"
    CONFIG_DRIVE = "config-drive"
    METADATA = "metadata"


class Injected(NamedTuple):
    """What was done, and the disk that was made for it. `report` is for the instance's owner."""

    ways: tuple[Injection, ...] = ()
    config_drive: Path | None = None

    @property
    def report(self) -> str:
        return ", ".join(self.ways) or "none"


Tell = Callable[[], Awaitable[Guest]]
"""Asks the controller what there is to tell the guest; most launches need not."""


Copy = Callable[[Path], Awaitable[None]]
"""Writes a machine's root disk into a new file."""


class ImageStore(Protocol):
    """An instance's files live in one directory. Creating again and deleting an absent one are success."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def list_missing(self, order: LaunchOrder) -> Sequence[Image]:
        """What the order needs and this host can only get from the controller's."""
        ...

    async def fetch(self, order: LaunchOrder, image: Image, ticket: Ticket) -> None:
        """Get one of these; many at once get it once.

        Raises BadImage, InsufficientSpace, DownloadFailed, and HostResourceMissing when the ticket leads nowhere.
        """
        ...

    async def create_disks(self, order: LaunchOrder) -> Disks:
        """Base files (copied once per checksum), overlay of the root; built aside, renamed into place.

        An overlay that is there and smaller than it should be grows. For a rescue: the other root, and its own beside.

        Raises BadImage, InsufficientSpace (with the numbers), HostResourceMissing.
        """

    async def renew(self, order: LaunchOrder) -> None:
        """Disks that were made in an older generation go, so that they are made again; of a rescue only its own."""

    async def end_rescue(self, order: InstanceRef) -> None:
        """The root that it was rescued with goes, if there is one."""

    async def inject(self, order: LaunchOrder, nics: Sequence[FixedIp], tell: Tell) -> Injected:
        """Give the guest its key, its personality and, where a network has no DHCP server, its addresses.

        In the first of the host's ways that can; into a config drive, too, where the order wants one. What was written
        into a disk was read back. A disk that has it all, and whose domain may therefore run, is not touched again.
        Raises InjectionFailed, also when no way can.
        """

    async def has_disks(self, order: InstanceRef) -> bool:
        """Whether its directory is here."""

    def memory_file(self, order: InstanceRef) -> Path:
        """Where the memory of a suspended guest is kept; it goes with the disks."""

    async def settle(self, order: LaunchOrder) -> None:
        """Let what was made survive a power cut. Runs beside the start of the domain, because it may take long."""

    async def save_image(self, order: LaunchOrder, ticket: Ticket, copy: Copy | None) -> Received:
        """The root disk as one flat file, brought to where the ticket leads.

        `copy` writes it of a machine that runs; else nobody may write to the disk meanwhile. Raises InsufficientSpace,
        BadImage for too large a one, HostResourceMissing when the ticket leads nowhere.
        """
        ...

    async def delete_disks(self, order: InstanceRef) -> None: ...

    async def read_console(self, order: LaunchOrder, max_bytes: int) -> bytes:
        """The end of the console log; empty when there is none yet."""

    async def list_instances(self) -> Sequence[InstanceRef]:
        """Whose directories are here, by the mark in each; what has no mark of ours is not looked at."""

    async def list_bases(self) -> Sequence[str]:
        """The checksums of the images' files that are here, kept for the next launch whether used or not."""

    async def prune_bases(self) -> int:
        """Remove those, and empty disks, that nothing here uses or is about to use. Returns the bytes freed."""
        ...

    async def list_exports(self) -> Sequence[str]:
        """What injections that were cut off have left open; nothing of one that is at work now."""

    async def remove_exports(self) -> None:
        """Close and remove these; injections at work are not disturbed."""

    async def free_mb(self) -> int: ...
