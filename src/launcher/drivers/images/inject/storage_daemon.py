"""Injection through a kept qemu-storage-daemon: the disk appears as a file by FUSE, debugfs writes into it.

No nbd, no mount of a guest's file system, no root where FUSE is allowed; works on the overlay as it is.
About 10 ms per key; a daemon of its own for each would cost 25 to 40.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

from launcher.drivers.images.inject import debugfs
from launcher.drivers.images.inject.qmp import ConnectionLost, Qmp
from launcher.drivers.images.store import Injection
from launcher.errors import DriverError, InjectionFailed
from launcher.models import ImageFormat

PROGRAM = "qemu-storage-daemon"


class StorageDaemon:
    """Keys into disks, at most `slots` at a time. `path` is an own directory for the exported files.

    A daemon that died is started again; a disk that cannot be closed properly is closed by ending the daemon,
    so that the guest never starts from a disk that somebody else has open.
    """

    name = Injection.STORAGE_DAEMON

    def __init__(self, path: Path, *, slots: int = 4, timeout: float = 10.0) -> None:
        self.path = path.absolute()
        self.timeout = timeout
        self._slots = asyncio.Semaphore(slots)
        self._changing = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._daemon = contextlib.AsyncExitStack()
        self._qmp: Qmp | None = None

    async def start(self) -> None:
        """Raises HostResourceMissing when the daemon cannot run here."""
        await asyncio.to_thread(self.path.mkdir, mode=0o700, parents=True, exist_ok=True)
        await self._connection()

    async def stop(self) -> None:
        async with self._changing:
            await self._end_daemon()

    async def inject(self, disk: Path, format: ImageFormat, public_key: str) -> None:
        async with self._slots:
            if not await self._try_inject(disk, format, public_key):
                if not await self._try_inject(disk, format, public_key):
                    raise InjectionFailed(f"{disk}: {PROGRAM} died twice")

    async def _try_inject(self, disk: Path, format: ImageFormat, public_key: str) -> bool:
        """False when the daemon died over it; perhaps somebody else's disk was the cause."""
        qmp = await self._connection()
        try:
            async with self._exported(qmp, disk, format) as device:
                await debugfs.add_key(device, public_key, timeout=self.timeout)
        except ConnectionLost:
            return False
        except DriverError as error:
            raise InjectionFailed(f"{disk}: {error.message}", hint=error.hint) from error
        except BaseException as error:
            await self._end_daemon(qmp)
            if isinstance(error, TimeoutError):
                raise InjectionFailed(f"{disk}: {PROGRAM} gave no answer in {self.timeout:g} s") from None
            raise
        return True

    @contextlib.asynccontextmanager
    async def _exported(self, qmp: Qmp, disk: Path, format: ImageFormat) -> AsyncIterator[Path]:
        """The disk's content as a file, for the length of the block; afterwards nobody has the disk open."""
        name = f"disk-{next(self._numbers)}"
        device = self.path / name
        file = {"driver": "file", "filename": str(disk)}
        async with contextlib.AsyncExitStack() as closing:
            device.touch(mode=0o600)
            closing.callback(device.unlink, missing_ok=True)
            await qmp.execute("blockdev-add", driver=format, node_name=name, file=file)
            closing.push_async_callback(self._close, qmp, qmp.execute("blockdev-del", node_name=name))
            await qmp.execute(
                "block-export-add", type="fuse", id=name, node_name=name, mountpoint=str(device), writable=True
            )
            deleted = ("BLOCK_EXPORT_DELETED", name)
            closing.push_async_callback(self._close, qmp, qmp.execute_until(*deleted, "block-export-del", id=name))
            yield device
