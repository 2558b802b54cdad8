"""An instance with a NIC in each of two networks: what one NIC may send and get, the other may not."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network

import pytest

from launcher.explaining import Kind, Packet
from launcher.models import Nic
from launcher.policy import Policy, Protocol, Rule, SecurityGroup
from tests.host import frames
from tests.host.nwfilters import ALL
from tests.host.place import NET, SETTINGS, Machine, Place, forget_flows, numbers
from tests.orders import make_lease, make_order

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

ONE, TWO = 5000, 6000
OTHER_NET = NET.model_copy(
    update={
        "name": "other",
        "bridge": "br-other",
        "cidr": IPv4Network("10.92.0.0/24"),
        "gateway": IPv4Address("10.92.0.1"),
        "cidr6": None,
    }
)
MACS = ("02:16:3e:00:01:00", "02:16:3e:00:01:01")
FAR_MAC = "02:aa:00:00:01:00"
PEERS = IPv4Address("10.91.0.9"), IPv4Address("10.92.0.9")
"""In each network a machine that nobody filters."""


class Both:
    """The two NICs, and in the network of each a peer."""

    def __init__(self, place: Place) -> None:
        for words in (
            f"link add {OTHER_NET.bridge} type bridge stp_state 0 forward_delay 0",
            f"link set {OTHER_NET.bridge} up",
        ):
            subprocess.run(["ip", *words.split()], check=True)
        self.order = make_order(3, nics=tuple(Nic(mac=mac) for mac in MACS))
        self.leases = [
            make_lease(self.order, "10.91.0.7", NET),
            make_lease(self.order, "10.92.0.7", OTHER_NET, nic=1).model_copy(update={"nic": 1}),
        ]
        self.nics = [
            Machine(self.order.tap_of(nic), lease.mac, lease.network.bridge) for nic, lease in enumerate(self.leases)
        ]
        self.peers = [place.far, Machine("far-other", FAR_MAC, OTHER_NET.bridge)]

    def say(self, sender: Machine, target: Machine, packet: Packet) -> int:
        number = next(numbers)
        sender.wire.send(frames.build(packet, sender.mac, target.mac, number))
        return number

    def listen(self) -> None:
        for machine in (*self.nics, *self.peers):
            machine.listen()

    def close(self) -> None:
        for machine in (*self.nics, self.peers[1]):
            machine.wire.close()


@pytest.fixture(params=sorted(ALL))
async def both(request: pytest.FixtureRequest) -> AsyncIterator[Both]:
    firewall = ALL[request.param](SETTINGS)
    place = Place(firewall)
    both = Both(place)
    for network in (NET, OTHER_NET):
        await firewall.ensure_base(network)
    rules = [
        Rule(protocol=Protocol.UDP, from_port=port, to_port=port, cidr=network.cidr)
        for port, network in ((ONE, NET), (TWO, OTHER_NET))
    ]
    policy = Policy(groups=(SecurityGroup(id=1, name="each", rules=tuple(rules)),))
    await firewall.apply(both.order, both.leases, policy)
    forget_flows()
    yield both
    both.close()
    place.close()
    await firewall.stop()


async def test_each_nic_has_its_own_address_and_gets_what_is_for_it(both: Both) -> None:
    own, macs = [lease.address for lease in both.leases], [nic.mac for nic in both.nics]
    sent: list[tuple[str, Machine, int, bool]] = []
    for here, there in ((0, 1), (1, 0)):
        nic, peer = both.nics[here], both.peers[here]
        port, other = (ONE, TWO)[here], (ONE, TWO)[there]

        def packet(source: IPv4Address, target: IPv4Address, to: int, mac: str | None = None) -> Packet:
            return Packet(kind=Kind.UDP, source=source, destination=target, source_port=4000, port=to, mac=mac)

        for words, sender, target, said, passes in (
            ("its network's rule", peer, nic, packet(PEERS[here], own[here], port), True),
            ("the other network's rule", peer, nic, packet(PEERS[here], own[here], other), False),
            ("the other NIC's address", peer, nic, packet(PEERS[here], own[there], port), False),
            ("its own", nic, peer, packet(own[here], PEERS[here], port), True),
            ("as the other NIC", nic, peer, packet(own[there], PEERS[here], port), False),
            ("by the other NIC's MAC", nic, peer, packet(own[here], PEERS[here], port, macs[there]), False),
        ):
            sent.append((f"{words}, by NIC {here}", target, both.say(sender, target, said), passes))
    both.listen()
    assert [words for words, target, number, passes in sent if (number in target.heard) is not passes] == []
