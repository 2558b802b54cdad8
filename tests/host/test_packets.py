"""Packets, not rules: what arrives at a guest and what does not. The guests are network namespaces with a veth.

That nothing arrives is shown without waiting: a packet that must pass is sent after the one that must not, on
the same path, and when it is there the other one has had its chance.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from launcher.policy import Policy, Protocol, SecurityGroup
from tests.host.lan import (
    CLOSED,
    FIREWALLS,
    LAN,
    LIMIT,
    METADATA_PORT,
    OPEN,
    OPEN_UDP,
    SETTINGS,
    Guest,
    Lan,
    a_launch,
    allowing,
    echo,
    host_socket,
    icmp,
    nothing_came,
    received,
    send,
)
from tests.orders import make_lease, make_order

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]


@pytest.fixture(params=sorted(FIREWALLS))
def kind(request: pytest.FixtureRequest) -> str:
    """Every test runs with each of the packet filters."""
    return str(request.param)


@pytest.fixture
async def lan(tmp_path: Path, kind: str) -> AsyncIterator[Lan]:
    lan = Lan(tmp_path, kind)
    await lan.start()
    yield lan
    await lan.stop()


async def test_what_no_rule_lets_in_is_dropped_from_the_host(lan: Lan) -> None:
    guest = await lan.launch(1, OPEN_UDP)
    closed, opened = guest.listen_udp(CLOSED), guest.listen_udp(OPEN)
    with host_socket() as sender:
        send(sender, b"no", guest.lease.address, CLOSED)
        send(sender, b"yes", guest.lease.address, OPEN)
        assert await received(opened) == (b"yes", str(LAN.gateway))
    assert nothing_came(closed)


async def test_what_no_rule_lets_in_is_dropped_between_guests_of_one_bridge(lan: Lan) -> None:
    guest, peer = await lan.launch(1, OPEN_UDP), await lan.launch(2)
    closed, opened = guest.listen_udp(CLOSED), guest.listen_udp(OPEN)
    sender = peer.open(socket.SOCK_DGRAM)
    send(sender, b"no", guest.lease.address, CLOSED)
    send(sender, b"yes", guest.lease.address, OPEN)
    assert await received(opened) == (b"yes", str(peer.lease.address))
    assert nothing_came(closed)


async def test_without_a_group_nothing_comes_in(lan: Lan) -> None:
    alone, other = await lan.launch(1), await lan.launch(2, OPEN_UDP)
    closed, opened = alone.listen_udp(OPEN), other.listen_udp(OPEN)
    with host_socket() as sender:
        send(sender, b"no", alone.lease.address, OPEN)
        send(sender, b"yes", other.lease.address, OPEN)
        await received(opened)
    assert nothing_came(closed)


async def test_a_source_outside_the_rules_range_is_dropped(lan: Lan) -> None:
    only_the_host = allowing(Protocol.UDP, OPEN, OPEN, source="10.90.0.1/32")
    guest, peer = await lan.launch(1, only_the_host), await lan.launch(2)
    opened = guest.listen_udp(OPEN)
    peer.open(socket.SOCK_DGRAM).sendto(b"no", (str(guest.lease.address), OPEN))
    with host_socket() as sender:
        send(sender, b"yes", guest.lease.address, OPEN)
        assert await received(opened) == (b"yes", str(LAN.gateway))


async def test_project_traffic_by_setting(tmp_path: Path, kind: str) -> None:
    lan = Lan(tmp_path, kind, SETTINGS.model_copy(update={"allow_project_net_traffic": True}))
    await lan.start()
    guest, peer = await lan.launch(1), await lan.launch(2)
    closed = guest.listen_udp(CLOSED)
    peer.open(socket.SOCK_DGRAM).sendto(b"yes", (str(guest.lease.address), CLOSED))
    assert await received(closed) == (b"yes", str(peer.lease.address))
    await lan.stop()


@pytest.mark.parametrize(
    ("group", "refused", "passed"),
    [
        pytest.param(allowing(Protocol.ICMP, 8, 0), (8, 1), (8, 0), id="another code"),
        pytest.param(allowing(Protocol.ICMP, 8), (13, 0), (8, 1), id="another type, any code"),
        pytest.param(allowing(Protocol.ICMP, 13, 0), (8, 0), (13, 0), id="timestamp, no ping"),
    ],
)
async def test_icmp_types_and_codes(
    lan: Lan, group: SecurityGroup, refused: tuple[int, int], passed: tuple[int, int]
) -> None:
    guest = await lan.launch(1, group)
    listener = guest.open(socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with host_socket(socket.SOCK_RAW, socket.IPPROTO_ICMP) as sender:
        for kind, code in (refused, passed):
            send(sender, icmp(kind, code), guest.lease.address)
        data, _ = await received(listener)
    assert (data[20], data[21]) == passed


async def test_answers_to_what_the_guest_began_come_in(lan: Lan) -> None:
    guest, loop = await lan.launch(1), asyncio.get_running_loop()
    server = await asyncio.start_server(echo, str(LAN.gateway), METADATA_PORT)
    client = guest.open(socket.SOCK_STREAM)
    async with server, asyncio.timeout(LIMIT):
        await loop.sock_connect(client, (str(LAN.gateway), METADATA_PORT))
        await loop.sock_sendall(client, b"hello")
        assert await loop.sock_recv(client, 100) == b"hello"


async def test_removing_instance_1_leaves_10_to_19_filtered(lan: Lan) -> None:
    await lan.launch(1, OPEN_UDP)
    guest = await lan.launch(10, OPEN_UDP)
    for number in range(11, 20):
        await lan.firewall.apply(*a_launch(number, OPEN_UDP))
    await lan.firewall.remove(make_order(1))
    assert list(await lan.firewall.list_instances()) == list(range(10, 20))
    closed, opened = guest.listen_udp(CLOSED), guest.listen_udp(OPEN)
    with host_socket() as sender:
        send(sender, b"no", guest.lease.address, CLOSED)
        send(sender, b"yes", guest.lease.address, OPEN)
        await received(opened)
    assert nothing_came(closed)
    for number in range(11, 20):
        await lan.firewall.remove(make_order(number))


async def test_a_guest_cannot_send_as_another(lan: Lan) -> None:
    liar, victim = await lan.launch(1), await lan.launch(2, OPEN_UDP)
    liar.run("ip", "address", "add", "10.90.0.77/24", "dev", "eth0")
    at_guest = victim.listen_udp(OPEN)
    with host_socket(socket.SOCK_RAW, socket.IPPROTO_ICMP) as at_host:
        for source in ("10.90.0.77", str(liar.lease.address)):
            sender, pinger = liar.open(socket.SOCK_DGRAM), liar.open(socket.SOCK_RAW, socket.IPPROTO_ICMP)
            for each in (sender, pinger):
                each.bind((source, 0))
            sender.sendto(source.encode(), (str(victim.lease.address), OPEN))
            pinger.sendto(icmp(8, 0), (str(LAN.gateway), 0))
        assert await received(at_guest) == (str(liar.lease.address).encode(), str(liar.lease.address))
        assert (await received(at_host))[1] == str(liar.lease.address)


async def test_ipv6_is_no_way_around(lan: Lan) -> None:
    guest, peer = await lan.launch(1, OPEN_UDP), await lan.launch(2)
    for each, address in ((guest, "fd00::1"), (peer, "fd00::2")):
        each.run("ip", "address", "add", f"{address}/64", "dev", "eth0", "nodad")
    for each, other, address in ((guest, peer, "fd00::2"), (peer, guest, "fd00::1")):
        each.run("ip", "neighbour", "replace", address, "lladdr", other.lease.mac, "dev", "eth0")
    by_six = guest.open(socket.SOCK_DGRAM, family=socket.AF_INET6)
    by_six.bind(("::", OPEN + 2))
    by_four = guest.listen_udp(OPEN)
    peer.open(socket.SOCK_DGRAM, family=socket.AF_INET6).sendto(b"no", ("fd00::1", OPEN + 2))
    peer.open(socket.SOCK_DGRAM).sendto(b"yes", (str(guest.lease.address), OPEN))
    await received(by_four)
    assert nothing_came(by_six)


async def test_the_metadata_service_sees_the_guests_own_address(lan: Lan) -> None:
    guest, loop = await lan.launch(1), asyncio.get_running_loop()
    seen: asyncio.Future[str] = loop.create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result(writer.get_extra_info("peername")[0])
        await echo(reader, writer)

    client = guest.open(socket.SOCK_STREAM)
    async with await asyncio.start_server(serve, str(LAN.gateway), METADATA_PORT), asyncio.timeout(LIMIT):
        await loop.sock_connect(client, ("169.254.169.254", 80))
        await loop.sock_sendall(client, b"GET")
        assert await loop.sock_recv(client, 100) == b"GET"
        assert await seen == str(guest.lease.address)


DHCP_SCRIPT = (
    '#!/bin/sh\n[ "$1" = bound ] && echo "$ip $mask $router $dns $hostname $domain $lease" > "$0.bound"\nexit 0\n'
)


def ask_dhcp(guest: Guest, directory: Path, *, tries: int = 3) -> list[str]:
    """What a DHCP client in the guest is given: address, prefix, router, DNS server, name, domain, seconds."""
    script = directory / f"dhcp-{guest.order.tap}"
    script.write_text(DHCP_SCRIPT)
    script.chmod(0o755)
    client = ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", str(tries), "-T", "1", "-s", str(script)]
    guest.run(*client, "-O", "hostname", "-O", "domain")
    return Path(f"{script}.bound").read_text().split()


async def test_the_dhcp_answer_passes_the_filter(lan: Lan, tmp_path: Path) -> None:
    guest = await lan.plug(1)
    await lan.network.set_leases(LAN, [guest.lease])
    given = await asyncio.to_thread(ask_dhcp, guest, tmp_path)
    assert given == ["10.90.0.3", "24", "10.90.0.1", "10.90.0.1", "server-1", "novalocal", "3600"]
    evidence = await lan.network.get_evidence(guest.lease)
    assert evidence.requested_ms is not None
    assert evidence.answered_ms is not None
    assert evidence.answered_ms >= evidence.requested_ms
    assert evidence.last_words == f"DHCPACK({LAN.bridge}) 10.90.0.3 02:16:3e:00:00:01 server-1"


async def test_an_unknown_nic_is_given_nothing(lan: Lan, tmp_path: Path) -> None:
    guest = await lan.plug(1)
    with pytest.raises(subprocess.CalledProcessError):
        await asyncio.to_thread(ask_dhcp, guest, tmp_path, tries=1)
    evidence = await lan.network.get_evidence(guest.lease)
    assert evidence.requested_ms is not None
    assert evidence.answered_ms is None
    assert evidence.last_words.endswith("no address available")


async def test_an_address_goes_to_its_next_instance_at_once(lan: Lan, tmp_path: Path) -> None:
    """dnsmasq kept it for the NIC of the deleted instance until the lease had run out."""
    old, new = await lan.plug(1), await lan.plug(2)
    await lan.network.set_leases(LAN, [old.lease])
    await asyncio.to_thread(ask_dhcp, old, tmp_path)
    again = make_lease(new.order, "10.90.0.3", LAN)
    await lan.firewall.remove(old.order)
    await lan.firewall.apply(new.order, [again], Policy())
    await lan.network.set_leases(LAN, [again])
    assert (await asyncio.to_thread(ask_dhcp, new, tmp_path))[0] == "10.90.0.3"
