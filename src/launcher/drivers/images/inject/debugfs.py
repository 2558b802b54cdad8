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
from launcher.drivers.images.inject.injector import Payload
from launcher.drivers.images.inject.interfaces import PATH
from launcher.errors import InjectionFailed

Change = Callable[[bytes], bytes]
LARGEST_FILE = 2**20  # bytes; an image could hold a file that fills the host's disk when it is read
SHADOW = "/etc/shadow"

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


@contextlib.asynccontextmanager
async def start_debugfs() -> AsyncIterator[Debugfs]:
    """A debugfs without a disk, for one injection."""
    pipe, merged = asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    async with process.spawn(["debugfs", "-f", "-"], stdin=pipe, stdout=pipe, stderr=merged) as running:
        yield Debugfs(running)


class Debugfs:
    """A conversation with one debugfs. Its commands have no time limit of their own: the caller sets one."""

    def __init__(self, running: asyncio.subprocess.Process) -> None:
        if running.stdin is None or running.stdout is None:
            raise TypeError("debugfs must be started with both its pipes")
        self._stdin, self._stdout = running.stdin, running.stdout

    async def write(self, device: Path, payload: Payload) -> None:
        """All of it; raises InjectionFailed when something else is in a place, or when it cannot be read back."""
        for target, change in _changes(payload):
            await self._change(device, target, change)

    async def _change(self, device: Path, target: Target, change: Change) -> None:
        """Replace a file by what `change` makes of it."""
        with tempfile.TemporaryDirectory(prefix="launcher-inject-") as made:
            dump, wanted = Path(made) / "found", Path(made) / "wanted"
            await self._open(device)
            found = await self._look(target, dump)
            before = dump.read_bytes() if dump.exists() else b""
            after = change(before)
            if before == after and target.path in found:
                return
            wanted.write_bytes(after)
            await self._open(device, "-w")
            await self._tell(*_commands(target, wanted, found), "close")
            await self._tell(f'open "{device}"', f'dump {target.path} "{dump}"', "close")
            if not dump.exists() or dump.read_bytes() != after:
                raise InjectionFailed(
                    f"{target.path} cannot be read back from the disk", hint="is its file system full?"
                )

    async def _open(self, device: Path, *options: str) -> None:
        """First to read: in a user namespace the kernel learns only so who owns the file, and who may write."""
        complaint = _complaint(await self._tell(" ".join(["open", *options, f'"{device}"'])))
        if complaint:
            raise InjectionFailed(f"the disk has no ext2, ext3 or ext4 file system: {complaint}", hint=_HINT)

    async def _look(self, target: Target, dump: Path) -> dict[str, Found]:
        """What stands at the file's path and above; its content is written to `dump`. Ends with the disk closed.

        Raises InjectionFailed for what is not of the right type.
        """
        said = await self._tell(*(f"stat {path}" for path in (*target.folders, target.path)))
        found = {
            path: Found(kind, mode, user, group, int(size))
            for path, kind, mode, user, group, size in _STAT.findall(said)
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
        await self._tell(*([f'dump {target.path} "{dump}"'] if target.path in found else []), "close")
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


def _with_key(found: bytes, public_key: str) -> bytes:
    """The file as it should be: the same when the key is in it already."""
    lines, key = found.splitlines(), public_key.strip().encode()
    return found if key in lines else b"".join(line + b"\n" for line in (*lines, key))


def _with_password(found: bytes, password_hash: str) -> bytes:
    """The shadow file with root's password changed; raises InjectionFailed when root is not in it."""
    lines = found.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.startswith(b"root:"):
            lines[number] = b":".join((b"root", password_hash.encode(), *line.split(b":")[2:]))
            return b"".join(lines)
    raise InjectionFailed(f"{SHADOW} in the disk has no line for root", hint=_HINT)


def _changes(payload: Payload) -> Iterator[tuple[Target, Change]]:
    """Each file to write, with what makes its new content of its old one."""
    for file in payload.files:
        content = base64.b64decode(file.content)
        yield Target(file.path, "0600", "0755"), partial(_replaced, new=content)
    if (password := payload.password_hash) is not None:
        yield Target(SHADOW, "0600", "0755", keep=True), partial(_with_password, password_hash=password)
    if (interfaces := payload.interfaces) is not None:
        yield INTERFACES, partial(_replaced, new=interfaces.encode())
    if (key := payload.public_key) is not None:
        yield KEYS, partial(_with_key, public_key=key)


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
