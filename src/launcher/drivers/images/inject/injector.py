"""The contract of the ways into a disk: what a guest is to find there, and who puts it there."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from launcher.drivers.images.store import Injection
from launcher.models import GuestFile, ImageFormat


class Payload(NamedTuple):
    """What a guest is to find. `interfaces` is the whole of /etc/network/interfaces, `password_hash` is root's."""

    public_key: str | None = None
    interfaces: str | None = None
    files: tuple[GuestFile, ...] = ()
    password_hash: str | None = None

    @property
    def digest(self) -> str:
        """Of what does not change while an instance lives."""
        more = [*(f"{file.path} {file.content}" for file in self.files), self.password_hash or ""]
        content = (self.public_key or "") + (self.interfaces or "") + "\n".join(more)
        return hashlib.sha256(content.encode()).hexdigest()


class Place(NamedTuple):
    """The file system to write into: all of the disk, or with `partition` one of it, counted from 1."""

    disk: Path
    format: ImageFormat
    partition: int = 0


class Injector(Protocol):
    """Used by the image store only, on disks that no domain runs from."""

    @property
    def name(self) -> Injection:
        """What to tell the instance's owner about the way."""

    async def start(self) -> None:
        """Raises HostResourceMissing when it does not work on this host."""

    async def stop(self) -> None: ...

    async def inject(self, place: Place, payload: Payload) -> None:
        """Add the key to root's authorized_keys, where others stay; write the files, the password, the interfaces.

        What is there already is left alone. When it returns all was read back and the disk is closed.
        Raises InjectionFailed.
        """

    async def list_leftovers(self) -> Sequence[str]:
        """The names of what injections that were cut off have left on the host; nothing of one at work now."""

    async def remove_leftovers(self) -> None:
        """Remove these; none is success."""
