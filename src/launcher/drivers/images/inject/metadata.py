"""No injection: the guest asks the metadata service for its key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.drivers.images.store import Injection
from launcher.models import ImageFormat


class MetadataOnly:
    """Says honestly that the disk does not carry the key."""

    name = Injection.METADATA

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def inject(
        self, disk: Path, format: ImageFormat, public_key: str | None, interfaces: str | None = None
    ) -> None:
        """Leave the disk as it is."""

    async def list_leftovers(self) -> Sequence[str]:
        return ()

    async def remove_leftovers(self) -> None: ...
