"""Two projects with the same addresses on one host: each is in a world of its own, from its gateway to the internet.

`blue` was there first and is an ordinary network; `red` came later and is apart. Guests are namespaces, the internet is
one, as in `test_nat.py`. What only real guests can show is in `test_apart_guests.py`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.flows import Flows
from launcher.drivers.nat.nftables import ROUTING, NftablesNat
from launcher.drivers.network import links
from launcher.drivers.network.apart import Apart
from launcher.drivers.network.flat_dhcp import FlatDhcpNetwork
from launcher.drivers.network.namespaces import Namespaces
from launcher.explaining import Settings
from launcher.floating import Beyond, Translation
from launcher.models import LaunchOrder
from launcher.networks import FixedIp, Network, NetworkMode
from launcher.policy import Direction, Protocol, Rule, SecurityGroup
from tests.host.lan import ANYWHERE, FIREWALLS, LIMIT, METADATA_PORT, OPEN, allowing, icmp, namespace, nothing_came
from tests.host.test_nat import CLIENT, HOST, INTERNET, POOL, UPLINK, Machine, exchange, run
from tests.orders import make_launch
from tests.waiting import eventually

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

BLUE = Network(
    name="default",
    project_id="blue",
    mode=NetworkMode.FLAT_DHCP,
    bridge="br-blue",
    cidr=IPv4Network("10.94.0.0/24"),
    gateway=IPv4Address("10.94.0.1"),
)
RED = BLUE.model_copy(update={"project_id": "red", "bridge": "br-red", "apart": 1})
NETWORKS = (BLUE, RED)
TO_BLUE, TO_RED, TO_ASKER = (IPv4Address(f"192.0.2.{number}") for number in (33, 34, 35))
UDP = allowing(Protocol.UDP)
QUESTION = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05guest\x09novalocal\x00\x00\x01\x00\x01"


@dataclass
class Guest:
    machine: Machine
    order: LaunchOrder
    lease: FixedIp

    def open(self, port: int = 0) -> socket.socket:
        return self.machine.open(port=port)

    def make(self, kind: socket.SocketKind, protocol: int = 0) -> socket.socket:
        with namespace(self.machine.descriptor):
            return socket.socket(socket.AF_INET, kind, protocol)


class Site:
    """The host with both networks, and the internet beyond its uplink."""

    def __init__(self, state: Path, firewall: FirewallDriver) -> None:
        self.state, self.firewall = state, firewall
        self.machines: list[Machine] = []
        self.guests: list[Guest] = []
        self.floating: dict[str, dict[IPv4Address, IPv4Address]] = {}
        self.begin()

    def begin(self) -> None:
        """As a process that has just started."""
        self.namespaces = Namespaces(self.state)
        self.nat = NftablesNat(note=None, pools=[POOL], namespaces=self.namespaces)
        self.network = FlatDhcpNetwork(self.state, apart=Apart(self.namespaces, metadata_port=METADATA_PORT))

    async def serve(self) -> None:
        for network in NETWORKS:
            await self.network.ensure_network(network)
            await self.firewall.ensure_base(network)
        await self.apply()

    async def start(self) -> None:
        await self.serve()
        self.internet = self.machine(UPLINK, "02:00:00:00:00:01", f"{INTERNET}/24")
        self.internet.run(f"address add {CLIENT}/32 dev lo")
        run("ip", "address", "add", f"{HOST}/24", "dev", UPLINK)
        run("ip", "route", "add", CLIENT, "via", str(INTERNET))

    def machine(self, name: str, mac: str, address: str, gateway: str | None = None) -> Machine:
        self.machines.append(Machine(name, mac, address, gateway))
        return self.machines[-1]

    async def guest(self, number: int, network: Network, address: str, *groups: SecurityGroup) -> Guest:
        order, (lease,), policy = make_launch(number, *groups, address=address, network=network)
        made = self.machine(order.tap, lease.mac, f"{address}/24", gateway=str(network.gateway))
        run("ip", "link", "set", order.tap, "master", network.bridge)
        run("ip", "link", "set", order.tap, "type", "bridge_slave", "hairpin", "on")
        await self.firewall.apply(order, [lease], policy)
        self.guests.append(Guest(made, order, lease))
        return self.guests[-1]

    async def twins(self, *groups: SecurityGroup) -> tuple[Guest, Guest]:
        """One in each network, with the same address."""
        return (
            await self.guest(1, BLUE, "10.94.0.3", *groups),
            await self.guest(2, RED, "10.94.0.3", *groups),
        )

    async def lead(self, floating: IPv4Address, guest: Guest) -> None:
        for known in self.floating.values():
            known.pop(floating, None)
        self.floating.setdefault(guest.lease.network.bridge, {})[floating] = guest.lease.address
        await self.apply()

    async def apply(self, *, masquerade: bool = True) -> None:
        assert not await self.nat.apply(
            Translation(
                networks={BLUE.bridge: BLUE.cidr, RED.link_device: RED.link},
                masquerade=masquerade,
                floating=dict(self.floating.get(BLUE.bridge, {})),
                apart={
                    RED.bridge: Beyond(
                        cidr=RED.cidr,
                        link=RED.link,
                        device=RED.link_device,
                        floating=dict(self.floating.get(RED.bridge, {})),
                    )
                },
            )
        )

    async def stop(self) -> None:
        await self.nat.apply(Translation(masquerade=False))
        for machine in self.machines:
            machine.close()
        for network in NETWORKS:
            await self.network.remove_network(network)
        for guest in self.guests:
            await self.firewall.remove(guest.order)
        await self.firewall.stop()
        await self.nat.stop()
        flows = Flows()
        flows.cut(INTERNET, IPv4Address(CLIENT), BLUE.gateway, RED.link[0], RED.link[1])
        flows.close()


@pytest.fixture(params=sorted(FIREWALLS))
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    was = ROUTING.read_text()
    site = Site(tmp_path, FIREWALLS[request.param](Settings(allow_host_traffic=False, metadata_port=METADATA_PORT)))
    await site.start()
    yield site
    await site.stop()
    ROUTING.write_text(was)


async def ask(guest: Guest, port: int, question: bytes) -> bytes:
    """The answer of its gateway, by UDP."""
    sender = guest.open()
    sender.sendto(question, (str(guest.lease.network.gateway), port))
    async with asyncio.timeout(LIMIT):
        return await asyncio.get_running_loop().sock_recv(sender, 512)


async def knows(guest: Guest, address: IPv4Address) -> None:
    """Its gateway has the name `guest`; that it was told is not waited for."""

    async def look() -> bool:
        return (await ask(guest, 53, QUESTION)).endswith(address.packed)

    await eventually(look, what="the name of the guest")


def ping(guest: Guest, address: IPv4Address) -> bool:
    """Whether the address answers in a second; the answer can only be to this question."""
    with guest.make(socket.SOCK_RAW, socket.IPPROTO_ICMP) as asker:
        asker.settimeout(1.0)
        question = icmp(8, 0)
        asker.sendto(question, (str(address), 0))
        try:
            while True:
                answer = asker.recv(128)[20:]
                if answer[0] == 0 and answer[4:8] == question[4:8]:
                    return True
        except TimeoutError:
            return False


async def test_each_reaches_its_own_gateway_and_its_names(site: Site) -> None:
    blue, red = await site.twins()
    other = await site.guest(3, RED, "10.94.0.9")
    await site.network.set_leases(BLUE, [blue.lease.model_copy(update={"hostname": "guest"})])
    await site.network.set_leases(RED, [other.lease.model_copy(update={"hostname": "guest"})])
    for guest, address in ((blue, blue.lease.address), (red, other.lease.address)):
        assert ping(guest, BLUE.gateway)
        await knows(guest, address)


async def test_neither_sees_the_others_packets(site: Site) -> None:
    blue, red = await site.twins(UDP)
    asker, twin = await site.guest(3, BLUE, "10.94.0.4", UDP), await site.guest(4, RED, "10.94.0.4", UDP)
    at_blue, at_red = blue.open(OPEN), red.open(OPEN)
    # The same ports, too: connection tracking alone could not tell the two flows from each other.
    by_blue, by_red = asker.open(40000), twin.open(40000)
    for sender, listener, other in ((by_blue, at_blue, at_red), (by_red, at_red, at_blue)):
        assert await exchange(sender, ("10.94.0.3", OPEN), listener) == ("10.94.0.4", "10.94.0.3")
        assert nothing_came(other)


async def test_both_go_out_by_the_hosts_address_and_get_their_own_answers(site: Site) -> None:
    blue, red = await site.twins()
    listener = site.internet.open(port=OPEN)
    for guest in (blue, red):
        assert (await exchange(guest.open(40000), (str(INTERNET), OPEN), listener))[0] == HOST


async def test_a_floating_ip_leads_in_and_out_of_the_right_one(site: Site) -> None:
    blue, red = await site.twins(UDP)
    await site.lead(TO_BLUE, blue)
    await site.lead(TO_RED, red)
    client, listener = site.internet.open(address=CLIENT), site.internet.open(port=OPEN)
    at_blue, at_red = blue.open(OPEN), red.open(OPEN)
    for floating, at_guest, other in ((TO_BLUE, at_blue, at_red), (TO_RED, at_red, at_blue)):
        assert (await exchange(client, (str(floating), OPEN), at_guest))[0] == CLIENT
        assert nothing_came(other)
    for guest, floating in ((blue, TO_BLUE), (red, TO_RED)):
        assert (await exchange(guest.open(40000), (str(INTERNET), OPEN), listener))[0] == str(floating)
    assert dict(await site.nat.look()) == {TO_BLUE: True, TO_RED: True}


async def test_floating_ips_lead_from_one_to_the_other_under_names_that_are_nobody_elses(site: Site) -> None:
    """Its own address would be a member's of the other project's groups."""
    own_range = allowing(Protocol.UDP, OPEN + 1, OPEN + 1, source=str(BLUE.cidr))
    blue, red = await site.twins(UDP, own_range.model_copy(update={"id": 2}))
    await site.lead(TO_BLUE, blue)
    await site.lead(TO_RED, red)
    at_blue, at_red = blue.open(OPEN), red.open(OPEN)
    assert (await exchange(red.open(), (str(TO_BLUE), OPEN), at_blue))[0] == str(TO_RED)
    assert (await exchange(blue.open(), (str(TO_RED), OPEN), at_red))[0] == str(TO_BLUE)
    stranger = await site.guest(3, RED, "10.94.0.4")
    assert (await exchange(stranger.open(), (str(TO_BLUE), OPEN), at_blue))[0] == str(BLUE.gateway)
    assert (await exchange(stranger.open(), (str(TO_RED), OPEN), at_red))[0] == str(RED.gateway)
    assert (await exchange(red.open(), (str(TO_RED), OPEN), at_red))[0] == str(TO_RED)


async def test_a_rule_for_the_networks_own_range_lets_nobody_of_the_other_in(site: Site) -> None:
    own_range = allowing(Protocol.UDP, source=str(BLUE.cidr))
    blue, red = await site.twins(own_range)
    await site.lead(TO_BLUE, blue)
    await site.lead(TO_RED, red)
    stranger, far = await site.guest(3, RED, "10.94.0.4"), await site.guest(4, BLUE, "10.94.0.4")
    at_blue, at_red = blue.open(OPEN), red.open(OPEN)
    stranger.open().sendto(b"no", (str(TO_BLUE), OPEN))
    far.open().sendto(b"no", (str(TO_RED), OPEN))
    assert (await exchange(stranger.open(), ("10.94.0.3", OPEN), at_red))[0] == "10.94.0.4"
    assert (await exchange(far.open(), ("10.94.0.3", OPEN), at_blue))[0] == "10.94.0.4"


async def test_the_host_reaches_a_floating_ip_of_either(site: Site) -> None:
    blue, red = await site.twins(UDP)
    for floating, guest in ((TO_BLUE, blue), (TO_RED, red)):
        await site.lead(floating, guest)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            await exchange(sender, (str(floating), OPEN), guest.open(OPEN))


async def test_a_floating_ip_moves_from_one_to_the_other_and_old_flows_end(site: Site) -> None:
    blue, red = await site.twins(UDP)
    client, sockets = site.internet.open(address=CLIENT), {"blue": blue.open(OPEN), "red": red.open(OPEN)}
    for guest, name, other in ((blue, "blue", "red"), (red, "red", "blue"), (blue, "blue", "red")):
        await site.lead(TO_BLUE, guest)
        assert (await exchange(client, (str(TO_BLUE), OPEN), sockets[name]))[0] == CLIENT
        assert nothing_came(sockets[other])


async def test_without_nat_nobodys_own_address_gets_out_of_a_network_apart(site: Site) -> None:
    blue, red = await site.twins(UDP)
    await site.lead(TO_BLUE, blue)
    await site.apply(masquerade=False)
    listener, at_blue = site.internet.open(port=OPEN), blue.open(OPEN)
    red.open().sendto(b"no", (str(INTERNET), OPEN))
    red.open().sendto(b"no", (str(TO_BLUE), OPEN))
    await site.lead(TO_RED, red)
    await site.apply(masquerade=False)
    assert (await exchange(red.open(), (str(INTERNET), OPEN), listener))[0] == str(TO_RED)
    assert (await exchange(red.open(), (str(TO_BLUE), OPEN), at_blue))[0] == str(TO_RED)


async def test_the_seal_keeps_a_guest_from_the_hosts_own_ip(site: Site) -> None:
    """By the bridge's MAC it would be the other network's gateway, and the host's forwarding."""
    blue, red = await site.twins(UDP)
    bridge = Path("/sys/class/net/br-red/address").read_text().strip()
    red.machine.run(f"neigh replace {RED.gateway} lladdr {bridge} dev eth0")
    at_blue, listener = blue.open(OPEN), site.internet.open(port=OPEN)
    assert not ping(red, RED.gateway)
    red.open().sendto(b"no", (str(INTERNET), OPEN))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ask(red, 53, QUESTION), 0.5)
    assert nothing_came(at_blue)
    assert nothing_came(listener)
    # Nor does the host answer on the bridge for addresses of its own.
    red.machine.run("neigh flush dev eth0", "route add 192.0.2.1 dev eth0")
    assert not ping(red, IPv4Address(HOST))


