"""One bridge with its DHCP server, packet filters, and guests: network namespaces with a veth named as a tap is."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.firewall.iptables import IptablesFirewall
from launcher.drivers.firewall.nftables import NftablesFirewall
from launcher.drivers.network.flat_dhcp import FlatDhcpNetwork
from launcher.explaining import Settings
from launcher.models import LaunchOrder
from launcher.networks import FixedIp, Network, NetworkMode
from launcher.policy import Policy, Protocol, Rule, SecurityGroup
from tests.orders import make_launch

FIREWALLS: dict[str, Callable[[Settings], FirewallDriver]] = {
    "iptables": IptablesFirewall,
    "nftables": NftablesFirewall,
}
LAN = Network(
    name="packets",
    mode=NetworkMode.FLAT_DHCP,
    bridge="br-packets",
    cidr=IPv4Network("10.90.0.0/24"),
    gateway=IPv4Address("10.90.0.1"),
)
ANYWHERE = IPv4Network("0.0.0.0/0")
OPEN, CLOSED, METADATA_PORT = 7000, 7001, 8775
LIMIT = 5.0
SETTINGS = Settings(metadata_port=METADATA_PORT, allow_host_traffic=False)
_identifiers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


def a_group(*rules: Rule) -> SecurityGroup:
    return SecurityGroup(id=1, name="default", rules=rules)


def allowing(protocol: Protocol, low: int | None = None, high: int | None = None, source: str = "") -> SecurityGroup:
    cidr = IPv4Network(source) if source else ANYWHERE
    return a_group(Rule(protocol=protocol, from_port=low, to_port=high, cidr=cidr))


OPEN_UDP = allowing(Protocol.UDP, OPEN, OPEN)


def a_launch(number: int, *groups: SecurityGroup) -> tuple[LaunchOrder, list[FixedIp], Policy]:
    return make_launch(number, *groups, network=LAN)


@contextlib.contextmanager
def namespace(descriptor: int) -> Iterator[None]:
    """This thread in another network namespace; a socket made there stays there. Do not await inside."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert _libc.setns(descriptor, 0) == 0
        yield
    finally:
        assert _libc.setns(home, 0) == 0
        os.close(home)


def new_namespace() -> int:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert _libc.unshare(0x40000000) == 0  # CLONE_NEWNET
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    finally:
        assert _libc.setns(home, 0) == 0
        os.close(home)


class Guest:
    """A machine as the network sees one: its NIC's other end is on the bridge under the tap's name."""

    def __init__(self, order: LaunchOrder, lease: FixedIp) -> None:
        self.order, self.lease = order, lease
        self.descriptor = new_namespace()
        self.sockets: list[socket.socket] = []
        self.path = f"/proc/{os.getpid()}/fd/{self.descriptor}"
        nic = ["peer", "name", "eth0", "address", order.nics[0].mac, "netns", self.path]
        subprocess.run(["ip", "link", "add", order.tap, "type", "veth", *nic], check=True)
        subprocess.run(["ip", "link", "set", order.tap, "master", LAN.bridge, "up"], check=True)
        self.run("ip", "link", "set", "eth0", "up")

    def configure(self) -> None:
        """The address, as an image with an injected network file has it."""
        self.run("ip", "address", "add", f"{self.lease.address}/{LAN.cidr.prefixlen}", "dev", "eth0")
        self.run("ip", "route", "add", "default", "via", str(LAN.gateway))

    def run(self, *argv: str) -> str:
        done = subprocess.run(["nsenter", f"--net={self.path}", *argv], check=True, capture_output=True, text=True)
        return done.stdout

    def open(self, kind: socket.SocketKind, protocol: int = 0, *, family: int = socket.AF_INET) -> socket.socket:
        with namespace(self.descriptor):
            made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        self.sockets.append(made)
        return made

    def listen_udp(self, port: int) -> socket.socket:
        made = self.open(socket.SOCK_DGRAM)
        made.bind((str(self.lease.address), port))
        return made

    def unplug(self) -> None:
        for made in self.sockets:
            made.close()
        subprocess.run(["ip", "link", "delete", self.order.tap], check=True)
        os.close(self.descriptor)


class Lan:
    """One bridge with its DHCP server, the filters, and guests."""

    def __init__(self, state: Path, firewall: str = "nftables", settings: Settings = SETTINGS) -> None:
        self.network = FlatDhcpNetwork(state)
        self.firewall = FIREWALLS[firewall](settings)
        self.guests: list[Guest] = []

    async def start(self) -> None:
        await self.network.ensure_network(LAN)
        await self.firewall.ensure_base(LAN)

    async def launch(self, number: int, *groups: SecurityGroup) -> Guest:
        guest = await self.plug(number, *groups)
        guest.configure()
        return guest

    async def plug(self, number: int, *groups: SecurityGroup) -> Guest:
        """A guest without an address, filtered."""
        order, nics, policy = a_launch(number, *groups)
        guest = Guest(order, nics[0])
        self.guests.append(guest)
        await self.firewall.apply(order, nics, policy)
        return guest

    async def stop(self) -> None:
        for guest in self.guests:
            guest.unplug()
            await self.firewall.remove(guest.order)
        await self.network.set_leases(LAN, ())
        await self.network.stop()
        await self.firewall.stop()
        subprocess.run(["ip", "link", "delete", LAN.bridge], check=True)


@contextlib.contextmanager
def host_socket(kind: socket.SocketKind = socket.SOCK_DGRAM, protocol: int = 0) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, kind, protocol) as made:
        made.setblocking(False)
        yield made


def send(sender: socket.socket, data: bytes, target: IPv4Address, port: int = 0) -> None:
    """The host is told at once when its own filter has dropped a packet; a guest is not."""
    with contextlib.suppress(PermissionError):
        sender.sendto(data, (str(target), port))


async def received(listener: socket.socket) -> tuple[bytes, str]:
    """The next packet and its sender's address."""
    async with asyncio.timeout(LIMIT):
        data, sender = await asyncio.get_running_loop().sock_recvfrom(listener, 2048)
    return data, sender[0]


def nothing_came(listener: socket.socket) -> bool:
    try:
        listener.recv(2048)
    except BlockingIOError:
        return True
    return False


def icmp(kind: int, code: int) -> bytes:
    """A request without content; each has an identifier of its own, so that none belongs to a flow already let in."""
    first, identifier = kind << 8 | code, next(_identifiers)
    return struct.pack("!10H", first, ~(first + identifier) & 0xFFFF, identifier, *[0] * 7)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read(100))
    writer.close()
