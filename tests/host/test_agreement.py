"""The explaining model and every packet filter agree: random groups, random packets, sent for real.

Two guests, a machine outside on the same bridge, and the host send to each other, honestly and not. Each packet is a
flow of its own with a mark of its own; what arrived is compared with what the model says of its way out and in.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.drivers.firewall.driver import FirewallDriver
from launcher.explaining import EVERYBODY, NOWHERE, Kind, Packet, Settings, State, explain
from launcher.models import LaunchOrder
from launcher.networks import FixedIp, Network, NetworkMode
from launcher.policy import Direction, Policy, Protocol, Rule, SecurityGroup
from launcher.ports import Port, ports_of
from tests.host import frames
from tests.host.lan import FIREWALLS, LIMIT, namespace, new_namespace
from tests.orders import make_lease, make_order

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

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
PORTS, TYPES = (22, 53, 67, 68, 80, 8775, 65535), (0, 3, 8, 13)
BEGINNINGS = {4: {8, 13}, 6: {128, 133, 134, 135, 136}}
"""The types of ICMP by which something begins, and those that nobody tracks; any other one, alone, is invalid."""
TYPES6 = (1, 128, 129, 133, 134, 135, 136, 137)
ALL_NODES = IPv6Address("ff02::1")
HOST, FAR = "host", "far"
Who = int | str
Address = IPv4Address | IPv6Address
_numbers = itertools.count(1)


@dataclass
class Machine:
    """A network namespace with one NIC on the bridge, and a socket that hears and says whole frames."""

    device: str
    mac: str

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
        subprocess.run(["ip", "link", "set", self.device, "master", NET.bridge, "up"], check=True)

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
            number = next(_numbers)
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


@pytest.fixture(params=sorted(FIREWALLS))
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    firewall = FIREWALLS[request.param](SETTINGS)
    place = Place(firewall)
    await firewall.ensure_base(NET)
    yield place
    place.close()
    await firewall.stop()


SETTINGS = Settings(metadata_port=8775, allow_host_traffic=False)
CIDRS = ("0.0.0.0/0", "10.91.0.0/24", "10.91.0.4/32", "192.0.2.0/24", "10.91.0.1/32")
CIDRS6 = ("::/0", "fd91::/64", "2001:db8::/32")
MEMBERS = {
    1: (IPv4Address(ADDRESSES[0]),),
    2: (IPv4Address(ADDRESSES[1]), OUTSIDE, OUTSIDE6),
    3: (),
}


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    protocol = draw(st.sampled_from(list(Protocol)))
    numbers = st.sampled_from((None, *TYPES, *TYPES6) if protocol is Protocol.ICMP else (None, *PORTS))
    low, high = draw(numbers), draw(st.none() | st.just(0) if protocol is Protocol.ICMP else numbers)
    end = draw(st.sampled_from([{"cidr": each} for each in CIDRS + CIDRS6] + [{"group_id": each} for each in MEMBERS]))
    direction = draw(st.sampled_from([Direction.INGRESS, Direction.INGRESS, Direction.EGRESS]))
    return Rule.model_validate({**end, "protocol": protocol, "direction": direction, "from_port": low, "to_port": high})


@st.composite
def policies(draw: st.DrawFn) -> list[Policy]:
    groups = [
        SecurityGroup(id=number, name=f"group-{number}", rules=tuple(draw(st.lists(rules(), max_size=5))))
        for number in range(1, 4)
    ]
    chosen = [draw(st.lists(st.sampled_from(groups), max_size=2, unique=True)) for _ in ADDRESSES]
    return [Policy(groups=tuple(each), members=MEMBERS) for each in chosen]


def random_packets(rng: Random, place: Place, count: int) -> Iterator[tuple[Who, Who, Packet]]:
    """Sender, target and packet; most are honest."""
    for _ in range(count):
        sender: Who = rng.choice((0, 0, 1, FAR, HOST))
        targets: tuple[Who, ...] = (0, 1) if sender == HOST else (0, 1, HOST, FAR)
        target = rng.choice([each for each in targets if each != sender])
        six = rng.random() < 0.3 and HOST not in (sender, target)
        yield sender, target, _packet(rng, place, sender, target, six)


def _packet(rng: Random, place: Place, sender: Who, target: Who, six: bool) -> Packet:
    kinds = [Kind.TCP, Kind.UDP, Kind.ICMP, Kind.OTHER] * 4 + (
        [] if six or HOST in (sender, target) else [Kind.ARP, Kind.FRAME]
    )
    lies = isinstance(sender, int) and rng.random() < 0.3
    source: Address = _address(place, sender, six)
    if lies and rng.random() < 0.5:
        lied: tuple[Address, ...] = (IPv6Address("fd91::99"), OUTSIDE6) if six else (STRANGER, OUTSIDE, NOWHERE)
        source = rng.choice(lied)
    mac = OTHER_MAC if lies and rng.random() < 0.3 else None
    kind = rng.choice(kinds)
    destination = _address(place, target, six)
    if rng.random() < 0.1 and HOST not in (sender, target) and kind is not Kind.ARP:
        destination = ALL_NODES if six else rng.choice((EVERYBODY, NET.cidr.broadcast_address, STRANGER))
    number = rng.choice(TYPES6 if six else TYPES)
    lost = kind is Kind.ICMP and number not in BEGINNINGS[source.version]
    return Packet(
        kind=kind,
        source=source,
        destination=destination,
        source_port=rng.choice((67, 68, 547)) if rng.random() < 0.2 else rng.randrange(20000, 60000),
        port=rng.choice(PORTS),
        icmp_type=number,
        state=State.INVALID if lost else State.NEW,
        icmp_code=rng.choice((0, 0, 1)),
        opens=rng.random() < 0.8,
        mac=mac,
        arp_mac=OTHER_MAC if lies and kind is Kind.ARP and rng.random() < 0.5 else mac,
        advertised=IPv6Address("fd91::99") if six and lies and rng.random() < 0.3 else None,
        to_host=target == HOST,
    )


def _address(place: Place, who: Who, six: bool) -> Address:
    if isinstance(who, int):
        port = place.launches[who][2][0]
        assert port.address6
        return port.address6 if six else port.address
    if who == HOST:
        return NET.gateway
    return OUTSIDE6 if six else OUTSIDE


def judge(place: Place, policies: list[Policy], sender: Who, target: Who, packet: Packet) -> tuple[bool, str]:
    """What the model says of the whole way."""
    words = []
    if isinstance(sender, int):
        decision = explain(packet, place.launches[sender][2], policies[sender], SETTINGS, direction=Direction.EGRESS)
        words.append(f"out: {decision.rule}")
        if not decision.passes:
            return False, words[0]
    if isinstance(target, int):
        decision = explain(packet, place.launches[target][2], policies[target], SETTINGS)
        words.append(f"in: {decision.rule}")
        return decision.passes, "; ".join(words)
    return True, "; ".join(words) or "nobody filters it"


def _shown(policies: list[Policy]) -> list[list[str]]:
    return [[f"{group.id}: {rule}" for group in policy.groups for rule in group.rules] for policy in policies]


def forget_flows() -> None:
    """What is left of the last rule set must not make a packet part of a known flow."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netlink:
        netlink.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 5, 1, 0, 0, 0, 0))  # IPCTNL_MSG_CT_DELETE, with an answer
        assert netlink.recv(4096)[16:20] == bytes(4)


async def test_the_filters_do_what_the_model_says(place: Place) -> None:
    """Hypothesis draws groups and a seed; the packets of a seed go out together."""
    for drawn, seed in _examples():
        await place.filter(drawn)
        forget_flows()
        sent = []
        place.settle()
        for sender, target, packet in random_packets(Random(seed), place, 100):
            number = next(_numbers)
            place.say(sender, target, packet, number)
            sent.append((number, sender, target, packet))
        place.settle()
        at_host = place.arrived_at_host()
        for number, sender, target, packet in sent:
            arrived = number & 0xFFFF in at_host if target == HOST else number in place.machine(target).heard
            expected, words = judge(place, drawn, sender, target, packet)
            assert arrived == expected, f"{sender} to {target}: {words}: {packet!r}: {_shown(drawn)}"


def _examples() -> list[tuple[list[Policy], int]]:
    """A fixed number of random rule sets; the same ones in each run."""
    found: list[tuple[list[Policy], int]] = []

    @settings(max_examples=40, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(policies(), st.integers(0, 2**32))
    def collect(drawn: list[Policy], seed: int) -> None:
        found.append((drawn, seed))

    collect()
    return found
