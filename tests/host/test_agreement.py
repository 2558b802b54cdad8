"""The explaining model and every packet filter agree: random groups, random packets, sent for real.

Two guests, a machine outside on the same bridge, and the host send to each other, honestly and not. Each packet is a
flow of its own with a mark of its own; what arrived is compared with what the model says of its way out and in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.explaining import EVERYBODY, NOWHERE, Kind, Packet, State, explain
from launcher.policy import Direction, Policy, Protocol, Rule, SecurityGroup
from tests.host.nwfilters import ALL
from tests.host.place import (
    ADDRESSES,
    FAR,
    HOST,
    NET,
    OTHER_MAC,
    OUTSIDE,
    OUTSIDE6,
    SETTINGS,
    STRANGER,
    Address,
    Place,
    Who,
    forget_flows,
    numbers,
)

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

PORTS, TYPES = (22, 53, 67, 68, 80, 8775, 65535), (0, 3, 8, 13)
BEGINNINGS = {4: {8, 13}, 6: {128, 133, 134, 135, 136}}
"""The types of ICMP by which something begins, and those that nobody tracks; any other one, alone, is invalid."""
TYPES6 = (1, 128, 129, 133, 134, 135, 136, 137)
ALL_NODES = IPv6Address("ff02::1")


@pytest.fixture(params=sorted(ALL))
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    firewall = ALL[request.param](SETTINGS)
    place = Place(firewall)
    await firewall.ensure_base(NET)
    yield place
    place.close()
    await firewall.stop()


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


async def test_the_filters_do_what_the_model_says(place: Place) -> None:
    """Hypothesis draws groups and a seed; the packets of a seed go out together."""
    for drawn, seed in _examples():
        await place.filter(drawn)
        forget_flows()
        sent = []
        place.settle()
        for sender, target, packet in random_packets(Random(seed), place, 100):
            number = next(numbers)
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
