"""Writes into an ext2, ext3 or ext4 file system without mounting it: e2fsprogs' debugfs, as an ordinary user.

debugfs follows the image's links inside the image only, so a hostile image cannot reach the host's files; what
one image does to its debugfs ends with that process. Since debugfs reports no failure, nothing counts but
what is read back after the file system was closed and opened again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from launcher.drivers import process
from launcher.drivers.images.inject.content import LARGEST_FILE, SHADOW, with_key, with_password
from launcher.drivers.images.inject.injector import Payload
from launcher.drivers.images.inject.interfaces import PATH
from launcher.errors import HostResourceMissing, InjectionFailed

Change = Callable[[bytes], bytes]

_HINT = 'let the guest fetch its key: put "metadata" into [images] inject'
_END = "#end"  # debugfs repeats comments: the sign that it has done what stood before
_STAT = re.compile(
    r"debugfs: stat (\S+)\nInode: +\d+ +Type: +(\S+) +Mode: +(\d+).*?\nUser: +(\d+) +Group: +(\d+).*?\bSize: +(\d+)",
    re.DOTALL,
)


class Target(NamedTuple):
    """A file to write and what it will be. Modes are octal digits; `keep`: a file that is there keeps owner and mode.

    The first directory of the path must be there, the others are made with `folder_mode`.
    """

    path: str
    mode: str
    folder_mode: str
    keep: bool = False

    @property
    def folders(self) -> list[str]:
        """All above the file but the root, the highest first."""
        return [str(folder) for folder in reversed(PurePosixPath(self.path).parents)][1:]


KEYS = Target("/root/.ssh/authorized_keys", "0600", "0700")
INTERFACES = Target(PATH, "0644", "0755")


class Found(NamedTuple):
    """What stands at a path; type is debugfs's word: directory, regular, symlink …; size in bytes."""

    type: str
    mode: str
    user: str
    group: str
    size: int


class Debugfses:
    """A debugfs for each injection; the next one is started ahead, which saves an injection 3 ms of waiting."""

    def __init__(self) -> None:
        self._next: asyncio.Task[tuple[Debugfs, contextlib.AsyncExitStack]] | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Debugfs]:
        """It has no disk yet. After a failure it has ended with the block, and so has none any more."""
        debugfs, opened = await self._take()
        try:
            yield debugfs
        except BaseException:
            await opened.aclose()
            raise
        if self._next is None:
            self._next = asyncio.ensure_future(_start())
        ending = asyncio.ensure_future(opened.aclose())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def stop(self) -> None:
        ready, self._next = self._next, None
        if ready is not None:
            with contextlib.suppress(HostResourceMissing):
                await (await ready)[1].aclose()
        await asyncio.gather(*self._ending)

    async def _take(self) -> tuple[Debugfs, contextlib.AsyncExitStack]:
        ready, self._next = self._next, None
        if ready is not None:
            debugfs, opened = await ready
            if debugfs.alive:
                return debugfs, opened
            await opened.aclose()
        return await _start()


async def _start() -> tuple[Debugfs, contextlib.AsyncExitStack]:
    opened, pipe, merged = contextlib.AsyncExitStack(), asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    spawned = process.spawn(["debugfs", "-f", "-"], stdin=pipe, stdout=pipe, stderr=merged)
    return Debugfs(await opened.enter_async_context(spawned)), opened


