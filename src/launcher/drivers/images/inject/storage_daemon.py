"""Injection through a kept qemu-storage-daemon: the disk appears as a file by FUSE, debugfs writes into it.

No nbd, no mount of a guest's file system, no root where FUSE is allowed; works on the overlay as it is.
About 10 ms per key; a daemon of its own for each would cost 25 to 40.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path
from typing import Any

from launcher.drivers import process
from launcher.drivers.images.inject.debugfs import Debugfses
from launcher.drivers.images.inject.injector import Payload, Place
from launcher.drivers.images.inject.qmp import ConnectionLost, Qmp
from launcher.drivers.images.partitions import find_partition
from launcher.drivers.images.store import Injection
from launcher.errors import DriverError, HostResourceMissing, InjectionFailed
from launcher.models import ImageFormat

PROGRAM = "qemu-storage-daemon"

_TRIAL = "trial-"
_LEFTOVER = re.compile(rf"disk-\d+|{_TRIAL}.+")


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
        self._open: set[str] = set()
        self._daemon = contextlib.AsyncExitStack()
        self._qmp: Qmp | None = None
        self._debugfses = Debugfses()

    async def start(self) -> None:
        """Start the daemon and prove it on a small disk. Raises HostResourceMissing when that does not work here."""
        await asyncio.to_thread(self.path.mkdir, mode=0o700, parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(dir=self.path, prefix=_TRIAL) as made:
                disk, tree = Path(made) / "disk", Path(made) / "tree"
                await asyncio.to_thread((tree / "root").mkdir, parents=True)
                await process.run(["mke2fs", "-q", "-t", "ext2", "-d", tree, disk, "256k"])
                await self.inject(Place(disk, ImageFormat.RAW), Payload("ssh-ed25519 trial"))
        except DriverError as error:
            await self.stop()
            hint = 'is /dev/fuse open to this user? Else set [images] inject = ["metadata"]'
            raise HostResourceMissing(f"keys cannot be put into disks here: {error.message}", hint=hint) from error

    async def stop(self) -> None:
        await self._debugfses.stop()
        await self._end_daemon(self._qmp)

    async def inject(self, place: Place, payload: Payload) -> None:
        async with self._slots:
            for _ in range(2):
                if await self._try_inject(place, payload):
                    return
            raise InjectionFailed(f"{place.disk}: {PROGRAM} died twice")

    async def _try_inject(self, place: Place, payload: Payload) -> bool:
        """False when the daemon died over it; perhaps somebody else's disk was the cause."""
        qmp = await self._connection()
        try:
            async with self._debugfses.one() as debugfs, self._exported(qmp, place) as device:
                async with asyncio.timeout(self.timeout):
                    await debugfs.write(device, payload)
        except ConnectionLost:
            return False
        except DriverError as error:
            raise InjectionFailed(f"{place.disk}: {error.message}", hint=error.hint) from error
        except BaseException as error:
            await self._end_daemon(qmp)
            if isinstance(error, TimeoutError):
                raise InjectionFailed(f"{place.disk}: {PROGRAM} gave no answer in {self.timeout:g} s") from None
            raise
        return True

    @contextlib.asynccontextmanager
    async def _exported(self, qmp: Qmp, place: Place) -> AsyncIterator[Path]:
        """The content of the disk or its partition as a file, for the length of the block; then nobody has it open."""
        file: dict[str, Any] = {"driver": "file", "filename": str(place.disk)}
        whole: dict[str, Any] = {"driver": place.format, "file": file}
        if not place.partition:
            async with self._opened(qmp, whole) as device:
                yield device
            return
        async with self._opened(qmp, {**whole, "read-only": True}, writable=False) as device:
            part = await asyncio.to_thread(find_partition, device, place.partition)
        cut = {"driver": "raw", "offset": part.offset, "size": part.size, "file": whole}
        async with self._opened(qmp, cut) as device:
            yield device

    @contextlib.asynccontextmanager
    async def _opened(self, qmp: Qmp, node: dict[str, Any], *, writable: bool = True) -> AsyncIterator[Path]:
        name = f"disk-{next(self._numbers)}"
        device = self.path / name
        cache = {"no-flush": True}  # the image store syncs the disk once, when the key is in it
        export: dict[str, Any] = {"type": "fuse", "node_name": name, "mountpoint": str(device)}
        async with contextlib.AsyncExitStack() as closing:
            self._open.add(name)
            closing.callback(self._open.discard, name)
            device.touch(mode=0o600)
            closing.callback(_unlink, device)
            await qmp.execute("blockdev-add", **node, node_name=name, cache=cache)
            closing.push_async_callback(self._close, qmp, "blockdev-del", node_name=name)
            await qmp.execute("block-export-add", id=name, writable=writable, **export)
            closing.push_async_callback(self._close, qmp, "block-export-del", until="BLOCK_EXPORT_DELETED", id=name)
            yield device

    async def _close(self, qmp: Qmp, command: str, **arguments: str) -> None:
        """Closing must succeed: a disk left open is worse than a daemon that has to be started again."""
        try:
            await qmp.execute(command, **arguments)
        except BaseException:
            await self._end_daemon(qmp)
            raise

    async def _connection(self) -> Qmp:
        """The running daemon, or a new one where it has died."""
        async with self._changing:
            if self._qmp is None or self._qmp.lost:
                await self._daemon.aclose()
                await self._unmount()
                self._qmp = await self._start_daemon()
            return self._qmp

    async def _start_daemon(self) -> Qmp:
        """It ends with this process, however that ends, and lets go of every disk."""
        arguments = ["--chardev", "stdio,id=qmp", "--monitor", "chardev=qmp,mode=control"]
        argv = ["setpriv", "--pdeathsig", "TERM", PROGRAM, *arguments]
        pipe = asyncio.subprocess.PIPE
        running = await self._daemon.enter_async_context(process.spawn(argv, stdin=pipe, stdout=pipe))
        qmp = Qmp(running, timeout=self.timeout)
        self._daemon.push_async_callback(qmp.close)
        try:
            await qmp.open()
        except (ConnectionLost, TimeoutError):
            await self._daemon.aclose()
            said = (await running.stderr.read()).decode(errors="replace").strip() if running.stderr else ""
            raise HostResourceMissing(f"{PROGRAM} does not start: {said or 'it says nothing'}") from None
        return qmp

    async def _end_daemon(self, qmp: Qmp | None) -> None:
        """End this daemon; a successor is left alone."""
        async with self._changing:
            if self._qmp is qmp:
                self._qmp = None
                await self._daemon.aclose()

    async def list_leftovers(self) -> Sequence[str]:
        return await asyncio.to_thread(self._leftovers)

    async def remove_leftovers(self) -> None:
        await self._unmount(spared=self._open)
        for name in await self.list_leftovers():
            await asyncio.to_thread(_remove, self.path / name)

    def _leftovers(self) -> list[str]:
        names = sorted(path.name for path in self.path.iterdir()) if self.path.is_dir() else []
        return [name for name in names if _LEFTOVER.fullmatch(name) and name not in self._open]

    async def _unmount(self, *, spared: Collection[str] = ()) -> None:
        """A daemon that was killed leaves dead mount points, on which every access fails."""
        mounts = await asyncio.to_thread(Path("/proc/self/mountinfo").read_text)
        for line in mounts.splitlines():
            point = Path(line.split()[4].encode().decode("unicode_escape"))
            if point.is_relative_to(self.path) and point.name not in spared:
                await process.run(["fusermount3", "-u", "-z", point])


def _remove(leftover: Path) -> None:
    """The trial's directory, or an exported disk's file."""
    if leftover.is_dir():
        shutil.rmtree(leftover)
    else:
        leftover.unlink(missing_ok=True)


def _unlink(device: Path) -> None:
    """A dead mount point stays until the next daemon is started."""
    with contextlib.suppress(OSError):
        device.unlink()
