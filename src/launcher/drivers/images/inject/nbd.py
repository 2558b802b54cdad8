"""Injection as the article had it: the disk becomes a block device of the host by qemu-nbd, and is mounted.

The kernel then parses a file system that a stranger made; `storage-daemon` does without. What is done about it: the
mount is nosuid, nodev and noexec, in a mount namespace of a process of its own (`mounted.py`), which resolves every
path inside the image (openat2, RESOLVE_IN_ROOT). qemu-nbd and that process end with this one, and with them the mount
and the device: whatever kills an injection, nothing of it stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from launcher.drivers import process
from launcher.drivers.images.files import in_thread
from launcher.drivers.images.inject.injector import Payload, Place
from launcher.drivers.images.partitions import find_partition
from launcher.drivers.images.store import Injection
from launcher.errors import DriverError, HostResourceMissing, InjectionFailed

PROGRAM, WRITER = "qemu-nbd", "launcher.drivers.images.inject.mounted"
_DEVICES, _NODES = Path("/sys/block"), Path("/dev")
_LOOK_EVERY = 0.01


class Nbd:
    """One disk at a time has a device, whichever launcher it is that asks (`lock`); `state` is where its disks are.

    `timeout` in seconds for each of the parts: connecting, writing, disconnecting.
    """

    name = Injection.NBD

    def __init__(self, state: Path, *, lock: Path = Path("/run/lock/launcher-nbd"), timeout: float = 10.0) -> None:
        self.state, self.lock, self.timeout = state.absolute(), lock, timeout
        self._mine = asyncio.Lock()

    async def start(self) -> None:
        await process.run([PROGRAM, "--version"])
        if not await in_thread(_devices):
            raise HostResourceMissing("this kernel has no nbd devices", hint="`modprobe nbd`")
        if os.geteuid() != 0:
            raise HostResourceMissing("only root mounts disks", hint='take "storage-daemon" in [images] inject')

    async def stop(self) -> None: ...

    async def inject(self, place: Place, payload: Payload) -> None:
        try:
            async with self._mine:
                await self._inject(place, payload)
        except DriverError as error:
            raise InjectionFailed(f"{place.disk}: {error.message}", hint=error.hint) from error

    async def _inject(self, place: Place, payload: Payload) -> None:
        node: dict[str, Any] = {"driver": place.format, "file": {"driver": "file", "filename": str(place.disk)}}
        if place.partition:
            async with self._connected({**node, "read-only": True}, read_only=True) as device:
                part = await in_thread(find_partition, device, place.partition)
            node = {"driver": "raw", "offset": part.offset, "size": part.size, "file": node}
        async with self._connected(node) as device:
            with contextlib.suppress(DriverError):  # counts of mounts are ext's own
                await process.run(["tune2fs", "-c", "0", "-i", "0", device], timeout=self.timeout)
            await process.run(
                [sys.executable, "-m", WRITER, device],
                stdin=json.dumps({**payload._asdict(), "files": [file.model_dump() for file in payload.files]}),
                timeout=self.timeout,
                environment={**process.ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    @contextlib.asynccontextmanager
    async def _connected(self, node: dict[str, Any], *, read_only: bool = False) -> AsyncIterator[Path]:
        """The device for the length of the block; afterwards nobody has the disk open and the device is free."""
        disk = f"json:{json.dumps(node)}"
        options = ["--read-only"] if read_only else []
        with self.lock.open("w") as lock:  # between the look for a free device and its use nobody else takes it
            await in_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            device = await in_thread(_free_device)
            # It stays in the foreground with -v, and so ends with this process.
            argv: list[str | Path] = [
                "setpriv",
                "--pdeathsig",
                "KILL",
                PROGRAM,
                "-v",
                *options,
                "-c",
                _NODES / device,
                disk,
            ]
            async with process.spawn(argv) as running:
                await self._until(running, lambda: _connected(device), f"{PROGRAM} did not connect {device}")
                try:
                    yield _NODES / device
                finally:
                    await process.run([PROGRAM, "-d", _NODES / device], timeout=self.timeout)
                    await self._until(None, lambda: not _connected(device), f"{device} is still in use")
                    await asyncio.wait_for(running.wait(), self.timeout)

    async def _until(
        self, running: asyncio.subprocess.Process | None, reached: Callable[[], bool], complaint: str
    ) -> None:
        limit = time.monotonic() + self.timeout
        while not await in_thread(reached):
            if running is not None and running.returncode is not None:
                said = (await running.stderr.read()).decode(errors="replace").strip() if running.stderr else ""
                raise InjectionFailed(f"{complaint}: {said[-500:]}")
            if time.monotonic() > limit:
                raise InjectionFailed(f"{complaint} in {self.timeout:g} s")
            await asyncio.sleep(_LOOK_EVERY)

    async def list_leftovers(self) -> Sequence[str]:
        """Devices that qemu-nbd of a launcher still holds: none is left by a kill, so these are stuck."""
        return await in_thread(lambda: [] if self._mine.locked() else list(_held(self.state)))

    async def remove_leftovers(self) -> None:
        for device in await self.list_leftovers():
            await process.run([PROGRAM, "-d", _NODES / device], timeout=self.timeout)


def _devices() -> list[str]:
    found = [path.name for path in _DEVICES.glob("nbd*") if path.name.removeprefix("nbd").isdigit()]
    return sorted(found, key=lambda name: int(name.removeprefix("nbd")))


def _connected(device: str) -> bool:
    return (_DEVICES / device / "pid").exists() and int((_DEVICES / device / "size").read_text()) > 0


def _free_device() -> str:
    """The lowest that has no process and no content."""
    for device in _devices():
        if not (_DEVICES / device / "pid").exists() and int((_DEVICES / device / "size").read_text()) == 0:
            _make_node(device)
            return device
    raise InjectionFailed("all nbd devices are in use", hint="`modprobe nbd nbds_max=…`")


def _make_node(device: str) -> None:
    """Where no udev does it."""
    if not (_NODES / device).exists():
        major, minor = (_DEVICES / device / "dev").read_text().strip().split(":")
        os.mknod(_NODES / device, 0o60600, os.makedev(int(major), int(minor)))


def _held(state: Path) -> Iterator[str]:
    """By a qemu-nbd that has a disk of this launcher open."""
    for device in _devices():
        with contextlib.suppress(OSError):
            pid = (_DEVICES / device / "pid").read_text().strip()
            if os.fsencode(state) in Path(f"/proc/{pid}/cmdline").read_bytes():
                yield device
