"""What a guest may ask of the host it runs on: an address, names, metadata, and nothing else."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from launcher.models import LaunchOrder
from launcher.networks import FixedIp
from launcher.policy import Protocol
from tests.contract.test_firewall_driver import another
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
    nothing_came,
    received,
    send,
)

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

ELSEWHERE = IPv4Address("10.91.0.1")
"""Another address of the host, not of the guests' network."""
QUERY = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\x08server-1\x09novalocal\0" + struct.pack("!2H", 1, 1)


@pytest.fixture(params=sorted(FIREWALLS))
async def lan(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Lan]:
    lan = Lan(tmp_path, request.param)
    await lan.start()
    subprocess.run(["ip", "address", "add", f"{ELSEWHERE}/32", "dev", "lo"], check=True)
    yield lan
    subprocess.run(["ip", "address", "del", f"{ELSEWHERE}/32", "dev", "lo"], check=True)
    await lan.stop()


async def ask_name(guest: Guest) -> None:
    """An answer by the DNS server says that what the guest sent before has had its chance."""
    asking = guest.open(socket.SOCK_DGRAM)
    asking.sendto(QUERY, (str(LAN.gateway), 53))
    answer, server = await received(asking)
    assert server == str(LAN.gateway)
    assert answer[:2] == QUERY[:2]


@pytest.mark.parametrize("target", [LAN.gateway, ELSEWHERE], ids=["gateway", "another address"])
@pytest.mark.parametrize("port", [CLOSED, METADATA_PORT, 123])
async def test_a_datagram_to_another_port_is_dropped(lan: Lan, target: IPv4Address, port: int) -> None:
    guest = await lan.launch(1)
    with host_socket() as listener:
        listener.bind((str(target), port))
        guest.open(socket.SOCK_DGRAM).sendto(b"no", (str(target), port))
        await ask_name(guest)
        assert nothing_came(listener)


async def test_names_are_answered_at_the_gateway_only(lan: Lan) -> None:
    guest = await lan.launch(1)
    with host_socket() as listener:
        listener.bind((str(ELSEWHERE), 53))
        guest.open(socket.SOCK_DGRAM).sendto(QUERY, (str(ELSEWHERE), 53))
        await ask_name(guest)
        assert nothing_came(listener)


async def test_a_connection_to_another_port_is_not_made(lan: Lan) -> None:
    guest, loop = await lan.launch(1), asyncio.get_running_loop()
    closed, opened = guest.open(socket.SOCK_STREAM), guest.open(socket.SOCK_STREAM)
    with socket.create_server((str(LAN.gateway), CLOSED)) as listener:
        listener.setblocking(False)
        closed.connect_ex((str(LAN.gateway), CLOSED))
        async with await asyncio.start_server(echo, str(LAN.gateway), METADATA_PORT), asyncio.timeout(LIMIT):
            await loop.sock_connect(opened, (str(LAN.gateway), METADATA_PORT))
            await loop.sock_sendall(opened, b"GET")
            assert await loop.sock_recv(opened, 100) == b"GET"
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_answers_to_what_the_host_began_come_in(lan: Lan) -> None:
    guest, loop = await lan.launch(1, allowing(Protocol.TCP, OPEN, OPEN)), asyncio.get_running_loop()
    at_guest = guest.open(socket.SOCK_STREAM)
    at_guest.bind((str(guest.lease.address), OPEN))
    at_guest.listen()
    with socket.socket() as client:
        client.setblocking(False)
        async with asyncio.timeout(LIMIT):
            await loop.sock_connect(client, (str(guest.lease.address), OPEN))
            accepted, _ = await loop.sock_accept(at_guest)
            with accepted:
                await loop.sock_sendall(accepted, b"hello")
            assert await loop.sock_recv(client, 100) == b"hello"


async def test_what_is_no_guest_of_ours_is_left_alone(lan: Lan) -> None:
    """A port of the same bridge that launcher did not plug."""
    guest = await lan.launch(1, OPEN_UDP)
    await lan.firewall.remove(guest.order)
    with host_socket() as listener:
        listener.bind((str(LAN.gateway), CLOSED))
        send(guest.open(socket.SOCK_DGRAM), b"yes", LAN.gateway, CLOSED)
        assert await received(listener) == (b"yes", str(guest.lease.address))


@pytest.mark.parametrize("lan", ["iptables"], indirect=True)
async def test_a_compute_host_without_the_network_role_answers_nothing(lan: Lan) -> None:
    guest = await lan.launch(1)
    subprocess.run(["iptables", "-F", "nova-host"], check=True)
    async with another(SETTINGS) as other:
        await other.start()
    asking = guest.open(socket.SOCK_DGRAM)
    asking.sendto(QUERY, (str(LAN.gateway), 53))
    await lan.firewall.ensure_base(LAN)
    await ask_name(guest)
    assert nothing_came(asking)


async def test_a_gateway_on_another_host_is_asked_for_its_services_only(lan: Lan) -> None:
    """Its host sees a frame from the wire, and no tap; so the guest's own host has to look."""
    own = [f"{LAN.gateway}/{LAN.cidr.prefixlen}", "brd", "+", "dev", LAN.bridge]
    subprocess.run(["ip", "address", "del", *own], check=True)
    guest, gateway = await lan.launch(1), Guest(*far_gateway())
    try:
        gateway.run("ip", "address", "add", f"{LAN.gateway}/{LAN.cidr.prefixlen}", "dev", "eth0")
        closed, names = (listening(gateway, port) for port in (CLOSED, 53))
        asking = guest.open(socket.SOCK_DGRAM)
        for port in (CLOSED, 53):
            asking.sendto(b"?", (str(LAN.gateway), port))
        assert await received(names) == (b"?", str(guest.lease.address))
        assert nothing_came(closed)
    finally:
        gateway.unplug()
        subprocess.run(["ip", "address", "add", *own], check=True)


def far_gateway() -> tuple[LaunchOrder, FixedIp]:
    """As if behind a wire that is a port of the bridge: nobody's tap to the filters."""
    order, (lease,), _ = a_launch(99)
    return order, lease


def listening(gateway: Guest, port: int) -> socket.socket:
    made = gateway.open(socket.SOCK_DGRAM)
    made.bind((str(LAN.gateway), port))
    return made