async def test_the_hosts_own_ports_are_closed_to_both(site: Site) -> None:
    guests = await site.twins(UDP)
    with socket.create_server((HOST, 9000)), socket.create_server((str(RED.link[0]), 9000)):
        for guest in guests:
            for address in (HOST, str(RED.link[0]), str(BLUE.gateway)):
                with guest.make(socket.SOCK_STREAM) as asker:
                    asker.settimeout(0.5)
                    with pytest.raises(TimeoutError):
                        asker.connect((address, 9000))


async def test_a_gateway_serves_nothing_but_its_services(site: Site) -> None:
    _, red = await site.twins()
    inside = {port: site.namespaces.open(RED.bridge, socket.SOCK_STREAM) for port in (METADATA_PORT, 9000)}
    for port, listener in inside.items():
        listener.bind(("0.0.0.0", port))
        listener.listen()
        listener.setblocking(False)
    loop = asyncio.get_running_loop()
    for target, fits in ((("169.254.169.254", 80), True), ((str(RED.gateway), 9000), False)):
        asker = red.make(socket.SOCK_STREAM)
        asker.setblocking(False)
        try:
            await asyncio.wait_for(loop.sock_connect(asker, target), LIMIT if fits else 0.5)
            assert fits
        except TimeoutError:
            assert not fits
        finally:
            asker.close()
    accepted, (address, _) = await loop.sock_accept(inside[METADATA_PORT])
    assert address == str(red.lease.address)
    for each in (accepted, *inside.values()):
        each.close()


