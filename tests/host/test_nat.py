"""Packets through the host: out by masquerade, in and out by floating IPs. The internet is a namespace with a veth.

Guests are namespaces, too, as in `test_packets.py`, behind the real bridges, filters and translation.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.flows import Flows
from launcher.drivers.nat import rules
from launcher.drivers.nat.nftables import NOTE, ROUTING, NftablesNat
from launcher.drivers.network.flat import FlatNetwork
from launcher.errors import NetworkFailed
from launcher.explaining import Settings
from launcher.floating import FloatingPool, Translation
from launcher.models import LaunchOrder
from launcher.networks import FixedIp, Network, NetworkMode
from launcher.policy import SecurityGroup
from tests.host.lan import FIREWALLS, LIMIT, OPEN, OPEN_UDP, namespace, new_namespace, nothing_came, received
from tests.orders import make_launch

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

BLUE = Network(
    name="blue",
    mode=NetworkMode.FLAT,
    bridge="br-blue",
    cidr=IPv4Network("10.92.0.0/24"),
    gateway=IPv4Address("10.92.0.1"),
)
RED = BLUE.model_copy(
    update={
        "name": "red",
        "bridge": "br-red",
        "cidr": IPv4Network("10.93.0.0/24"),
        "gateway": IPv4Address("10.93.0.1"),
    }
)
HOST, INTERNET, CLIENT = "192.0.2.1", IPv4Address("192.0.2.2"), "198.51.100.9"
UPLINK = "uplink"
POOL = FloatingPool(name="public", cidr=IPv4Network("192.0.2.32/28"), interface=UPLINK)
FIRST, SECOND = IPv4Address("192.0.2.33"), IPv4Address("192.0.2.34")


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


class Machine:
    """A namespace with one NIC, `eth0`, whose other end is the device `name` here."""

    def __init__(self, name: str, mac: str, address: str, gateway: str | None) -> None:
        self.name, self.descriptor = name, new_namespace()
        self.path = f"/proc/{os.getpid()}/fd/{self.descriptor}"
        self.sockets: list[socket.socket] = []
        run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", self.path)
        run("ip", "link", "set", name, "up")
        lines = ["link set lo up", "link set eth0 up", f"address add {address} dev eth0"]
        self.run(*lines, *([f"route add default via {gateway}"] if gateway else []))

    def run(self, *lines: str) -> None:
        subprocess.run(
            ["nsenter", f"--net={self.path}", "ip", "-batch", "-"], input="\n".join(lines), text=True, check=True
        )

    def open(self, *, address: str = "0.0.0.0", port: int = 0) -> socket.socket:
        with namespace(self.descriptor):
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setblocking(False)
        made.bind((address, port))
        self.sockets.append(made)
        return made

    def close(self) -> None:
        for made in self.sockets:
            made.close()
        run("ip", "link", "delete", self.name)
        os.close(self.descriptor)


class Site:
    """A host with two networks, guests in them, and the internet beyond its uplink."""

    def __init__(self, state: Path, firewall: FirewallDriver) -> None:
        self.state, self.nat = state, NftablesNat(note=state / NOTE, pools=[POOL])
        self.firewall, self.network = firewall, FlatNetwork()
        self.machines: list[Machine] = []
        self.orders: list[LaunchOrder] = []

    async def start(self) -> None:
        for network in (BLUE, RED):
            await self.network.ensure_network(network)
            await self.firewall.ensure_base(network)
        self.internet = self.machine(UPLINK, "02:00:00:00:00:01", f"{INTERNET}/24")
        self.internet.run(f"address add {CLIENT}/32 dev lo")
        run("ip", "address", "add", f"{HOST}/24", "dev", UPLINK)
        run("ip", "route", "add", CLIENT, "via", str(INTERNET))
        await self.apply()

    def machine(self, name: str, mac: str, address: str, gateway: str | None = None) -> Machine:
        self.machines.append(Machine(name, mac, address, gateway))
        return self.machines[-1]

    async def guest(self, number: int, *groups: SecurityGroup, network: Network = BLUE) -> tuple[Machine, FixedIp]:
        order, (lease,), policy = make_launch(number, *groups, network=network)
        made = self.machine(
            order.tap, lease.mac, f"{lease.address}/{network.cidr.prefixlen}", gateway=str(network.gateway)
        )
        run("ip", "link", "set", order.tap, "master", network.bridge)
        run("ip", "link", "set", order.tap, "type", "bridge_slave", "hairpin", "on")
        self.orders.append(order)
        await self.firewall.apply(order, [lease], policy)
        return made, lease

    async def apply(self, floating: dict[IPv4Address, IPv4Address] | None = None, *, masquerade: bool = True) -> None:
        networks = {network.bridge: network.cidr for network in (BLUE, RED)}
        refused = await self.nat.apply(Translation(networks=networks, masquerade=masquerade, floating=floating or {}))
        assert not refused

    async def stop(self) -> None:
        await self.nat.apply(Translation(masquerade=False))
        for machine in self.machines:
            machine.close()
        for network in (BLUE, RED):
            await self.network.remove_network(network)
        for order in self.orders:
            await self.firewall.remove(order)
        await self.firewall.stop()
        await self.nat.stop()
        flows = Flows()
        flows.cut(INTERNET, IPv4Address(CLIENT), BLUE.gateway, RED.gateway)
        flows.close()


@pytest.fixture(params=sorted(FIREWALLS))
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    was = ROUTING.read_text()
    ROUTING.write_text("0")
    site = Site(tmp_path, FIREWALLS[request.param](Settings(allow_host_traffic=False)))
    await site.start()
    yield site
    await site.stop()
    ROUTING.write_text(was)


async def exchange(sender: socket.socket, target: tuple[str, int], listener: socket.socket) -> tuple[str, str]:
    """A question and its answer: where the question came from, and where the answer did."""
    sender.sendto(b"?", target)
    async with asyncio.timeout(LIMIT):
        _, asker = await asyncio.get_running_loop().sock_recvfrom(listener, 64)
        listener.sendto(b"!", asker)
        _, answerer = await asyncio.get_running_loop().sock_recvfrom(sender, 64)
    assert answerer == target
    return asker[0], answerer[0]


async def test_guests_reach_out_by_the_hosts_address(site: Site) -> None:
    guest, _ = await site.guest(1)
    listener = site.internet.open(port=OPEN)
    assert (await exchange(guest.open(), (str(INTERNET), OPEN), listener))[0] == HOST
    assert ROUTING.read_text().strip() == "1"
    assert (site.state / NOTE).read_text() == '{"was": "0"}'


async def test_guests_of_two_networks_see_each_others_own_addresses(site: Site) -> None:
    """Which of them may, security groups say."""
    (blue, lease), (red, _) = await site.guest(1), await site.guest(2, OPEN_UDP, network=RED)
    listener = red.open(port=OPEN)
    assert (await exchange(blue.open(), ("10.93.0.4", OPEN), listener))[0] == str(lease.address)


async def test_without_nat_guests_go_out_as_themselves(site: Site) -> None:
    await site.apply(masquerade=False)
    ROUTING.write_text("1")
    guest, lease = await site.guest(1)
    site.internet.run(f"route add {BLUE.cidr} via {HOST}")
    listener = site.internet.open(port=OPEN)
    assert (await exchange(guest.open(), (str(INTERNET), OPEN), listener))[0] == str(lease.address)


async def test_a_floating_ip_leads_in_with_the_clients_own_address(site: Site) -> None:
    guest, lease = await site.guest(1, OPEN_UDP)
    await site.apply({FIRST: lease.address})
    listener = guest.open(port=OPEN)
    client = site.internet.open(address=CLIENT)
    assert (await exchange(client, (str(FIRST), OPEN), listener))[0] == CLIENT


async def test_a_floating_ip_leads_out_and_other_guests_go_by_the_hosts(site: Site) -> None:
    (guest, lease), (other, _) = await site.guest(1), await site.guest(2, network=RED)
    await site.apply({FIRST: lease.address})
    listener = site.internet.open(port=OPEN)
    assert (await exchange(guest.open(), (str(INTERNET), OPEN), listener))[0] == str(FIRST)
    assert (await exchange(other.open(), (str(INTERNET), OPEN), listener))[0] == HOST


async def test_security_groups_filter_what_comes_by_a_floating_ip(site: Site) -> None:
    guest, lease = await site.guest(1, OPEN_UDP)
    await site.apply({FIRST: lease.address})
    closed, opened = guest.open(port=OPEN + 1), guest.open(port=OPEN)
    client = site.internet.open()
    client.sendto(b"no", (str(FIRST), OPEN + 1))
    client.sendto(b"yes", (str(FIRST), OPEN))
    assert await received(opened) == (b"yes", str(INTERNET))
    assert nothing_came(closed)


@pytest.mark.parametrize("network", [BLUE, RED], ids=["neighbour", "another network"])
@pytest.mark.parametrize("known_as", [str(SECOND), "gateway"])
async def test_a_floating_ip_leads_in_from_other_guests(site: Site, network: Network, known_as: str) -> None:
    """The answer has to come back through the host, or the asker would not know it."""
    (guest, lease), (asker, its) = await site.guest(1, OPEN_UDP), await site.guest(2, network=network)
    await site.apply({FIRST: lease.address} | ({} if known_as == "gateway" else {SECOND: its.address}))
    seen, _ = await exchange(asker.open(), (str(FIRST), OPEN), guest.open(port=OPEN))
    assert seen == (str(BLUE.gateway) if known_as == "gateway" else known_as)


async def test_a_floating_ip_leads_to_the_guest_from_itself(site: Site) -> None:
    guest, lease = await site.guest(1, OPEN_UDP)
    await site.apply({FIRST: lease.address})
    assert (await exchange(guest.open(), (str(FIRST), OPEN), guest.open(port=OPEN)))[0] == str(FIRST)


async def test_a_floating_ip_leads_in_from_the_host(site: Site) -> None:
    guest, lease = await site.guest(1, OPEN_UDP)
    await site.apply({FIRST: lease.address})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        assert (await exchange(sender, (str(FIRST), OPEN), guest.open(port=OPEN)))[0] == str(BLUE.gateway)


async def test_a_moved_floating_ip_leads_to_its_new_guest_and_old_flows_end(site: Site) -> None:
    (old, its), (new, other) = await site.guest(1, OPEN_UDP), await site.guest(2, OPEN_UDP, network=RED)
    at_old, at_new, client = old.open(port=OPEN), new.open(port=OPEN), site.internet.open()
    await site.apply({FIRST: its.address})
    await exchange(client, (str(FIRST), OPEN), at_old)
    await site.apply({FIRST: other.address})
    await exchange(client, (str(FIRST), OPEN), at_new)
    assert nothing_came(at_old)


async def test_the_neighbours_are_told_who_answers_now(site: Site) -> None:
    with namespace(site.internet.descriptor):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        wire.bind(("eth0", 0x0806))
    wire.settimeout(LIMIT)
    with wire:
        await site.apply({FIRST: IPv4Address("10.92.0.3")})
        while not (frame := wire.recv(100)).startswith(b"\xff" * 6) or frame[28:32] != FIRST.packed:
            pass
    mac = Path("/sys/class/net", UPLINK, "address").read_text().strip().replace(":", "")
    assert (frame[6:12].hex(), frame[22:28].hex(), frame[38:42]) == (mac, mac, FIRST.packed)


async def test_a_disassociated_floating_ip_is_nobodys(site: Site) -> None:
    """Not even the host's: its own services are not reached by it."""
    guest, lease = await site.guest(1, OPEN_UDP)
    await site.apply({FIRST: lease.address, SECOND: IPv4Address("10.92.0.77")})
    listener, client = guest.open(port=OPEN), site.internet.open()
    await exchange(client, (str(FIRST), OPEN), listener)
    await site.apply({SECOND: lease.address})
    client.sendto(b"no", (str(FIRST), OPEN))
    await exchange(client, (str(SECOND), OPEN), listener)
    assert nothing_came(listener)
    assert dict(await site.nat.look()) == {SECOND: True}
    assert str(FIRST) not in run("ip", "-4", "address", "show", "dev", UPLINK)


