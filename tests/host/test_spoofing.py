"""What an instance may not send, one lie at a time, whoever it is for; and that it is the lie that stops it."""

from __future__ import annotations

import itertools
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest

from launcher.explaining import EVERYBODY, NOWHERE, NOWHERE6, Kind, Packet
from launcher.policy import Policy, Protocol, Rule, SecurityGroup
from tests.host import frames
from tests.host.nwfilters import ALL
from tests.host.place import (
    ADDRESSES,
    FAR,
    NET,
    OTHER_MAC,
    OUTSIDE,
    OUTSIDE6,
    SETTINGS,
    STRANGER,
    Place,
    Who,
    forget_flows,
    numbers,
)

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

EVERYTHING = SecurityGroup(
    id=1,
    name="open",
    rules=(
        Rule(protocol=Protocol.ANY, cidr=IPv4Network("0.0.0.0/0")),
        Rule(protocol=Protocol.ANY, cidr=IPv6Network("::/0")),
    ),
)
OPEN = [Policy(groups=(EVERYTHING,)), Policy(groups=(EVERYTHING,))]
OWN, OTHERS = IPv4Address(ADDRESSES[0]), IPv4Address(ADDRESSES[1])
PREFIX6 = IPv6Network("fd91::/64")
GATEWAY6, OTHERS6 = PREFIX6[1], PREFIX6[0x16_3EFF_FE00_0002]
MULTICAST = IPv6Address("ff02::1")


@dataclass
class Lie:
    """What is changed of an honest packet."""

    honest: dict[str, Any]
    lie: dict[str, Any]
    six: bool = False


UDP: dict[str, Any] = {"kind": Kind.UDP, "source_port": 4000, "port": 5000}
ARP: dict[str, Any] = {"kind": Kind.ARP}
ADVERT: dict[str, Any] = {"kind": Kind.ICMP, "icmp_type": 136, "icmp_code": 0}
LIES = {
    "another MAC": Lie(UDP, {"mac": OTHER_MAC}),
    "another instance's address": Lie(UDP, {"source": OTHERS}),
    "nobody's address": Lie(UDP, {"source": STRANGER}),
    "an outside address": Lie(UDP, {"source": OUTSIDE}),
    "the gateway's address": Lie(UDP, {"source": NET.gateway}),
    "no address": Lie(UDP, {"source": NOWHERE}),
    "ARP from another MAC": Lie(ARP, {"arp_mac": OTHER_MAC}),
    "ARP for another address": Lie(ARP, {"source": OTHERS}),
    "ARP for the gateway": Lie(ARP, {"source": NET.gateway}),
    "a DHCP offer": Lie(UDP, {"source_port": 67, "port": 68}),
    "a DHCP offer in the gateway's name": Lie(UDP, {"source_port": 67, "port": 68, "source": NET.gateway}),
    "a DHCPv6 answer": Lie(UDP, {"source_port": 547, "port": 546}, six=True),
    "a router advertisement": Lie(ADVERT, {"icmp_type": 134}, six=True),
    "a redirect": Lie(ADVERT, {"icmp_type": 137}, six=True),
    "another's IPv6 address": Lie(UDP, {"source": OUTSIDE6}, six=True),
    "another instance's IPv6 address": Lie(UDP, {"source": OTHERS6}, six=True),
    "another's address in its network": Lie(UDP, {"source": PREFIX6[99]}, six=True),
    "the IPv6 gateway's address": Lie(UDP, {"source": GATEWAY6}, six=True),
    "another's link-local address": Lie(UDP, {"source": IPv6Address("fe80::1")}, six=True),
    "no IPv6 address": Lie(UDP, {"source": NOWHERE6}, six=True),
    "a solicitation in another's name": Lie(ADVERT, {"icmp_type": 135, "source": OTHERS6}, six=True),
    "a DHCPv6 answer in the gateway's name": Lie(UDP, {"source_port": 547, "port": 546, "source": GATEWAY6}, six=True),
    "another MAC with IPv6": Lie(UDP, {"mac": OTHER_MAC}, six=True),
    "an advertisement of another instance's address": Lie(ADVERT, {"advertised": OTHERS6}, six=True),
    "an advertisement of another's address": Lie(ADVERT, {"advertised": OUTSIDE6}, six=True),
    "a frame of another kind": Lie(UDP, {"kind": Kind.FRAME}),
}


@pytest.fixture(params=sorted(ALL))
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    firewall = ALL[request.param](SETTINGS)
    place = Place(firewall)
    await firewall.ensure_base(NET)
    await place.filter(OPEN)
    forget_flows()
    place.settle()
    yield place
    place.close()
    await firewall.stop()


def packet(place: Place, target: Who, six: bool, **changes: Any) -> Packet:
    (one,), (other,) = place.launches[0][2], place.launches[1][2]
    ends: dict[str, Any] = {"source": one.address, "destination": OUTSIDE if target == FAR else other.address}
    if six:
        ends = {"source": one.address6, "destination": OUTSIDE6 if target == FAR else other.address6}
    return Packet(**{**ends, **changes})


