"""Writes into a mounted file system: `python -m … DEVICE` with a payload on stdin. Ends with an error or with nothing.

Runs in a process of its own, whose mount namespace nobody else sees: when it ends, by whatever cause, the mount is
gone. Every path is resolved by the kernel as if the image were the root (openat2, RESOLVE_IN_ROOT), so an absolute
link or `..` in it leads nowhere else; links to devices or out of it, and magic links, are refused.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from launcher.drivers.images.inject.content import LARGEST_FILE, SHADOW, with_key, with_password
from launcher.drivers.images.inject.interfaces import PATH
from launcher.errors import InjectionFailed

TYPES = ("ext4", "xfs", "btrfs", "vfat")
"""ext4's driver takes ext2 and ext3, too."""

_CLONE_NEWNS, _PR_SET_PDEATHSIG, _SIGKILL = 0x20000, 1, 9
_NOSUID, _NODEV, _NOEXEC, _REC, _PRIVATE = 2, 4, 8, 0x4000, 1 << 18
_OPENAT2, _NO_MAGICLINKS, _IN_ROOT = 437, 0x02, 0x10

_LIBC = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class Image:
    """A mounted file system, by a descriptor of its root."""

    def __init__(self, root: int) -> None:
        self.root = root

    def change(self, path: str, change: Callable[[bytes], bytes], *, mode: int, folder_mode: int) -> None:
        """Replace a file by what `change` makes of it, in its place and with its owner and mode where it is there.

        The first directory of the path must be there. Raises InjectionFailed, OSError.
        """
        target = PurePosixPath(path)
        for folder in list(reversed(target.parents))[1:]:
            self._ensure(folder, folder_mode, first=len(folder.parts) == 2)
        file = self._open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, mode)
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            os.close(file)
            raise InjectionFailed(f"{path} in the disk is no regular file")
        with os.fdopen(file, "r+b") as opened:
            if found.st_size > LARGEST_FILE:
                raise InjectionFailed(f"{path} in the disk has {found.st_size} bytes, expected at most {LARGEST_FILE}")
            after = change(opened.read())
            opened.seek(0)
            opened.write(after)
            opened.truncate()
            if path != SHADOW:
                os.fchmod(file, mode)
                os.fchown(file, 0, 0)
            opened.flush()
            os.fsync(file)
            opened.seek(0)
            if opened.read() != after:
                raise InjectionFailed(f"{path} cannot be read back from the disk")

    def _ensure(self, folder: PurePosixPath, mode: int, *, first: bool) -> None:
        try:
            os.close(self._open(str(folder), os.O_RDONLY | os.O_DIRECTORY))
        except FileNotFoundError:
            if first:
                raise InjectionFailed(f"the disk has no directory {folder}") from None
            parent = self._open(str(folder.parent), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.mkdir(folder.name, mode, dir_fd=parent)
            finally:
                os.close(parent)

    def _open(self, path: str, flags: int, mode: int = 0) -> int:
        how = _How(flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0, _NO_MAGICLINKS | _IN_ROOT)
        opened: int = _LIBC.syscall(_OPENAT2, self.root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
        if opened < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
        return opened


def write(image: Image, payload: dict[str, Any]) -> None:
    for file in payload["files"]:
        content = base64.b64decode(file["content"])
        image.change(file["path"], partial(_replaced, new=content), mode=0o600, folder_mode=0o755)
    if (password := payload["password_hash"]) is not None:
        image.change(SHADOW, partial(with_password, password_hash=password), mode=0o600, folder_mode=0o755)
    if (interfaces := payload["interfaces"]) is not None:
        image.change(PATH, partial(_replaced, new=interfaces.encode()), mode=0o644, folder_mode=0o755)
    if (key := payload["public_key"]) is not None:
        image.change("/root/.ssh/authorized_keys", partial(with_key, public_key=key), mode=0o600, folder_mode=0o700)


def _replaced(_: bytes, new: bytes) -> bytes:
    return new


@contextlib.contextmanager
def mounted(device: str) -> Iterator[Image]:
    """The device's file system, seen by this process only."""
    _call("unshare", _CLONE_NEWNS)
    _call("mount", None, b"/", None, _REC | _PRIVATE, None)
    with tempfile.TemporaryDirectory(prefix="launcher-inject-") as place:
        _mount(device, place)
        try:
            root = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                yield Image(root)
                _call("syncfs", root)
            finally:
                os.close(root)
        finally:
            _call("umount2", os.fsencode(place), 0)


def _mount(device: str, place: str) -> None:
    said = ""
    for kind in TYPES:
        try:
            flags = _NOSUID | _NODEV | _NOEXEC
            _call("mount", os.fsencode(device), os.fsencode(place), kind.encode(), flags, None)
        except OSError as error:
            said = error.strerror or said
        else:
            return
    raise InjectionFailed(f"the disk has no file system that is one of {', '.join(TYPES)}: {said}")


def _call(name: str, *arguments: Any) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)


def main(device: str) -> None:
    _call("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    payload = json.load(sys.stdin)
    try:
        with mounted(device) as image:
            write(image, payload)
    except (OSError, InjectionFailed) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1])