class Debugfs:
    """A conversation with one debugfs. Its commands have no time limit of their own: the caller sets one."""

    def __init__(self, running: asyncio.subprocess.Process) -> None:
        if running.stdin is None or running.stdout is None:
            raise TypeError("debugfs must be started with both its pipes")
        self._running, self._stdin, self._stdout = running, running.stdin, running.stdout

    @property
    def alive(self) -> bool:
        return self._running.returncode is None

    async def write(self, device: Path, payload: Payload) -> None:
        """All of it; raises InjectionFailed when something else is in a place, or when it cannot be read back."""
        for target, change in _changes(payload):
            await self._change(device, target, change)

    async def _change(self, device: Path, target: Target, change: Change) -> None:
        """Replace a file by what `change` makes of it, in as few turns as can be: each waits for two processes."""
        with tempfile.TemporaryDirectory(prefix="launcher-inject-") as made:
            dump, wanted = Path(made) / "found", Path(made) / "wanted"
            found = await self._look(device, target)
            if target.path in found:
                await self._tell(f'dump {target.path} "{dump}"')
            before = dump.read_bytes() if dump.exists() else b""
            after = change(before)
            if before == after and target.path in found:
                await self._tell("close")
                return
            wanted.write_bytes(after)
            write = ["close", f'open -w "{device}"', *_commands(target, wanted, found), "close"]
            await self._tell(*write, f'open "{device}"', f'dump {target.path} "{dump}"', "close")
            if not dump.exists() or dump.read_bytes() != after:
                raise InjectionFailed(
                    f"{target.path} cannot be read back from the disk", hint="is its file system full?"
                )

    async def _look(self, device: Path, target: Target) -> dict[str, Found]:
        """What stands at the file's path and above; ends with the disk open.

        Only to read: in a user namespace the kernel learns only so who owns the file, and who may write.
        Raises InjectionFailed for what is not of the right type.
        """
        stats = [f"stat {path}" for path in (*target.folders, target.path)]
        opened, _, said = (await self._tell(f'open "{device}"', *stats)).partition("debugfs: stat")
        if complaint := _complaint(opened):
            raise InjectionFailed(f"the disk has no ext2, ext3 or ext4 file system: {complaint}", hint=_HINT)
        found = {
            path: Found(kind, mode, user, group, int(size))
            for path, kind, mode, user, group, size in _STAT.findall(f"debugfs: stat{said}")
        }
        for path, each in found.items():
            wanted = "regular" if path == target.path else "directory"
            if each.type != wanted:
                raise InjectionFailed(f"{path} in the disk is a {each.type}, expected a {wanted}")
        if target.folders and target.folders[0] not in found:
            raise InjectionFailed(f"the disk has no directory {target.folders[0]}", hint=_HINT)
        if target.path in found and found[target.path].size > LARGEST_FILE:
            size = found[target.path].size
            raise InjectionFailed(f"{target.path} in the disk has {size} bytes, expected at most {LARGEST_FILE}")
        return found

    async def _tell(self, *commands: str) -> str:
        """Have the commands done; what debugfs said to them."""
        self._stdin.write("".join(f"{command}\n" for command in (*commands, _END)).encode())
        try:
            said = await self._stdout.readuntil(f"{_END}\n".encode())
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise InjectionFailed(f"debugfs does not answer to {commands[0]!r}: {error}") from None
        return said.decode(errors="replace")


def _complaint(said: str) -> str:
    """What debugfs said besides its name and the commands it was told."""
    lines = (line for line in said.splitlines() if not line.startswith(("debugfs 1", "debugfs: open", _END)))
    return " ".join(line.removeprefix("debugfs: ") for line in lines).strip()


def _changes(payload: Payload) -> Iterator[tuple[Target, Change]]:
    """Each file to write, with what makes its new content of its old one."""
    for file in payload.files:
        content = base64.b64decode(file.content)
        yield Target(file.path, "0600", "0755"), partial(_replaced, new=content)
    if (password := payload.password_hash) is not None:
        yield Target(SHADOW, "0600", "0755", keep=True), partial(with_password, password_hash=password)
    if (interfaces := payload.interfaces) is not None:
        yield INTERFACES, partial(_replaced, new=interfaces.encode())
    if (key := payload.public_key) is not None:
        yield KEYS, partial(with_key, public_key=key)


def _replaced(_: bytes, new: bytes) -> bytes:
    return new


def _commands(target: Target, wanted: Path, found: Mapping[str, Found]) -> list[str]:
    """`write` cannot replace a file, and takes the new name relative to the current directory."""
    old, folder = found.get(target.path), target.folders[-1] if target.folders else "/"
    mode, user, group = (old.mode, old.user, old.group) if old and target.keep else (target.mode, "0", "0")
    commands = []
    for path in target.folders[1:]:
        if path not in found:
            commands += [f"mkdir {path}", *_owned(path, f"04{target.folder_mode}")]
    if target is KEYS and folder in found:
        commands += _owned(folder, f"04{target.folder_mode}")
    remove = [f"rm {target.path}"] if old else []
    write = [f"cd {folder}", f'write "{wanted}" {PurePosixPath(target.path).name}', "cd /"]
    return [*commands, *remove, *write, *_owned(target.path, f"010{mode}", user, group)]


def _owned(path: str, mode: str, user: str = "0", group: str = "0") -> list[str]:
    return [f"sif {path} {field}" for field in (f"mode {mode}", f"uid {user}", f"gid {group}")]
