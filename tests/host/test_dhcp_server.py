"""The DHCP and DNS server seen from a guest: names, router advertisements, and that it comes back when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from random import Random

import pytest

from launcher.bus import MemoryBus
from launcher.clock import SystemClock
from launcher.db import schemas
from launcher.db.database import Database
from launcher.drivers import process
from launcher.drivers.firewall.fake import FakeFirewall
from launcher.drivers.nat.fake import FakeNat
from launcher.drivers.network.dnsmasq import Files
from launcher.drivers.network.flat_dhcp import FlatDhcpNetwork
from launcher.networks import FixedIp, Network, NetworkMode
from launcher.services.network import NetworkController
from tests.namespaces import inside, namespaces, open_udp, run
from tests.orders import make_lease, make_order
from tests.waiting import eventually

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

LAN = Network(
    name="named",
    mode=NetworkMode.FLAT_DHCP,
    bridge="br-named",
    cidr=IPv4Network("10.92.0.0/24"),
    gateway=IPv4Address("10.92.0.1"),
    cidr6=IPv6Network("fd00:92::/64"),
)
A, AAAA = 1, 28


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[FlatDhcpNetwork]:
    network = FlatDhcpNetwork(tmp_path)
    await network.ensure_network(LAN)
    yield network
    await network.set_leases(LAN, ())
    await network.stop()


@pytest.fixture
def guest(served: FlatDhcpNetwork) -> Iterator[FixedIp]:
    """A namespace on the bridge, with the MAC and the IPv4 address of its lease."""
    lease = make_lease(make_order(1), "10.92.0.9", LAN)
    with namespaces("guest"):
        nic = ("peer", "name", "eth0", "address", lease.mac, "netns", "guest")
        run("ip", "link", "add", "port", "type", "veth", *nic)
        run("ip", "link", "set", "port", "master", LAN.bridge, "up")
        inside("guest", "ip", "link", "set", "eth0", "up")
        inside("guest", "ip", "address", "add", f"{lease.address}/24", "dev", "eth0")
        yield lease
        run("ip", "link", "delete", "port")


def ask(name: str, kind: int) -> list[bytes]:
    """A DNS question of the guest to its gateway (RFC 1035 §4); the data of the answers of that kind."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    question = labels + b"\0" + struct.pack("!HH", kind, 1)
    with open_udp("guest") as sock:
        sock.sendto(struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + question, (str(LAN.gateway), 53))
        answer = sock.recv(512)
    count, at = struct.unpack("!H", answer[6:8])[0], 12 + len(question)
    found = []
    for _ in range(count):
        _, of_kind, _, _, size = struct.unpack("!HHHIH", answer[at : at + 12])
        found += [answer[at + 12 : at + 12 + size]] if of_kind == kind else []
        at += 12 + size
    return found


async def test_a_guest_finds_the_others_by_their_names(served: FlatDhcpNetwork, guest: FixedIp) -> None:
    other = make_lease(make_order(2, hostname="db"), "10.92.0.10", LAN)
    await served.set_leases(LAN, [guest, other])

    async def known() -> bool:
        return await asyncio.to_thread(ask, "db.novalocal", A) == [other.address.packed]

    await eventually(known, what="the name of an instance")
    assert other.address6 is not None
    assert await asyncio.to_thread(ask, "db.novalocal", AAAA) == [other.address6.packed]
    assert await asyncio.to_thread(ask, "nobody.novalocal", A) == []
    await served.set_leases(LAN, [guest])

    async def forgotten() -> bool:
        return await asyncio.to_thread(ask, "db.novalocal", A) == []

    await eventually(forgotten, what="the end of the name")


async def test_a_guest_makes_itself_the_ipv6_address_of_its_lease(served: FlatDhcpNetwork, guest: FixedIp) -> None:
    async def has_it() -> bool:
        return f"inet6 {guest.address6}/64" in await asyncio.to_thread(inside, "guest", "ip", "-6", "address")

    await eventually(has_it, within=30, what="the address by SLAAC")
    assert "via fe80::" in await asyncio.to_thread(inside, "guest", "ip", "-6", "route", "show", "default")
    inside("guest", "busybox", "ping", "-6", "-c", "1", "-W", "5", "fd00:92::1")


def pid_in(files: Files) -> int:
    """0 while the file is not there, or not written."""
    text = files.pid.read_text().strip() if files.pid.exists() else ""
    return int(text or 0)


async def test_one_that_is_killed_is_back_within_seconds(tmp_path: Path) -> None:
    """The role looks after it; nobody has to launch anything first."""
    files = Files(tmp_path / "networks" / LAN.bridge)
    async with Database.open(tmp_path / "network.db", schemas.NETWORK) as db:
        role = NetworkController(
            host="box",
            bus=MemoryBus(clock=SystemClock(), rng=Random(1)),
            clock=SystemClock(),
            rng=Random(1),
            db=db,
            network=LAN,
            driver=FlatDhcpNetwork(tmp_path),
            firewall=FakeFirewall(),
            nat=FakeNat(),
        )
        async with role.serving():
            before = pid_in(files)
            os.kill(before, signal.SIGKILL)

            async def back() -> bool:
                pid = pid_in(files)
                return pid != before and process.alive(pid, f"--dhcp-hostsfile={files.hosts}")

            await eventually(back, within=10, what="a new DHCP server")
    assert not process.alive(pid_in(files), f"--dhcp-hostsfile={files.hosts}")
