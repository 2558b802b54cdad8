"""Flows that were let in once: they live as long as their owner, through every restart, and not longer."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from launcher.drivers.firewall import flows
from launcher.drivers.firewall.iptables import IptablesFirewall
from launcher.policy import Protocol
from tests.host.test_packets import LAN, OPEN, OPEN_UDP, Guest, Lan, a_launch, allowing, nothing_came, received, send
from tests.orders import make_lease

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

ADDRESS = IPv4Address("10.90.0.3")
LATER = OPEN + 1


@pytest.fixture
async def lan(tmp_path: Path) -> AsyncIterator[Lan]:
    lan = Lan(tmp_path)
    await lan.start()
    yield lan
    await lan.stop()


async def begin(sender: socket.socket, guest: Guest) -> socket.socket:
    """A flow to the guest that has been answered; the guest's socket."""
    listener = guest.listen_udp(OPEN)
    send(sender, b"hello", guest.lease.address, OPEN)
    await received(listener)
    listener.sendto(b"answer", sender.getsockname())
    assert (await received(sender))[0] == b"answer"
    return listener


async def test_an_old_flow_does_not_pass_to_the_next_owner_of_an_address(lan: Lan) -> None:
    """The new guest lets nothing in on that port, but the kernel remembered that the old one did."""
    old = await lan.launch(1, OPEN_UDP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((str(LAN.gateway), 0))
        sender.setblocking(False)
        await begin(sender, old)
        await lan.firewall.remove(old.order)
        lan.guests.remove(old)
        old.unplug()

        order, _, policy = a_launch(2, allowing(Protocol.UDP, LATER, LATER))
        new = Guest(order, make_lease(order, str(ADDRESS), LAN))
        lan.guests.append(new)
        await lan.firewall.apply(order, [new.lease], policy)
        new.configure()
        closed, opened = new.listen_udp(OPEN), new.listen_udp(LATER)
        send(sender, b"no", ADDRESS, OPEN)
        send(sender, b"yes", ADDRESS, LATER)
        assert (await received(opened))[0] == b"yes"
        assert nothing_came(closed)


async def test_a_flow_lives_through_a_restart_and_a_change_of_the_rules(lan: Lan) -> None:
    guest = await lan.launch(1, OPEN_UDP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((str(LAN.gateway), 0))
        sender.setblocking(False)
        listener = await begin(sender, guest)
        again = IptablesFirewall(allow_project_net_traffic=False)
        await again.start()
        await again.apply(*a_launch(1))
        send(sender, b"still", ADDRESS, OPEN)
        assert (await received(listener))[0] == b"still"


async def test_only_the_flows_of_the_address_are_cut(lan: Lan) -> None:
    one, other = await lan.launch(1, OPEN_UDP), await lan.launch(2, OPEN_UDP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((str(LAN.gateway), 0))
        sender.setblocking(False)
        await begin(sender, one)
        await begin(sender, other)
        assert flows.cut(one.lease.address) == 1
        assert flows.cut(one.lease.address) == 0
        assert flows.cut(other.lease.address) == 1


def test_a_full_table_is_gone_through(lan: Lan) -> None:
    """More flows than one answer of the kernel holds."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind((str(LAN.gateway), 0))
        for port in range(10_000, 12_000):
            with contextlib.suppress(ConnectionRefusedError):
                sender.sendto(b"", (str(LAN.gateway), port))
    assert flows.cut(LAN.gateway) >= 2000
