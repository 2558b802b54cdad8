"""Network namespaces that a file keeps, so that they outlive the process that made them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from launcher.drivers import process
from launcher.errors import NetworkFailed, ProgramFailed

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespaces:
    """Each by its name. Absent is success where one is removed."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir / "namespaces"

    async def ensure(self, name: str) -> None:
        """A new one is empty; one that is there stays as it is."""
        path = self.path(name)
        if self.exists(name):
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            await process.run(["unshare", f"--net={path}", "true"])
        except (ProgramFailed, OSError) as error:
            raise NetworkFailed(
                f"{name}: no network namespace: {error}", hint="run the server as root or in the sandbox"
            ) from error

    async def remove(self, name: str) -> None:
        """It ends with its devices as soon as nobody is in it."""
        if self.exists(name):
            await process.run(["umount", self.path(name)])
        self.path(name).unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        """A file without a namespace is what a reboot leaves."""
        return self.identity(name) is not None

    def identity(self, name: str) -> int | None:
        """What tells it from another one of the same name; None where there is none."""
        try:
            found = self.path(name).stat()
        except OSError:
            return None
        return found.st_ino if found.st_dev != self._directory.stat().st_dev else None

    def list_all(self) -> Mapping[str, int]:
        """Their names and identities."""
        files = self._directory.iterdir() if self._directory.exists() else ()
        return {file.name: identity for file in files if (identity := self.identity(file.name)) is not None}

    def command(self, name: str, *argv: str | Path) -> list[str | Path]:
        """A program that is started in it."""
        return ["nsenter", f"--net={self.path(name)}", *argv]

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """This thread, for a moment in which nothing may be awaited. Raises OSError."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                _enter(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)

    def open(self, name: str, kind: socket.SocketKind, family: int = socket.AF_INET, number: int = 0) -> socket.socket:
        """A socket that stays there. Raises OSError."""
        with self.inside(name):
            return socket.socket(family, kind, number)

    def path(self, name: str) -> Path:
        return self._directory / name


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
