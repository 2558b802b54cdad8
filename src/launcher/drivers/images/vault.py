"""The contract of the vault: where the bytes of imported images lie, each content once, on the controller's host.

Bytes arrive under a name of their own (`Arrival`), and get the name of their content when they have passed the gate.
Here is what any vault does; `local_vault.py` does it in a directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from launcher.images import Progress, Received, Stored
from launcher.models import ImageFormat, ImageKind


class Arrival(Protocol):
    """Bytes that are arriving, in order. What has come survives a crash, and is taken up where it ends."""

    @property
    def size(self) -> int:
        """Bytes so far, those of an earlier process included."""
        ...

    async def append(self, piece: bytes) -> None:
        """Raises OSError, with ENOSPC when the disk is full."""
        ...

    async def restart(self) -> None:
        """Throw away what has come."""
        ...

    async def finish(self) -> Received:
        """All has come: make it outlive a power cut, and say what it is."""
        ...

    async def close(self) -> None: ...


class Vault(Protocol):
    """Everything may be repeated; what is absent is deleted with success."""

    async def start(self) -> None: ...

    async def open_arrival(self, name: str, *, resume: bool, sha512: bool = False) -> Arrival:
        """Bytes to come under this name, without `resume` from the beginning; `sha512` costs a third more time."""
        ...

    async def admit(
        self, name: str, received: Received, *, kind: ImageKind, declared: ImageFormat | None, most: int
    ) -> Stored:
        """Let what has come through the gate and give it its content's name; the arrival stays until it is discarded.

        Neither the file nor the disk it makes may have more than `most` bytes. Raises BadImage.
        """
        ...

    async def find(self, sha256: str) -> Received | None:
        """What is here already, and was admitted for somebody."""
        ...

    async def discard(self, name: str) -> None: ...

    async def delete(self, sha256: str) -> None: ...

    async def last_change_ms(self, name: str) -> float | None:
        """When bytes last came under this name; None when none have."""
        ...

    async def list_arrivals(self) -> Sequence[str]: ...

    async def list_contents(self) -> Sequence[str]: ...

    def path(self, sha256: str) -> Path: ...

    def arrival(self, name: str) -> Path:
        """Where bytes arrive under this name."""
        ...


class Tell(Protocol):
    """Told how far a download is, several times a second."""

    def __call__(self, progress: Progress) -> None: ...


class Downloads(Protocol):
    """Where images come from by URL."""

    async def fetch(self, url: str, into: Arrival, *, most: int, tell: Tell, token: str = "") -> None:
        """All bytes of the URL, after those that have come; `token` is what lets us in, if anything must.

        Retried with growing pauses as long as there is hope.

        Raises DownloadFailed, Forbidden for an address that may not be asked, BadImage for more than `most` bytes.
        """
        ...

    async def find_checksum(self, url: str, source: str = "") -> tuple[str, str] | None:
        """The checksum that the distributor tells of this URL's file, and the URL that has it.

        `source` names the file that has it, or its URL. None when nothing is to be found. Raises like `fetch`.
        """
        ...