async def test_who_may_not_send_much_still_has_the_gateways_services(site: Site) -> None:
    web = Rule(direction=Direction.EGRESS, protocol=Protocol.TCP, from_port=443, to_port=443, cidr=ANYWHERE)
    limited = SecurityGroup(id=9, name="limited", rules=(web,))
    _, red = await site.twins(limited)
    await site.network.set_leases(RED, [red.lease.model_copy(update={"hostname": "guest"})])
    assert ping(red, RED.gateway)
    await knows(red, red.lease.address)
    listener = site.internet.open(port=OPEN)
    red.open().sendto(b"no", (str(INTERNET), OPEN))
    assert nothing_came(listener)


async def test_only_the_flows_of_the_right_zone_are_cut(site: Site) -> None:
    blue, red = await site.twins(UDP)
    near, far = await site.guest(3, BLUE, "10.94.0.4", UDP), await site.guest(4, RED, "10.94.0.4", UDP)
    for asker, target in ((near, blue), (far, red)):
        await exchange(asker.open(40000), (str(target.lease.address), OPEN), target.open(OPEN))
    address, flows = blue.lease.address, Flows()
    known = {zone for zone, each in flows.ends() if each == address}
    assert known == {0, 1}
    assert flows.cut_where([(1, address)]) == 1
    assert {zone for zone, each in flows.ends() if each == address} == {0}
    assert flows.cut(address) == 1
    flows.close()


