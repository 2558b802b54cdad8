"""One suite for every kind of networking: the fake, and the real bridges, taps and DHCP server in the sandbox."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from launcher.drivers import process
from launcher.drivers.network import links
from launcher.drivers.network.dnsmasq import Files
from launcher.drivers.network.driver import NetworkDriver, Tap
from launcher.drivers.network.fake import FakeNetwork
from launcher.drivers.network.flat import FlatNetwork
from launcher.drivers.network.flat_dhcp import FlatDhcpNetwork
from launcher.errors import NetworkFailed
from launcher.networks import FixedIp, Network, NetworkMode
from tests.orders import make_lease, make_order
from tests.waiting import eventually

LAN = Network(
    name="contract",
    mode=NetworkMode.FLAT_DHCP,
    bridge="br-contract",
    cidr=IPv4Network("10.91.0.0/24"),
    gateway=IPv4Address("10.91.0.1"),
)
OTHER = LAN.model_copy(update={"name": "other", "bridge": "br-other"})
DEVICES = Path("/sys/class/net")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def a_lease(number: int) -> FixedIp:
    return make_lease(make_order(number), f"10.91.0.{number + 2}", LAN)


def attribute(device: str, name: str) -> str:
    return (DEVICES / device / name).read_text().strip()


def clear() -> None:
    """Every device the tests may have made."""
    for device in DEVICES.iterdir():
        if device.name.startswith(("br-", "tap", "taken")):
            ip("link", "delete", device.name)


@pytest.fixture
def devices(sandboxed: None) -> Iterator[None]:
    yield
    clear()


@pytest.fixture(
    params=["fake", pytest.param("flat", marks=pytest.mark.host), pytest.param("flat_dhcp", marks=pytest.mark.host)]
)
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NetworkDriver]:
    if request.param == "fake":
        yield FakeNetwork()
        return
    request.getfixturevalue("sandboxed")
    real = FlatNetwork() if request.param == "flat" else FlatDhcpNetwork(tmp_path)
    yield real
    await real.ensure_network(LAN)
    await real.set_leases(LAN, ())
    await real.stop()
    clear()


async def test_everything_may_be_repeated(driver: NetworkDriver) -> None:
    for _ in range(2):
        await driver.ensure_network(LAN)
        await driver.ensure_bridge(LAN)
        await driver.set_leases(LAN, [a_lease(1), a_lease(2)])
        await driver.plug(make_order(1), LAN)
    assert list(await driver.list_taps()) == [Tap(1)]
    for _ in range(2):
        await driver.unplug(make_order(1))
    assert list(await driver.list_taps()) == []


async def test_the_dhcp_server_knows_exactly_the_leases(driver: NetworkDriver) -> None:
    await driver.ensure_network(LAN)
    for numbers in ((1, 2), (2,), ()):
        leases = [a_lease(number) for number in numbers]
        await driver.set_leases(LAN, leases)
        without_dhcp = type(driver) is FlatNetwork
        assert await driver.list_leases(LAN) == (None if without_dhcp else [lease.mac for lease in leases])


async def test_a_tap_without_a_bridge_is_refused_by_name(driver: NetworkDriver) -> None:
    with pytest.raises(NetworkFailed, match=r"tap0000002a.*br-contract"):
        await driver.plug(make_order(42), LAN)


async def test_unplugging_instance_1_leaves_the_others(driver: NetworkDriver) -> None:
    await driver.ensure_network(LAN)
    for number in (1, 10, 11, 0x10):
        await driver.plug(make_order(number), LAN)
    await driver.unplug(make_order(1))
    assert list(await driver.list_taps()) == [Tap(10), Tap(11), Tap(16)]


async def test_launches_at_once_share_a_bridge(driver: NetworkDriver) -> None:
    async def launch(number: int) -> None:
        await driver.ensure_bridge(LAN)
        await driver.plug(make_order(number), LAN)

    await asyncio.gather(*map(launch, range(1, 6)))
    assert list(await driver.list_taps()) == [Tap(number) for number in range(1, 6)]


async def test_a_nic_that_never_spoke_leaves_no_evidence(driver: NetworkDriver) -> None:
    await driver.ensure_network(LAN)
    evidence = await driver.get_evidence(a_lease(1))
    assert (evidence.requested_ms, evidence.answered_ms) == (None, None)
    assert evidence.instance_id == a_lease(1).instance_id


async def test_a_network_that_goes_may_go_twice_and_come_back(driver: NetworkDriver) -> None:
    await driver.ensure_network(LAN)
    await driver.set_leases(LAN, [a_lease(1)])
    await driver.set_leases(LAN, [])
    for _ in range(2):
        await driver.remove_network(LAN)
    with pytest.raises(NetworkFailed):
        await driver.plug(make_order(1), LAN)
    await driver.ensure_network(LAN)
    await driver.revive(LAN)
    await driver.plug(make_order(1), LAN)


async def test_all_taps_of_an_instance_go_together(driver: NetworkDriver) -> None:
    await driver.ensure_network(LAN)
    for number, nic in ((1, 0), (1, 1), (1, 11), (2, 1), (0x11, 0)):
        await driver.plug(make_order(number), LAN, nic)
    assert sorted(await driver.list_taps()) == [Tap(1, 0), Tap(1, 1), Tap(1, 11), Tap(2, 1), Tap(0x11, 0)]
    await driver.unplug(make_order(1))
    assert sorted(await driver.list_taps()) == [Tap(2, 1), Tap(0x11, 0)]


@pytest.mark.host
@pytest.mark.usefixtures("devices")
class TestLinks:
    async def test_somebody_elses_bridge_stays_and_is_the_gateway_no_more(self) -> None:
        """A network on the host's own bridge was deleted, and with it the bridge."""
        ip("link", "add", LAN.bridge, "type", "bridge")
        ip("address", "add", "192.0.2.7/24", "dev", LAN.bridge)
        await FlatNetwork().ensure_network(LAN)
        for _ in range(2):
            await FlatNetwork().remove_network(LAN)
        left = await process.run(["ip", "-4", "address", "show", "dev", LAN.bridge])
        assert "192.0.2.7/24" in left
        assert str(LAN.gateway) not in left

    async def test_a_bridge_is_made_right_whatever_was_found(self) -> None:
        ip("link", "add", LAN.bridge, "type", "bridge", "stp_state", "1", "forward_delay", "1500")
        await FlatNetwork().ensure_network(LAN)
        assert attribute(LAN.bridge, "bridge/stp_state") == attribute(LAN.bridge, "bridge/forward_delay") == "0"
        assert int(attribute(LAN.bridge, "flags"), 16) & 1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gateway:
            gateway.bind((str(LAN.gateway), 0))

    async def test_the_gateways_mac_stays_when_taps_come(self) -> None:
        """A bridge takes its lowest port's MAC, and every guest's ARP entry for the gateway was wrong then."""
        network = FlatNetwork()
        await network.ensure_network(LAN)
        mac = attribute(LAN.bridge, "address")
        await network.plug(make_order(1), LAN)
        ip("link", "set", "tap00000001", "address", "02:00:00:00:00:01")
        assert attribute(LAN.bridge, "address") == mac

    async def test_a_tap_is_brought_home_and_up(self) -> None:
        network = FlatNetwork()
        await network.ensure_bridge(LAN)
        await network.ensure_bridge(OTHER)
        await network.plug(make_order(1), OTHER)
        ip("link", "set", "tap00000001", "down")
        await network.plug(make_order(1), LAN)
        assert (DEVICES / "tap00000001" / "master").resolve().name == LAN.bridge
        assert int(attribute("tap00000001", "flags"), 16) & 1
        assert attribute("tap00000001", "owner") == str(os.geteuid())

    async def test_a_device_of_that_name_that_is_no_tap(self) -> None:
        await FlatNetwork().ensure_bridge(LAN)
        ip("link", "add", "tap00000001", "type", "bridge")
        with pytest.raises(NetworkFailed, match="tap00000001"):
            await FlatNetwork().plug(make_order(1), LAN)

    async def test_a_device_of_that_name_that_is_no_bridge(self) -> None:
        ip("link", "add", LAN.bridge, "type", "veth")
        with pytest.raises(NetworkFailed, match="br-contract"):
            await FlatNetwork().ensure_bridge(LAN)

    async def test_somebody_elses_tap_is_not_ours(self) -> None:
        ip("tuntap", "add", "dev", "tap00000007", "mode", "tap")
        assert list(await FlatNetwork().list_taps()) == []

    async def test_a_range_in_use_elsewhere_is_refused(self) -> None:
        ip("link", "add", "taken", "type", "bridge")
        ip("address", "add", "10.91.0.77/32", "dev", "taken")
        ip("link", "set", "taken", "up")
        with pytest.raises(NetworkFailed, match=r"10\.91\.0\.77/32 dev taken") as raised:
            await FlatNetwork().ensure_network(LAN)
        assert "[network] cidr" in raised.value.hint

    async def test_a_kernel_without_bridge_filtering_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(links, "_SYSCTLS", tmp_path)
        with pytest.raises(NetworkFailed, match="bridge-nf-call-iptables") as raised:
            await FlatNetwork().ensure_bridge(LAN)
        assert "modprobe br_netfilter" in raised.value.hint


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "networks" / LAN.bridge)


