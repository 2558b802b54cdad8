"""Instance files on the host's own disk.

    <path>/_base/<sha256>            files of images, once per content, checked before they get their name
    <path>/instance-%08x/disk        qcow2 overlay on the base; all that a guest writes
    <path>/instance-%08x/{instance-id, injection, console.log}
    <path>/_work/                    what is being made or thrown away; emptied at start

Whatever bears its final name is complete: it was made in `_work`, synced and renamed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from launcher.drivers.images import qcow2
from launcher.drivers.images.inject.injector import Injector
from launcher.drivers.images.library import sha256_of, sync_directory
from launcher.drivers.images.store import Injection
from launcher.drivers.virt.driver import Disks
from launcher.errors import BadImage, HostResourceMissing, InjectionFailed, InsufficientSpace
from launcher.models import Image, ImageFormat, InstanceId, LaunchOrder

R = TypeVar("R")

MIB, GIB = 2**20, 2**30


class LocalImages:
    """The image store on local files (contract: `store.py`).

    Images are taken from `library` only. `reserve_mb` of the file system are left to the guests that run
    already: a launch that would go below is refused.
    """

    def __init__(self, path: Path, *, library: Path, injector: Injector, reserve_mb: int = 512) -> None:
        self.path = path.absolute()
        self.library = library
        self.injector = injector
        self.reserve_mb = reserve_mb
        self._base = self.path / "_base"
        self._work = self.path / "_work"
        self._checked: set[str] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def start(self) -> None:
        await _in_thread(self._prepare)
        await self.injector.start()

    async def stop(self) -> None:
        await self.injector.stop()

    async def create_disks(self, order: LaunchOrder) -> Disks:
        for image in _images(order):
            async with self._locks[image.sha256]:
                if image.sha256 not in self._checked:
                    await _in_thread(lambda image=image: self._take_in(order, image))
                    self._checked.add(image.sha256)
        return await _in_thread(lambda: self._create(order))

    async def inject_key(self, order: LaunchOrder) -> Injection:
        key = order.public_key
        if key is None:
            return Injection.NONE
        if order.kernel is None:  # a disk with partitions and a boot loader of its own asks the metadata service
            return Injection.METADATA
        done = await _in_thread(lambda: self._find_injection(order, key))
        if done is not None:
            return done
        await self.injector.inject(self._directory(order) / "disk", ImageFormat.QCOW2, key)
        await _in_thread(lambda: self._record_injection(order, key))
        return self.injector.name

    async def delete_disks(self, order: LaunchOrder) -> None:
        await _in_thread(lambda: self._delete(order))

    async def read_console(self, order: LaunchOrder, max_bytes: int) -> bytes:
        return await _in_thread(lambda: _read_end(self._directory(order) / "console.log", max_bytes))

    async def list_instances(self) -> Sequence[InstanceId]:
        return await _in_thread(self._list)

    async def free_mb(self) -> int:
        return await _in_thread(lambda: self._free_bytes() // MIB)
