"""The contract of the ways in which a public key gets into a disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from launcher.drivers.images.store import Injection
from launcher.models import ImageFormat


class Injector(Protocol):
    """Used by the image store only, on disks that no domain runs from."""

    @property
    def name(self) -> Injection:
        """What to tell the instance's owner about the way of the key."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def inject(
        self, disk: Path, format: ImageFormat, public_key: str | None, interfaces: str | None = None
    ) -> None:
        """Add the key to root's authorized_keys; other keys stay, a key that is there already is left alone.

        `interfaces` becomes the whole of /etc/network/interfaces. When it returns both were read back and the disk is
        closed. Raises InjectionFailed.
        """

    async def list_leftovers(self) -> Sequence[str]:
        """The names of what injections that were cut off have left on the host; nothing of one at work now."""

    async def remove_leftovers(self) -> None:
        """Remove these; none is success."""
