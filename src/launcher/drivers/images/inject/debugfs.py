"""Writes into an ext2, ext3 or ext4 file system without mounting it: e2fsprogs' debugfs, as an ordinary user.

debugfs follows the image's links inside the image only, so a hostile image cannot reach the host's files; what
one image does to its debugfs ends with that process. Since debugfs reports no failure, nothing counts but
what is read back after the file system was closed and opened again.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

from launcher.drivers import process
from launcher.errors import InjectionFailed

LARGEST_KEYS = 2**20  # bytes; an image could hold a file that fills the host's disk when it is read

_HINT = 'let the guest fetch its key: set [images] inject = "metadata"'
_END = "#end"  # debugfs repeats comments: the sign that it has done what stood before
_STAT = re.compile(r"debugfs: stat \S+\nInode: +\d+ +Type: +(\S+).*?\bSize: +(\d+)", re.DOTALL)


class Place(NamedTuple):
    """Where a file goes: `parent` must be there, `folder` is made. Modes are debugfs's, with the file's type."""

    parent: str
    folder: str
    name: str
    folder_mode: str
    mode: str

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}"


KEYS = Place("/root", "/root/.ssh", "authorized_keys", "040700", "0100600")
INTERFACES = Place("/etc", "/etc/network", "interfaces", "040755", "0100644")


class Found(NamedTuple):
    """What stands at a path; type is debugfs's word: directory, regular, symlink …; size in bytes."""

    type: str
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

    async def add_key(self, device: Path, public_key: str) -> None:
        """Append the key to root's authorized_keys unless it is there."""
        await self._change(device, KEYS, lambda found: _with_key(found, public_key))

    async def write_interfaces(self, device: Path, text: str) -> None:
        """Make this the whole of /etc/network/interfaces."""
        await self._change(device, INTERFACES, lambda _: text.encode())

    async def _change(self, device: Path, place: Place, change: Callable[[bytes], bytes]) -> None:
        """Replace a file by what `change` makes of it.

        Raises InjectionFailed when its parent, its folder or itself are not what they should be, or when it cannot be
        read back.
        """
        with tempfile.TemporaryDirectory(prefix="launcher-inject-") as made:
            found, wanted = Path(made) / "found", Path(made) / "wanted"
            await self._open(device)
            folder_exists, file_exists = await self._look(place)
            await self._tell(f'dump {place.path} "{found}"', "close")
            before = found.read_bytes() if found.exists() else b""
            after = change(before)
            if before == after:
                return
            wanted.write_bytes(after)
            await self._open(device, "-w")
            await self._tell(*_commands(place, wanted, folder_exists=folder_exists, file_exists=file_exists), "close")
            await self._tell(f'open "{device}"', f'dump {place.path} "{found}"', "close")
            if not found.exists() or found.read_bytes() != after:
                raise InjectionFailed(
                    f"{place.path} cannot be read back from the disk", hint="is its file system full?"
                )

    async def _open(self, device: Path, *options: str) -> None:
        """First to read: in a user namespace the kernel learns only so who owns the file, and who may write."""
        complaint = _complaint(await self._tell(" ".join(["open", *options, f'"{device}"'])))
        if complaint:
            raise InjectionFailed(f"the disk has no ext2, ext3 or ext4 file system: {complaint}", hint=_HINT)

    async def _look(self, place: Place) -> tuple[bool, bool]:
        """Whether the folder and the file exist; raises InjectionFailed for whatever else stands there."""
        if not await self._find(place.parent, "directory"):
            raise InjectionFailed(f"the disk has no directory {place.parent}", hint=_HINT)
        folder = await self._find(place.folder, "directory")
        file = await self._find(place.path, "regular") if folder else None
        if file and file.size > LARGEST_KEYS:
            raise InjectionFailed(f"{place.path} in the disk has {file.size} bytes, expected at most {LARGEST_KEYS}")
        return folder is not None, file is not None

    async def _find(self, path: str, wanted: str) -> Found | None:
        match = _STAT.search(await self._tell(f"stat {path}"))
        if match is None:
            return None
        found = Found(match[1], int(match[2]))
        if found.type != wanted:
            raise InjectionFailed(f"{path} in the disk is a {found.type}, expected a {wanted}")
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


def _commands(place: Place, wanted: Path, *, folder_exists: bool, file_exists: bool) -> list[str]:
    """`write` cannot replace a file, and takes the new name relative to the current directory."""
    make_folder = [] if folder_exists else [f"mkdir {place.folder}"]
    remove_file = [f"rm {place.path}"] if file_exists else []
    own_folder = [f"sif {place.folder} {field}" for field in (f"mode {place.folder_mode}", "uid 0", "gid 0")]
    own_file = [f"sif {place.path} {field}" for field in (f"mode {place.mode}", "uid 0", "gid 0")]
    write = [f"cd {place.folder}", f'write "{wanted}" {place.name}', "cd /"]
    return [*make_folder, *own_folder, *remove_file, *write, *own_file]