async def test_the_next_process_takes_over_without_a_gap(site: Site) -> None:
    """A flow goes on, and new ones never meet a host without rules, while processes come and go."""
    guest, lease = await site.guest(1, OPEN_UDP)
    floating = {FIRST: lease.address}
    await site.apply(floating)
    listener, steady = guest.open(port=OPEN), site.internet.open()
    fresh = [site.internet.open() for _ in range(300)]
    taken_over = 0

    async def take_over() -> None:
        nonlocal taken_over
        while True:
            site.nat = NftablesNat(note=site.state / NOTE, pools=[POOL])
            await site.apply(floating)
            taken_over += 1

    taking = asyncio.create_task(take_over())
    for number in itertools.count():
        for sender in (steady, fresh[number % len(fresh)]):
            sender.sendto(str(number).encode(), (str(FIRST), OPEN))
            assert await received(listener) == (str(number).encode(), str(INTERNET))
        await asyncio.sleep(0)
        if taken_over == 8:
            break
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)


async def test_what_somebody_removed_is_put_back(site: Site) -> None:
    guest, lease = await site.guest(1, OPEN_UDP)
    await site.apply({FIRST: lease.address})
    listener, client = guest.open(port=OPEN), site.internet.open(address=CLIENT)
    for damage in (
        ("nft", "delete", "table", "ip", rules.TABLE),
        ("nft", "flush", "chain", "ip", rules.TABLE, "prerouting"),
        ("nft", "delete", "element", "ip", rules.TABLE, rules.TO_FIXED, f"{{ {FIRST} }}"),
        ("ip", "address", "delete", f"{FIRST}/32", "dev", UPLINK),
    ):
        run(*damage)
        await site.nat.check()
        assert (await exchange(client, (str(FIRST), OPEN), listener))[0] == CLIENT
    before = run("nft", "-a", "list", "table", "ip", rules.TABLE)
    await site.nat.check()
    assert run("nft", "-a", "list", "table", "ip", rules.TABLE) == before