@pytest.fixture
async def dhcp(devices: None, tmp_path: Path) -> AsyncIterator[FlatDhcpNetwork]:
    network = FlatDhcpNetwork(tmp_path)
    await network.ensure_network(LAN)
    yield network
    await network.set_leases(LAN, ())
    await network.stop()


def pid_of(files: Files) -> int:
    """The running dnsmasq; fails if there is none."""
    pid = int(files.pid.read_text())
    assert process.alive(pid, f"--dhcp-hostsfile={files.hosts}")
    return pid


async def ended(pid: int, files: Files) -> None:
    async def gone() -> bool:
        return not process.alive(pid, f"--dhcp-hostsfile={files.hosts}")

    await eventually(gone, what=f"the end of dnsmasq, pid {pid}")


@pytest.mark.host
class TestDnsmasq:
    async def test_the_next_launcher_adopts_it(self, dhcp: FlatDhcpNetwork, files: Files, tmp_path: Path) -> None:
        before = pid_of(files)
        await FlatDhcpNetwork(tmp_path).ensure_network(LAN)
        assert pid_of(files) == before

    async def test_other_arguments_start_another(self, dhcp: FlatDhcpNetwork, files: Files, tmp_path: Path) -> None:
        before = pid_of(files)
        await FlatDhcpNetwork(tmp_path, lease_seconds=120).ensure_network(LAN)
        assert pid_of(files) != before

    async def test_an_adopted_one_is_told_what_it_missed(
        self, dhcp: FlatDhcpNetwork, files: Files, tmp_path: Path
    ) -> None:
        """A launcher that died between writing the file and the signal left a guest without an address."""
        before = files.log.read_text().count("read ")
        await FlatDhcpNetwork(tmp_path).ensure_network(LAN)

        async def read_again() -> bool:
            return files.log.read_text().count("read ") > before

        await eventually(read_again)

    async def test_one_that_died_is_started_by_the_next_lease(self, dhcp: FlatDhcpNetwork, files: Files) -> None:
        before = pid_of(files)
        os.kill(before, signal.SIGKILL)
        await ended(before, files)
        await dhcp.set_leases(LAN, [a_lease(1)])
        assert pid_of(files) != before

    async def test_unchanged_leases_are_not_written_again(self, dhcp: FlatDhcpNetwork, files: Files) -> None:
        await dhcp.set_leases(LAN, [a_lease(1)])
        written = files.hosts.stat().st_ino
        await dhcp.set_leases(LAN, [a_lease(1)])
        assert files.hosts.stat().st_ino == written

    async def test_it_outlives_the_launcher_only_while_guests_need_it(
        self, dhcp: FlatDhcpNetwork, files: Files
    ) -> None:
        await dhcp.set_leases(LAN, [a_lease(1)])
        await dhcp.stop()
        pid = pid_of(files)
        await dhcp.set_leases(LAN, ())
        await dhcp.stop()
        assert not process.alive(pid, f"--dhcp-hostsfile={files.hosts}")

    async def test_a_pid_that_is_somebody_elses_now_is_left_alone(self, dhcp: FlatDhcpNetwork, files: Files) -> None:
        await dhcp.stop()
        files.pid.write_text(f"{os.getpid()}\n")
        await dhcp.ensure_network(LAN)
        assert pid_of(files) != os.getpid()

    async def test_a_port_in_use_is_named(self, dhcp: FlatDhcpNetwork) -> None:
        await dhcp.stop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((str(LAN.gateway), 53))
            with pytest.raises(NetworkFailed, match=r"br-contract: no DHCP server: .*10\.91\.0\.1"):
                await dhcp.ensure_network(LAN)

    async def test_a_log_that_grew_too_long_is_cut(self, dhcp: FlatDhcpNetwork, files: Files) -> None:
        os.truncate(files.log, 5 << 20)
        await dhcp.set_leases(LAN, [a_lease(1)])
        assert files.log.stat().st_size < 1 << 20


def test_what_collides() -> None:
    bridge, wanted = "br100", IPv4Network("10.0.0.0/24")
    free = [
        {"dst": "default", "dev": "eth0"},
        {"dst": "0.0.0.0/1", "dev": "tun0"},
        {"dst": "10.0.0.0/24", "dev": bridge},
        {"type": "local", "dst": "10.0.0.1", "dev": bridge},
        {"dst": "10.0.1.0/24", "dev": "eth0"},
    ]
    assert links.find_collision(free, bridge, wanted) is None
    assert links.has_address(free, bridge, IPv4Interface("10.0.0.1/24"))
    assert not links.has_address(free, bridge, IPv4Interface("10.0.0.1/27"))
    assert links.find_collision([{"dst": "10.0.0.0/8", "dev": "tun0"}], bridge, wanted) == "10.0.0.0/8 dev tun0"
    blackhole = {"type": "blackhole", "dst": "10.0.0.0/16"}
    assert links.find_collision([blackhole], bridge, wanted) == "10.0.0.0/16 blackhole"
