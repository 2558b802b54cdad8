"""Flows that were let in once: they live as long as their owner and as the rule that let them in, through restarts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from launcher.drivers.flows import Flows
from launcher.policy import Direction, Policy, Protocol, Rule, SecurityGroup
from tests.host.lan import (
    ANYWHERE,
    FIREWALLS,
    LAN,
    LIMIT,
    OPEN,
    OPEN_UDP,
    SETTINGS,
    Guest,
    Lan,
    a_group,
    a_launch,
    allowing,
    nothing_came,
    received,
    send,
)
from tests.orders import make_lease

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

ADDRESS = IPv4Address("10.90.0.3")
LATER = OPEN + 1
BOTH_UDP = allowing(Protocol.UDP, OPEN, LATER)
LATER_UDP = allowing(Protocol.UDP, LATER, LATER)


@pytest.fixture(params=sorted(FIREWALLS))
async def lan(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Lan]:
    lan = Lan(tmp_path, request.param)
    await lan.start()
    yield lan
    await lan.stop()


@pytest.fixture
def flows() -> Iterator[Flows]:
    with contextlib.closing(Flows()) as made:
        yield made


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    """On the gateway's address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setblocking(False)
        yield made


async def begin(sender: socket.socket, guest: Guest) -> socket.socket:
    """A flow to the guest that has been answered; the guest's socket."""
    if sender.getsockname()[1] == 0:
        sender.bind((str(LAN.gateway), 0))
    listener = guest.listen_udp(OPEN)
    send(sender, b"hello", guest.lease.address, OPEN)
    await received(listener)
    listener.sendto(b"answer", sender.getsockname())
    assert (await received(sender))[0] == b"answer"
    return listener


@pytest.mark.parametrize("known", [True, False], ids=["known", "of another process"])
async def test_an_old_flow_does_not_pass_to_the_next_owner_of_an_address(
    lan: Lan, sender: socket.socket, known: bool
) -> None:
    """The new guest lets nothing in on that port, but the kernel remembered that the old one did.

    One that another process has launched is removed by a process that had looked for flows when it had none.
    """
    old = await lan.launch(1, OPEN_UDP)
    if not known:
        await lan.firewall.stop()
        lan.firewall = type(lan.firewall)(SETTINGS)  # type: ignore[call-arg]
        await lan.firewall.start()
        await lan.launch(3, OPEN_UDP)
    await begin(sender, old)
    await lan.firewall.remove(old.order)
    lan.guests.remove(old)
    old.unplug()

    order, _, policy = a_launch(2, LATER_UDP)
    new = Guest(order, make_lease(order, str(old.lease.address), LAN))
    lan.guests.append(new)
    await lan.firewall.apply(order, [new.lease], policy)
    new.configure()
    subprocess.run(
        ["ip", "neighbour", "flush", "dev", LAN.bridge], check=True
    )  # as a guest that boots makes itself known
    closed, opened = new.listen_udp(OPEN), new.listen_udp(LATER)
    send(sender, b"no", new.lease.address, OPEN)
    send(sender, b"yes", new.lease.address, LATER)
    assert (await received(opened))[0] == b"yes"
    assert nothing_came(closed)


async def test_a_flow_lives_through_a_restart(lan: Lan, sender: socket.socket) -> None:
    guest = await lan.launch(1, OPEN_UDP)
    listener = await begin(sender, guest)
    again = type(lan.firewall)(SETTINGS)  # type: ignore[call-arg]
    await again.start()
    await again.apply(*a_launch(1, OPEN_UDP))
    await again.stop()
    send(sender, b"still", ADDRESS, OPEN)
    assert (await received(listener))[0] == b"still"


@pytest.mark.parametrize("how", ["update", "apply"])
async def test_a_flow_ends_with_the_rule_that_let_it_in(lan: Lan, sender: socket.socket, how: str) -> None:
    """Established connections are let through before any rule is asked."""
    guest = await lan.launch(1, BOTH_UDP)
    listener, later = await begin(sender, guest), guest.listen_udp(LATER)
    if how == "update":
        await lan.firewall.update(Policy(groups=(LATER_UDP,)))
    else:
        await lan.firewall.apply(*a_launch(1, LATER_UDP))
    send(sender, b"no", ADDRESS, OPEN)
    send(sender, b"yes", ADDRESS, LATER)
    assert (await received(later))[0] == b"yes"
    assert nothing_came(listener)


async def test_a_flow_that_another_rule_lets_in_lives_on(lan: Lan, sender: socket.socket) -> None:
    guest = await lan.launch(1, BOTH_UDP)
    listener = await begin(sender, guest)
    await lan.firewall.update(Policy(groups=(OPEN_UDP,)))
    send(sender, b"still", ADDRESS, OPEN)
    assert (await received(listener))[0] == b"still"


