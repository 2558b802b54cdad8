"""Volumes without storage: the product's stand-in for trying the flow, and the tests'."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.drivers.volumes.driver import Storage
from launcher.errors import NotFound
from launcher.models import Image, ImageFormat
from launcher.volumes import VolumeId, VolumeRef

Fault = Callable[[str, VolumeRef], Awaitable[None]]
"""Called with a verb and a volume before the effect and, as `created`, `deleted` …, after it; it may raise, or wait."""


@dataclass
class FakeVolume:
    """`content` stands for what a guest has written."""

    ref: VolumeRef
    size_gb: int
    content: str = ""


class FakeVolumes:
    """The contract of `driver.py` in memory; `delay` in seconds per verb."""

    def __init__(self, *, delay: float = 0.0, fault: Fault | None = None) -> None:
        self.delay, self.fault = delay, fault
        self.volumes: dict[VolumeId, FakeVolume] = {}

    async def start(self) -> None: ...

    async def create(self, ref: VolumeRef, size_gb: int, *, image: Image | None = None) -> None:
        await self._reach("create", ref)
        self.volumes.setdefault(ref.volume_id, FakeVolume(ref, size_gb, image.sha256 if image else ""))
        await self._reach("created", ref)

    async def copy(self, source: VolumeRef, ref: VolumeRef, size_gb: int) -> None:
        await self._reach("copy", ref)
        await self.find(source)
        original = self.volumes[source.volume_id]
        self.volumes.setdefault(ref.volume_id, FakeVolume(ref, size_gb, original.content))
        await self._reach("copied", ref)

    async def extend(self, ref: VolumeRef, size_gb: int, *, in_use: bool) -> None:
        await self._reach("extend", ref)
        await self.find(ref)
        self.volumes[ref.volume_id].size_gb = max(size_gb, self.volumes[ref.volume_id].size_gb)
        await self._reach("extended", ref)

    async def delete(self, ref: VolumeRef) -> None:
        await self._reach("delete", ref)
        self.volumes.pop(ref.volume_id, None)
        await self._reach("deleted", ref)

    async def find(self, ref: VolumeRef) -> Storage:
        if ref.volume_id not in self.volumes:
            raise NotFound(f"{ref.name}: there is no such volume on this host")
        return Storage(path=Path("/fake/volumes") / ref.name, format=ImageFormat.RAW)

    async def list_volumes(self) -> Sequence[VolumeRef]:
        return sorted((each.ref for each in self.volumes.values()), key=lambda ref: ref.number)

    async def free_mb(self) -> int:
        return 1_000_000

    async def _reach(self, point: str, ref: VolumeRef) -> None:
        await asyncio.sleep(self.delay)
        if self.fault is not None:
            await self.fault(point, ref)
