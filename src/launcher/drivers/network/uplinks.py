"""The ways of a project's bridge to other hosts: 802.1Q tags on an interface, or VXLAN over its address."""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import IPv4Address

from launcher.drivers import process
from launcher.drivers.network import links
from launcher.errors import HostResourceMissing, NetworkFailed
from launcher.networks import Network, Overlay

VXLAN_PORT = 4789
VXLAN_BYTES = 50
"""What VXLAN puts around a frame: outer IPv4, UDP and VXLAN headers and the inner Ethernet header."""
UNKNOWN = "Unknown device type"
EVERYBODY = "00:00:00:00:00:00"
"""Where a forwarding table sends what it has not learnt."""


class Tags:
    """802.1Q: what leaves by `interface` bears the segment as its VLAN id."""

    def __init__(self, interface: str) -> None:
        self._interface = interface

    async def check(self) -> None:
        probe = f"probe{os.getpid()}"
        tagged = f"link add link {probe} name {probe}.1 type vlan id 1"
        await _check(self._interface, probe, [f"link add {probe} type bridge", tagged], "802.1Q VLAN", "8021q", "vxlan")

    async def attach(self, network: Network) -> None:
        name = f"vlan{network.segment}"
        lines = [f"link add link {self._interface} name {name} type vlan id {network.segment}"]
        await _attach(name, lines, network.bridge)

    async def detach(self, network: Network) -> None:
        await links.remove_ours(f"vlan{network.segment}")

    def mtu(self) -> int | None:
        return None


class Vxlan:
    """The segment is the VXLAN network identifier. Without `peers` the hosts meet in the multicast `group`."""

    def __init__(self, interface: str, *, group: IPv4Address, peers: Sequence[IPv4Address] = ()) -> None:
        self._interface, self._group, self._peers = interface, group, peers

    async def check(self) -> None:
        probe = f"probe{os.getpid()}"
        lines = [f"link add {probe} type vxlan id 1 dstport 0"]
        await _check(self._interface, probe, lines, "VXLAN", "vxlan", "none")

    async def attach(self, network: Network) -> None:
        name = f"vx{network.segment}"
        way = f"dev {self._interface}" + ("" if self._peers else f" group {self._group}")
        lines = [f"link add {name} type vxlan id {network.segment} dstport {VXLAN_PORT} {way}"]
        await _attach(name, lines, network.bridge)
        await self._introduce(name)

    async def detach(self, network: Network) -> None:
        await links.remove_ours(f"vx{network.segment}")

    def mtu(self) -> int | None:
        return links.mtu_of(self._interface) - VXLAN_BYTES

    async def _introduce(self, name: str) -> None:
        """What is not learnt yet goes to every peer."""
        if not self._peers:
            return
        known = (await process.run(["bridge", "fdb", "show", "dev", name])).split()
        for peer in self._peers:
            if str(peer) not in known:
                await process.run(["bridge", "fdb", "append", EVERYBODY, "dev", name, "dst", str(peer)])


def choose_uplink(
    overlay: Overlay, interface: str, *, group: IPv4Address, peers: Sequence[IPv4Address]
) -> Tags | Vxlan | None:
    match overlay:
        case Overlay.VLAN:
            return Tags(interface)
        case Overlay.VXLAN:
            return Vxlan(interface, group=group, peers=peers)
        case Overlay.NONE:
            return None


async def _check(interface: str, probe: str, lines: Sequence[str], what: str, module: str, instead: str) -> None:
    """Try it on a device that goes at once."""
    if not links.exists(interface):
        raise HostResourceMissing(
            f"there is no interface {interface} for the networks of projects",
            hint='set [network] interface, or overlay = "none" where there is one host only',
        )
    try:
        await links.run_ip(lines, probe)
    except NetworkFailed as error:
        if UNKNOWN in error.message:
            raise HostResourceMissing(
                f"this kernel has no {what} devices, which [network] overlay needs",
                hint=f'`modprobe {module}`, or set [network] overlay = "{instead}"',
            ) from None
    finally:
        await links.remove(probe)


async def _attach(name: str, lines: Sequence[str], bridge: str) -> None:
    links.check_ours(name)
    missing = [] if links.exists(name) else lines
    await links.run_ip([*missing, f"link set dev {name} alias {links.MARK} master {bridge} up"], name)