async def test_a_member_that_leaves_its_group_is_cut_off(lan: Lan) -> None:
    rule = Rule(protocol=Protocol.UDP, group_id=9)
    group = a_group(rule)
    guest, peer = await lan.plug(1), await lan.plug(2)
    for each in (guest, peer):
        each.configure()
    members = {9: (peer.lease.address,)}
    await lan.firewall.apply(guest.order, [guest.lease], Policy(groups=(group,), members=members))
    listener, sender = guest.listen_udp(OPEN), peer.listen_udp(LATER)
    send(sender, b"hello", ADDRESS, OPEN)
    await received(listener)
    listener.sendto(b"answer", (str(peer.lease.address), LATER))
    await received(sender)
    for now in ((), (peer.lease.address,)):
        await lan.firewall.update(Policy(groups=(group,), members={9: now}))
        send(sender, str(len(now)).encode(), ADDRESS, OPEN)
    assert (await received(listener))[0] == b"1"


async def test_an_egress_rule_that_goes_ends_what_it_let_out(lan: Lan) -> None:
    both = [
        Rule(direction=Direction.EGRESS, protocol=Protocol.UDP, from_port=each, cidr=LAN.cidr) for each in (OPEN, LATER)
    ]
    guest, peer = await lan.plug(1), await lan.launch(2, BOTH_UDP)
    guest.configure()
    await lan.firewall.apply(*a_launch(1, SecurityGroup(id=5, name="out", rules=tuple(both))))
    listener, later = peer.listen_udp(OPEN), peer.listen_udp(LATER)
    sender = guest.listen_udp(OPEN)
    send(sender, b"hello", peer.lease.address, OPEN)
    await received(listener)
    listener.sendto(b"answer", (str(guest.lease.address), OPEN))
    await received(sender)
    await lan.firewall.update(Policy(groups=(SecurityGroup(id=5, name="out", rules=(both[1],)),)))
    send(sender, b"no", peer.lease.address, OPEN)
    send(sender, b"yes", peer.lease.address, LATER)
    assert (await received(later))[0] == b"yes"
    assert nothing_came(listener)


@pytest.mark.parametrize("begun_by", ["the peer", "the guest"])
async def test_a_connection_that_was_cut_is_not_taken_up_again_from_the_middle(lan: Lan, begun_by: str) -> None:
    """Connection tracking takes a packet from the middle of a connection that it does not know for the first of one."""
    assert Path("/proc/sys/net/netfilter/nf_conntrack_tcp_loose").read_text() == "1\n"
    both = [
        Rule(direction=direction, protocol=protocol, from_port=OPEN, cidr=ANYWHERE)
        for direction in ([Direction.INGRESS] if begun_by == "the peer" else Direction)
        for protocol in (Protocol.TCP, Protocol.UDP)
    ]
    everything = SecurityGroup(id=2, name="open", rules=(Rule(protocol=Protocol.ANY, cidr=ANYWHERE),))
    one, other = await lan.launch(1, a_group(*both)), await lan.launch(2, everything)
    server, client = (one, other) if begun_by == "the peer" else (other, one)
    ends = await connected(server, client)
    listeners = [one.listen_udp(OPEN), other.listen_udp(OPEN)]
    udp_only = tuple(rule for rule in both if rule.protocol is Protocol.UDP)
    await lan.firewall.update(Policy(groups=(a_group(*udp_only),)))
    for end in ends:
        end.send(b"from the middle")
    for listener, sender, target in ((listeners[1], listeners[0], other), (listeners[0], listeners[1], one)):
        send(sender, b"yes", target.lease.address, OPEN)
        assert (await received(listener))[0] == b"yes"
    assert all(map(nothing_came, ends))


async def connected(server: Guest, client: Guest) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection on which something was said."""
    loop = asyncio.get_running_loop()
    listener, near = server.open(socket.SOCK_STREAM), client.open(socket.SOCK_STREAM)
    listener.bind((str(server.lease.address), OPEN))
    listener.listen()
    async with asyncio.timeout(LIMIT):
        await loop.sock_connect(near, (str(server.lease.address), OPEN))
        far, _ = await loop.sock_accept(listener)
        server.sockets.append(far)
        near.send(b"hello")
        assert await loop.sock_recv(far, 100) == b"hello"
    return near, far


async def test_only_the_flows_of_the_address_are_cut(lan: Lan, sender: socket.socket, flows: Flows) -> None:
    one, other = await lan.launch(1, OPEN_UDP), await lan.launch(2, OPEN_UDP)
    await begin(sender, one)
    await begin(sender, other)
    assert flows.cut(one.lease.address) == 1
    assert flows.cut(one.lease.address) == 0
    assert flows.cut(other.lease.address) == 1


async def test_a_full_table_is_gone_through(lan: Lan, sender: socket.socket, flows: Flows) -> None:
    """More flows than one answer of the kernel holds."""
    await lan.launch(1, OPEN_UDP)
    for port in range(10_000, 12_000):
        with contextlib.suppress(ConnectionRefusedError):
            sender.sendto(b"", (str(LAN.gateway), port))
    assert flows.cut(LAN.gateway) >= 2000
