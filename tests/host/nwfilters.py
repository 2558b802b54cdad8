"""The packet filter by nwfilter, with a libvirtd of the tests' own in their sandbox."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.firewall.nwfilter import NwfilterFirewall
from launcher.explaining import Settings
from launcher.models import LaunchOrder
from launcher.networks import FixedIp
from launcher.policy import Policy
from tests.host.lan import FIREWALLS
from tests.host.libvirtd import arguments, furnish

LIMIT = 10.0


class Shared:
    """One for all tests of a run, with nobody's bindings; it ends with the sandbox."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="nwfilter-"))
        self.socket = furnish(self.directory)
        self.uri = f"qemu+unix:///system?socket={self.socket}"
        self.start()

    def start(self) -> None:
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(arguments(self.directory), stdout=quiet, stderr=quiet)
        limit = time.monotonic() + LIMIT
        while not self.socket.exists():
            assert time.monotonic() < limit, "libvirtd did not start"
            time.sleep(0.02)

    def forget(self) -> None:
        """What an earlier test left. To let go of each binding would take half a second."""
        left = self.directory / "run" / "nwfilter-binding"
        if (left.is_dir() and any(left.iterdir())) or self.process.poll() is not None:
            self.kill()
            shutil.rmtree(left)
            self.start()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)


@functools.cache
def daemon() -> Shared:
    return Shared()


def nwfilter(settings: Settings) -> NwfilterFirewall:
    daemon().forget()
    return NwfilterFirewall(settings, daemon().uri)


ALL: dict[str, Callable[[Settings], FirewallDriver]] = {**FIREWALLS, "nwfilter": nwfilter}


class Plugging(NwfilterFirewall):
    """For instances without a machine: each NIC's tap is there before its filters, as a launch makes it."""

    async def apply(self, order: LaunchOrder, nics: Sequence[FixedIp], policy: Policy) -> None:
        for lease in nics:
            tap = order.tap_of(lease.nic)
            if not Path("/sys/class/net", tap).exists():
                subprocess.run(["ip", "tuntap", "add", tap, "mode", "tap"], check=True)
        await super().apply(order, nics, policy)


def plugging(settings: Settings) -> Plugging:
    return Plugging(settings, daemon().uri)