async def test_no_lie_leaves_an_instance(place: Place) -> None:
    """Each lie is sent to an instance and to the outside, and after it the same without the lie."""
    sent = []
    for words, case in LIES.items():
        for target in (1, FAR):
            for changes in ({**case.honest, **case.lie}, case.honest):
                number = next(numbers)
                place.say(0, target, packet(place, target, case.six, **changes), number)
                sent.append((words, target, changes is case.honest, number))
    place.settle()
    wrong = [
        (words, target, "honest" if honest else "lie")
        for words, target, honest, number in sent
        if (number in place.machine(target).heard) is not honest
    ]
    assert wrong == []


async def test_nothing_hides_a_lie(place: Place) -> None:
    """A tag or a header of options before it; the fragments that are a lie only when they have come together."""
    sent: list[tuple[str, Who, int]] = []
    for sender, target in ((0, 1), (0, FAR), (FAR, 0)):
        content = frames.ip(Packet(kind=Kind.UDP, source=OWN, destination=OTHERS, port=5000), number := next(numbers))
        say(place, sender, target, struct.pack("!HH", 7, 0x0800) + content, 0x8100)
        sent.append(("tagged", target, number))
    for target in (1, FAR):
        for words in ("a router advertisement", "a redirect", "a DHCPv6 answer", "a DHCP offer"):
            case = LIES[words]
            lie = packet(place, target, case.six, **{**case.honest, **case.lie})
            if case.six:
                say(place, 0, target, frames.with_options(lie, number := next(numbers)))
                sent.append((f"{words} behind options", target, number))
            first, last = next(numbers), next(numbers)
            for part in frames.fragments(lie, first, last):
                say(place, 0, target, part)
            sent += [(f"{words} in fragments", target, number) for number in (first, last)]
    place.settle()
    assert [each for each in sent if each[2] in place.machine(each[1]).heard] == []


FRAGMENTED: tuple[tuple[str, dict[str, Any], str, str], ...] = (
    ("to an open port", {}, "FL", "FL"),
    ("to an open port, the last one first", {}, "LF", "FL"),
    ("to a closed port", {"port": 5001}, "FL", ""),
    ("without the last", {}, "F", ""),
    ("without the first", {}, "L", ""),
    ("with a second beginning, to a closed port", {}, "FSL", "FL"),
    ("in another's name", {"source": STRANGER}, "FL", ""),
)
"""What is sent of a datagram, and what of it arrives: the first fragment, a second first one, the last."""


async def test_fragments_are_judged_as_what_they_are_together(place: Place) -> None:
    """A later one has no ports of its own. Those of IPv6 go on as one frame, whose end is the last one's."""
    ends = IPv4Network("0.0.0.0/0"), IPv6Network("::/0")
    rules = tuple(Rule(protocol=Protocol.UDP, from_port=5000, to_port=5000, cidr=end) for end in ends)
    await place.filter([Policy(), Policy(groups=(SecurityGroup(id=1, name="open", rules=rules),))])
    wrong = []
    for six, (words, changes, sending, arriving) in itertools.product((False, True), FRAGMENTED):
        first, second, last = next(numbers), next(numbers), next(numbers)
        lie = {"source": OTHERS6} if six and "source" in changes else changes
        said = packet(place, 1, six, **{**UDP, "source_port": 4000 + first % 1000, **lie})
        parts = dict(zip("FL", frames.fragments(said, first, last), strict=True))
        closed = frames.fragments(said.model_copy(update={"port": 5001}), first, last)[0]
        parts["S"] = closed.replace(frames.mark(first), frames.mark(second))
        for part in sending:
            say(place, 0, 1, parts[part])
        place.settle()
        marks = {"F": first, "S": second, "L": last}
        heard = "".join(part for part, number in marks.items() if number in place.guests[1].heard)
        if heard != (arriving[-1:] if six else arriving):
            wrong.append((words, six, heard))
    assert wrong == []


def say(place: Place, sender: Who, target: Who, content: bytes, kind: int | None = None) -> None:
    """As it is; `kind` is the frame's, by default that of the content."""
    machine = place.machine(sender)
    known = 0x0800 if content[0] >> 4 == 4 else 0x86DD
    machine.wire.send(frames.ethernet(place.machine(target).mac, machine.mac, kind or known, content))


async def test_a_broadcast_is_no_way_around_the_groups(place: Place) -> None:
    """A guest with a rule for nobody heard what was sent to all. A router's advertisements come in."""
    await place.filter([OPEN[0], Policy()])
    sent = []
    for target in (EVERYBODY, NET.cidr.broadcast_address, IPv4Address("224.0.0.251"), STRANGER):
        for sender, mac in ((0, frames.BROADCAST), (FAR, frames.BROADCAST), (0, place.guests[1].mac)):
            number = next(numbers)
            source = OWN if sender == 0 else OUTSIDE
            said = Packet(kind=Kind.UDP, source=source, destination=target, source_port=4000, port=5000)
            machine = place.machine(sender)
            machine.wire.send(frames.build(said, machine.mac, mac, number))
            sent.append((number, str(target), sender, mac))
    place.settle()
    assert [each for each in sent if each[0] in place.guests[1].heard] == []
    number = next(numbers)
    router = IPv6Address("fe80::1")
    said = Packet(kind=Kind.ICMP, source=router, destination=MULTICAST, icmp_type=134, icmp_code=0)
    place.far.wire.send(frames.build(said, place.far.mac, "33:33:00:00:00:01", number))
    place.settle()
    assert all(number in guest.heard for guest in place.guests)