async def test_a_change_is_made_although_somebody_was_at_the_table(site: Site) -> None:
    guest, lease = await site.guest(1, OPEN_UDP)
    await site.apply({SECOND: lease.address})
    run("nft", "delete", "table", "ip", rules.TABLE)
    await site.apply({FIRST: lease.address})
    client = site.internet.open(address=CLIENT)
    assert (await exchange(client, (str(FIRST), OPEN), guest.open(port=OPEN)))[0] == CLIENT


async def test_nothing_of_others_is_touched(site: Site) -> None:
    run("nft", "add", "table", "ip", "nova-nat-2")
    run("iptables", "-t", "nat", "-A", "POSTROUTING", "-s", "10.92.0.0/25", "-j", "ACCEPT")
    run("ip", "address", "add", "192.0.2.40/28", "dev", UPLINK)
    run("ip", "address", "add", "192.0.2.41/32", "dev", BLUE.bridge)
    kept = [run("iptables", "-t", "nat", "-S"), run("nft", "list", "table", "ip", "nova-nat-2")]
    await site.apply({FIRST: IPv4Address("10.92.0.3")})
    await site.apply()
    await site.nat.apply(Translation(masquerade=False))
    assert [run("iptables", "-t", "nat", "-S"), run("nft", "list", "table", "ip", "nova-nat-2")] == kept
    assert "192.0.2.40/28" in run("ip", "-4", "address", "show", "dev", UPLINK)
    assert "192.0.2.41/32" in run("ip", "-4", "address", "show", "dev", BLUE.bridge)
    assert rules.TABLE not in run("nft", "list", "tables").split()
    run("nft", "delete", "table", "ip", "nova-nat-2")
    run("iptables", "-t", "nat", "-F", "POSTROUTING")


