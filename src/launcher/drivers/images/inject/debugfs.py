"""Writes into an ext2, ext3 or ext4 file system without mounting it: e2fsprogs' debugfs, as an ordinary user.

debugfs follows the image's links inside the image only, so a hostile image cannot reach the host's files. It
exits 0 whatever happens, so nothing counts but what a second debugfs reads back.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path

from launcher.drivers import process
from launcher.errors import InjectionFailed

HOME, FOLDER, KEYS = "/root", "/root/.ssh", "/root/.ssh/authorized_keys"


async def add_key(device: Path, public_key: str, *, timeout: float) -> None:
    """Append the key to root's authorized_keys unless it is there; programs may take `timeout` seconds each.

    Raises InjectionFailed when root's home, its .ssh or the file are not what they should be, or when the
    key cannot be read back.
    """
    with tempfile.TemporaryDirectory(prefix="launcher-key-") as made:
        found, wanted = Path(made) / "found", Path(made) / "wanted"
        said = await _debugfs(device, [f"stat {HOME}", f"stat {FOLDER}", f"stat {KEYS}", _dump(found)], timeout)
        missing = _missing(_types(said))
        if not await asyncio.to_thread(_merge, found, wanted, public_key):
            return
        await _debugfs(device, _commands(wanted, missing), timeout, "-w")
        await _debugfs(device, [_dump(found)], timeout)
        if not await asyncio.to_thread(lambda: found.exists() and found.read_bytes() == wanted.read_bytes()):
            raise InjectionFailed(f"{KEYS} cannot be read back from the disk", hint="is its file system full?")


def _types(said: str) -> dict[str, str]:
    """What debugfs's `stat` said of each path: directory, regular, symlink …; absent when there is no such thing."""
    return dict(re.findall(r"^debugfs: +stat (\S+)\nInode: +\d+ +Type: +(\S+)", said, re.MULTILINE))


def _missing(types: dict[str, str]) -> set[str]:
    """The paths that must be made. Raises InjectionFailed at the first that is something else than it should be."""
    if HOME not in types:
        raise InjectionFailed(
            f"the disk has no ext2, ext3 or ext4 file system with a directory {HOME}",
            hint='let the guest fetch its key: set [images] injector = "metadata"',
        )
    for path, wanted in ((HOME, "directory"), (FOLDER, "directory"), (KEYS, "regular")):
        if types.get(path, wanted) != wanted:
            raise InjectionFailed(f"{path} in the disk is a {types[path]}, expected a {wanted}")
    return {FOLDER, KEYS} - types.keys()


def _merge(found: Path, wanted: Path, public_key: str) -> bool:
    """Write the file as it should be; False when the key is in it already."""
    lines = found.read_bytes().splitlines() if found.exists() else []
    key = public_key.strip().encode()
    wanted.write_bytes(b"".join(line + b"\n" for line in (*lines, key)))
    return key not in lines


def _commands(wanted: Path, missing: set[str]) -> list[str]:
    """`write` cannot replace a file, and takes the new name relative to the current directory."""
    commands = [f"mkdir {FOLDER}"] if FOLDER in missing else []
    commands += [f"sif {FOLDER} mode 040700", f"sif {FOLDER} uid 0", f"sif {FOLDER} gid 0", f"cd {FOLDER}"]
    commands += [] if KEYS in missing else [f"rm {KEYS}"]
    return [*commands, f'write "{wanted}" {Path(KEYS).name}', *(f"sif {KEYS} {field}" for field in _OWNER_ONLY)]


_OWNER_ONLY = ("mode 0100600", "uid 0", "gid 0")


def _dump(target: Path) -> str:
    return f'dump {KEYS} "{target}"'


async def _debugfs(device: Path, commands: list[str], timeout: float, *options: str) -> str:
    script = "".join(f"{command}\n" for command in commands)
    return await process.run(["debugfs", *options, "-f", "-", device], stdin=script, timeout=timeout)
