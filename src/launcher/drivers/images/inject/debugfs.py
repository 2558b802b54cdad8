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
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from launcher.drivers import process
from launcher.errors import InjectionFailed

HOME, FOLDER, KEYS = "/root", "/root/.ssh", "/root/.ssh/authorized_keys"
LARGEST_KEYS = 2**20  # bytes; an image could hold a file that fills the host's disk when it is read

_HINT = 'let the guest fetch its key: set [images] inject = "metadata"'
_END = "#end"  # debugfs repeats comments: the sign that it has done what stood before
_STAT = re.compile(r"debugfs: stat \S+\nInode: +\d+ +Type: +(\S+).*?\bSize: +(\d+)", re.DOTALL)


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
        """Append the key to root's authorized_keys unless it is there.

        Raises InjectionFailed when root's home, its .ssh or the file are not what they should be, or when the
        key cannot be read back.
        """
        with tempfile.TemporaryDirectory(prefix="launcher-key-") as made:
            found, wanted = Path(made) / "found", Path(made) / "wanted"
            await self._open(device)
            folder_exists, keys_exist = await self._look()
            await self._tell(f'dump {KEYS} "{found}"', "close")
            if not _merge(found, wanted, public_key):
                return
            await self._open(device, "-w")
            await self._tell(*_commands(wanted, folder_exists=folder_exists, keys_exist=keys_exist), "close")
            await self._tell(f'open "{device}"', f'dump {KEYS} "{found}"', "close")
            if not found.exists() or found.read_bytes() != wanted.read_bytes():
                raise InjectionFailed(f"{KEYS} cannot be read back from the disk", hint="is its file system full?")

    async def _open(self, device: Path, *options: str) -> None:
        """First to read: in a user namespace the kernel learns only so who owns the file, and who may write."""
        complaint = _complaint(await self._tell(" ".join(["open", *options, f'"{device}"'])))
        if complaint:
            raise InjectionFailed(f"the disk has no ext2, ext3 or ext4 file system: {complaint}", hint=_HINT)

    async def _look(self) -> tuple[bool, bool]:
        """Whether .ssh and the file of keys exist; raises InjectionFailed for whatever else stands there."""
        if not await self._find(HOME, "directory"):
            raise InjectionFailed(f"the disk has no directory {HOME}", hint=_HINT)
        folder = await self._find(FOLDER, "directory")
        keys = await self._find(KEYS, "regular") if folder else None
        if keys and keys.size > LARGEST_KEYS:
            raise InjectionFailed(f"{KEYS} in the disk has {keys.size} bytes, expected at most {LARGEST_KEYS}")
        return folder is not None, keys is not None

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


def _merge(found: Path, wanted: Path, public_key: str) -> bool:
    """Write the file as it should be; False when the key is in it already."""
    lines = found.read_bytes().splitlines() if found.exists() else []
    key = public_key.strip().encode()
    wanted.write_bytes(b"".join(line + b"\n" for line in (*lines, key)))
    return key not in lines


def _commands(wanted: Path, *, folder_exists: bool, keys_exist: bool) -> list[str]:
    """`write` cannot replace a file, and takes the new name relative to the current directory."""
    make_folder = [] if folder_exists else [f"mkdir {FOLDER}"]
    remove_keys = [f"rm {KEYS}"] if keys_exist else []
    own_folder = [f"sif {FOLDER} {field}" for field in ("mode 040700", "uid 0", "gid 0")]
    own_keys = [f"sif {KEYS} {field}" for field in ("mode 0100600", "uid 0", "gid 0")]
    write = [f"cd {FOLDER}", f'write "{wanted}" {Path(KEYS).name}', "cd /"]
    return [*make_folder, *own_folder, *remove_keys, *write, *own_keys]