async def test_what_an_earlier_process_left_is_removed(site: Site) -> None:
    await site.apply({FIRST: IPv4Address("10.92.0.3")})
    run("ip", "address", "add", f"{SECOND}/32", "dev", UPLINK)
    assert dict(await site.nat.look()) == {FIRST: True, SECOND: False}
    site.nat = NftablesNat(note=site.state / NOTE, pools=[POOL])
    await site.apply()
    assert dict(await site.nat.look()) == {}


async def test_an_address_of_the_host_is_refused_and_the_others_are_not(site: Site) -> None:
    run("ip", "address", "add", f"{FIRST}/24", "dev", UPLINK)
    guest, lease = await site.guest(1, OPEN_UDP)
    wanted = Translation(
        networks={BLUE.bridge: BLUE.cidr}, floating={FIRST: IPv4Address("10.92.0.77"), SECOND: lease.address}
    )
    refused = await site.nat.apply(wanted)
    assert list(refused) == [FIRST]
    assert isinstance(refused[FIRST], NetworkFailed)
    assert "this host's own address on uplink" in str(refused[FIRST])
    await site.nat.check()
    client = site.internet.open(address=CLIENT)
    assert (await exchange(client, (str(SECOND), OPEN), guest.open(port=OPEN)))[0] == CLIENT


@pytest.fixture
def docker(site: Site) -> Iterator[Site]:
    """A host whose filter drops what nobody accepts, as Docker sets it."""
    run("iptables", "-P", "FORWARD", "DROP")
    yield site
    run("iptables", "-P", "FORWARD", "ACCEPT")
    run("iptables", "-F")
    run("iptables", "-X", rules.FORWARD)


async def test_guests_pass_a_host_that_drops_what_it_forwards(docker: Site) -> None:
    (guest, lease), (other, _) = await docker.guest(1, OPEN_UDP), await docker.guest(2, network=RED)
    await docker.apply({FIRST: lease.address})
    listener = docker.internet.open(port=OPEN)
    for machine, seen in ((guest, str(FIRST)), (other, HOST)):
        assert (await exchange(machine.open(), (str(INTERNET), OPEN), listener))[0] == seen
    at_guest, client = guest.open(port=OPEN), docker.internet.open(address=CLIENT)
    assert (await exchange(client, (str(FIRST), OPEN), at_guest))[0] == CLIENT
    saved = run("iptables", "-S")
    await docker.nat.check()
    assert run("iptables", "-S") == saved
