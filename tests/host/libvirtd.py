"""A libvirtd of one's own, to be killed, frozen and started again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import libvirt

from launcher.drivers import process
from launcher.drivers.virt import domains
from launcher.drivers.virt.driver import Domain
from tests.waiting import until

FURNISH = """
set -e
mount -t tmpfs none /run
for place in lib cache log; do mount -t tmpfs none /var/$place; mkdir /var/$place/libvirt; done
mkdir /run/libvirt
mount --bind $1/run /run/libvirt
for place in lib cache log; do mount --bind $1/$place /var/$place/libvirt; done
mkdir -p $1/whole-etc/libvirt
cp -a /etc/. $1/whole-etc
mount --bind $1/whole-etc /etc
mount --bind $1/etc /etc/libvirt
exec libvirtd -f /etc/libvirt/libvirtd.conf -p $1/run/libvirtd.pid
"""
QEMU_CONF = """
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""
LIBVIRTD_CONF = """
listen_tls = 0
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_group = "root"
"""


def furnish(directory: Path) -> Path:
    """What a libvirtd needs there before its start; its socket."""
    for name in ("run", "lib", "cache", "log", "etc"):
        (directory / name).mkdir()
    (directory / "etc" / "qemu.conf").write_text(QEMU_CONF)
    (directory / "etc" / "libvirtd.conf").write_text(LIBVIRTD_CONF)
    return directory / "run" / "libvirt-sock"


def arguments(directory: Path) -> list[str | Path]:
    """To start one, in a mount namespace of its own."""
    return ["unshare", "-m", "sh", "-c", FURNISH, "sh", directory]


class Daemon:
    """A libvirtd whose whole state is below one directory; another one started there finds the guests again."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.socket = directory, furnish(directory)
        self.uri = f"qemu+unix:///system?socket={self.socket}"
        self.running = contextlib.AsyncExitStack()
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        spawned = process.spawn(arguments(self.directory), stderr=asyncio.subprocess.DEVNULL)
        self.process = await self.running.enter_async_context(spawned)
        await until(self.socket.exists)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def domains(self) -> list[Domain]:
        """Of ours, as somebody else sees them."""

        def look() -> list[Domain]:
            with contextlib.closing(libvirt.open(self.uri)) as connection:
                return domains.census(connection)

        return await asyncio.to_thread(look)
