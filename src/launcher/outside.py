"""The ways between the sandbox and the network that the server was started in. Nothing of them outlives the sandbox.

Out: slirp4netns carries what guests send as connections of its own, as an ordinary program of the user who
started the server; it changes nothing on the host. It runs outside, so it is started before the sandbox is entered.

In, only as root: a veth pair. Its inner end has the floating IPs, its outer one a route to their pools. Both ends go
with the inner network, and the route with its device. Without root nobody outside can be given a route.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Network

INNER, OUTER = "outside", "launcher"
"""The veth pair's ends; the outer one is numbered, because one host may have several sandboxes."""
WAY_OUT = "way-out"

_LINKS = IPv4Network("198.18.0.0/16")
_SLIRP = IPv4Network("198.19.255.0/24")
"""Ranges for the links alone: RFC 2544 keeps them from being anybody's."""
_MOST_LINKS = 200
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
log = logging.getLogger(__name__)


class Outside:
    """Made before the sandbox is entered, by the process that will enter it; `connect`ed inside."""

    def __init__(self, *, way_out: bool, pools: Sequence[IPv4Network]) -> None:
        self._pools = tuple(pools)
        self._is_root = os.geteuid() == 0
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._go = _start_carrier() if way_out else None

    def connect(self) -> None:
        """What cannot be had is said, and the sandbox goes without."""
        if self._pools and not self._is_root:
            log.warning(
                "floating IPs can be reached from inside the sandbox only, because it was not started as root; "
                "from outside, `launcher expose ID PORT` leads to a guest"
            )
        elif self._pools:
            self._lay_link()
        if self._go is not None:
            os.write(self._go, b"1")
            os.close(self._go)
        os.close(self._home)

    def _lay_link(self) -> None:
        number = self._make_pair()
        if number is None:
            return
        link = IPv4Network((int(_LINKS.network_address) + 4 * number, 30))
        device = f"{OUTER}{number}"
        _ip(f"address add {link[2]}/30 dev {INNER}\nlink set dev {INNER} up\n")
        failed = self._ip_outside(f"address add {link[1]}/30 dev {device}\nlink set dev {device} up\n")
        for pool in self._pools:
            failed = failed or self._ip_outside(f"route add {pool} dev {device} src {link[1]}\n")
            if failed:
                log.warning("floating IPs of %s are not reached from outside the sandbox: %s", pool, failed)

    def _make_pair(self) -> int | None:
        """Its number; the first that no other sandbox has."""
        failed = ""
        for number in range(_MOST_LINKS):
            peer = f"peer name {OUTER}{number} netns /proc/self/fd/{self._home}"
            failed = _ip(f"link add {INNER} type veth {peer}\n", descriptors=(self._home,))
            if not failed:
                return number
            if "File exists" not in failed:
                break
        log.warning("floating IPs are not reached from outside the sandbox: %s", failed)
        return None

    def _ip_outside(self, lines: str) -> str:
        return _ip(lines, "nsenter", f"--net=/proc/self/fd/{self._home}", descriptors=(self._home,))


def _start_carrier() -> int | None:
    """A child that stays outside and becomes slirp4netns when it is told to; where to tell it."""
    command = _carrier(os.getpid())
    if shutil.which(command[0]) is None:
        log.warning("guests do not reach out of the sandbox: `apt install slirp4netns` for that")
        return None
    waiting, go = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    if os.fork():
        os.close(waiting)
        return go
    os.close(go)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with contextlib.suppress(OSError):
        if os.getppid() == parent and os.read(waiting, 1):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # it tells how it goes about it
            os.execvp(command[0], command)  # noqa: S606 - an argument list
    os._exit(1)


def _carrier(pid: int) -> list[str]:
    """The host's own loopback is not to be reached by guests."""
    options = ["--configure", "--mtu=65520", "--disable-host-loopback", f"--cidr={_SLIRP}"]
    return ["slirp4netns", *options, str(pid), WAY_OUT]


def _ip(lines: str, *before: str, descriptors: Sequence[int] = ()) -> str:
    """What failed; nothing if all was done."""
    argv = [*before, "ip", "-batch", "-"]
    done = subprocess.run(argv, input=lines, capture_output=True, text=True, pass_fds=descriptors, check=False)
    return done.stderr.strip().partition("\n")[0] if done.returncode else ""