async def test_the_next_process_takes_over_and_no_packet_is_lost(site: Site) -> None:
    _, red = await site.twins(UDP)
    await site.lead(TO_RED, red)
    client, at_red = site.internet.open(address=CLIENT), red.open(OPEN)
    known = dict(site.namespaces.list_all())

    async def take_over() -> None:
        for _ in range(2):
            site.begin()
            await site.serve()
            await site.nat.check()

    taking, count = asyncio.create_task(take_over()), 0
    while not taking.done():
        assert (await exchange(client, (str(TO_RED), OPEN), at_red))[0] == CLIENT
        count += 1
        await asyncio.sleep(0)
    await taking
    assert count > 10
    assert dict(site.namespaces.list_all()) == known


async def test_what_somebody_removed_is_put_back(site: Site) -> None:
    _, red = await site.twins(UDP)
    await site.lead(TO_RED, red)
    client, at_red = site.internet.open(address=CLIENT), red.open(OPEN)
    inside = ("nsenter", f"--net={site.namespaces.path(RED.bridge)}", "nft")
    for damage in (
        ("ip", "route", "delete", f"{TO_RED}/32"),
        ("ip", "neigh", "delete", "proxy", str(TO_RED), "dev", UPLINK),
        (*inside, "delete", "table", "ip", "nova-nat"),
    ):
        run(*damage)
        await site.nat.check()
        assert (await exchange(client, (str(TO_RED), OPEN), at_red))[0] == CLIENT
    run("umount", str(site.namespaces.path(RED.bridge)))
    run("ip", "link", "delete", RED.link_device)
    await site.serve()
    assert ping(red, RED.gateway)
    assert (await exchange(client, (str(TO_RED), OPEN), at_red))[0] == CLIENT


async def test_a_network_that_goes_leaves_nothing(site: Site) -> None:
    await site.apply()
    for _ in range(2):
        await site.network.remove_network(RED)
        assert not [each for each in (RED.bridge, RED.link_device, "nova-port1") if links.exists(each)]
        assert not site.namespaces.list_all()
        assert "nova-apart" not in run("nft", "list", "tables")
    assert not list((site.state / "namespaces").iterdir())
