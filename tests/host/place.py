"""A bridge with two guests, a machine that nobody filters, and the host; all of them say and hear whole frames."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import subprocess
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from launcher.drivers.firewall.driver import FirewallDriver
from launcher.explaining import Packet, Settings
from launcher.models import LaunchOrder
from launcher.networks import FixedIp, Network, NetworkMode
from launcher.policy import Policy
from launcher.ports import Port, ports_of
from tests.host import frames
from tests.host.lan import LIMIT, namespace, new_namespace
from tests.orders import make_lease, make_order

NET = Network(
    name="agreement",
    mode=NetworkMode.FLAT_DHCP,
    bridge="br-agree",
    cidr=IPv4Network("10.91.0.0/24"),
    gateway=IPv4Address("10.91.0.1"),
    cidr6=IPv6Network("fd91::/64"),
)
ADDRESSES, OUTSIDE = ("10.91.0.3", "10.91.0.4"), IPv4Address("192.0.2.7")
OUTSIDE_MAC, OTHER_MAC = "02:aa:00:00:00:01", "02:aa:00:00:00:02"
OUTSIDE6, STRANGER = IPv6Address("2001:db8::7"), IPv4Address("10.91.0.77")
SETTINGS = Settings(metadata_port=8775, allow_host_traffic=False)
HOST, FAR = "host", "far"
Who = int | str
Address = IPv4Address | IPv6Address
numbers = itertools.count(1)


@dataclass
class Machine:
    """A network namespace with one NIC on the bridge, and a socket that hears and says whole frames."""

    device: str
    mac: str
    bridge: str = NET.bridge

    def __post_init__(self) -> None:
        self.descriptor = new_namespace()
        there = f"/proc/{os.getpid()}/fd/{self.descriptor}"
        nic = ["peer", "name", "eth0", "address", self.mac, "netns", there]
        subprocess.run(["ip", "link", "add", self.device, "type", "veth", *nic], check=True)
        with namespace(self.descriptor):
            subprocess.run(["ip", "link", "set", "eth0", "up"], check=True)
            self.wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.wire.bind(("eth0", 0))
        self.wire.setblocking(False)
        self.heard: set[int] = set()
        subprocess.run(["ip", "link", "set", self.device, "master", self.bridge, "up"], check=True)

    def listen(self) -> None:
        while True:
            try:
                frame, about = self.wire.recvfrom(4096)
            except BlockingIOError:
                return
            if about[2] != socket.PACKET_OUTGOING and frame[-8:-4] == b"mark":
                self.heard.add(frames.MARK.unpack(frame[-8:])[1])


class Place:
    """The bridge with two guests and a machine that nobody filters, and a set of what came through to the host."""

    def __init__(self, firewall: FirewallDriver) -> None:
        self.firewall = firewall
        for words in (
            f"link add {NET.bridge} type bridge stp_state 0 forward_delay 0",
            f"address add {NET.gateway}/24 dev {NET.bridge}",
            f"address add fd91::1/64 dev {NET.bridge} nodad",
            f"link set {NET.bridge} address 02:aa:00:00:00:ff up",
        ):
            subprocess.run(["ip", *words.split()], check=True)
        probe = (
            "table ip probe { set arrived { typeof ip id; flags dynamic; }; chain input { type filter hook input "
            f"priority 200; iifname {NET.bridge} add @arrived {{ ip id }}; }}; }}"
        )
        subprocess.run(["nft", "-f", "-"], input=probe, text=True, check=True)
        self.launches = [self._launch(number, address) for number, address in enumerate(ADDRESSES, 1)]
        self.guests = [Machine(order.tap, lease.mac) for order, lease, _ in self.launches]
        self.far = Machine("far", OUTSIDE_MAC)
        self.host = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.host.bind((NET.bridge, 0))
        self.out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def _launch(self, number: int, address: str) -> tuple[LaunchOrder, FixedIp, tuple[Port, ...]]:
        order = make_order(number)
        lease = make_lease(order, address, NET)
        return order, lease, ports_of(order, [lease])

    async def filter(self, policies: list[Policy]) -> None:
        for (order, lease, _), policy in zip(self.launches, policies, strict=True):
            await self.firewall.apply(order, [lease], policy)

    def arrived_at_host(self) -> set[int]:
        listed = subprocess.run(
            ["nft", "list", "set", "ip", "probe", "arrived"], capture_output=True, text=True, check=True
        )
        content = listed.stdout.partition("elements = {")[2].partition("}")[0]
        return {int(word) for word in content.replace(",", " ").split()}

    def say(self, sender: Who, target: Who, packet: Packet, number: int) -> None:
        """From a guest's or the far machine's NIC as a frame; from the host through its own output."""
        if sender == HOST:
            assert isinstance(target, int)
            with contextlib.suppress(PermissionError):  # the host is told at once
                self.out.sendto(frames.ip(packet, number), (str(packet.destination), 0))
            return
        mac = "02:aa:00:00:00:ff" if target == HOST else self.machine(target).mac
        machine = self.machine(sender)
        machine.wire.send(frames.build(packet, machine.mac, mac, number))

    def machine(self, which: Who) -> Machine:
        return self.far if which == FAR else self.guests[int(which)]

    def settle(self) -> None:
        """An ARP request passes on every way, and what was sent before it is through when it is."""
        machines = [*self.guests, self.far]
        fences = []
        for sender in [*self.guests, self.far, None]:
            number = next(numbers)
            address = self.launches[self.guests.index(sender)][1].address if sender in self.guests else OUTSIDE
            mac = sender.mac if sender else "02:aa:00:00:00:ff"
            frame = frames.ethernet(
                frames.BROADCAST, mac, 0x0806, frames.arp(mac, address, OUTSIDE) + frames.mark(number)
            )
            (sender.wire if sender else self.host).send(frame)
            fences += [(machine, number) for machine in machines if machine is not sender]
        limit = time.monotonic() + LIMIT
        while any(number not in machine.heard for machine, number in fences):
            assert time.monotonic() < limit, "a fence did not arrive"
            for machine in machines:
                machine.listen()

    def close(self) -> None:
        for machine in (*self.guests, self.far):
            machine.wire.close()
        self.host.close()
        self.out.close()


def forget_flows() -> None:
    """What is left of the last rule set must not make a packet part of a known flow."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        netlink.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 5, 1, 0, 0, 0, 0))  # IPCTNL_MSG_CT_DELETE, with an answer
        assert netlink.recv(4096)[16:20] == bytes(4)
