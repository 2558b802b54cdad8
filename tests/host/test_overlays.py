"""Two projects with the same addresses do not see each other, on one host and over the wire between two."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from launcher.drivers.network import links
from launcher.drivers.network.uplinks import Tags, Vxlan
from launcher.drivers.network.vlan import VlanNetwork
from launcher.errors import HostResourceMissing, NetworkFailed
from tests.host.overlay_host import GROUP, network
from tests.namespaces import PORT, drive, inside, join, namespaces, open_udp, plug, run

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

RED, BLUE = 100, 101
GUESTS = ("red1", "red2", "blue1", "blue2")


@pytest.fixture
def one_host() -> Iterator[None]:
    """All guests on one host; the first of each project has .1, the second .2."""
    with namespaces("h1", *GUESTS):
        drive("h1", "tests.host.overlay_host", "none", "", str(RED), str(BLUE))
        for guest in GUESTS:
            plug("h1", f"br{RED if guest.startswith('red') else BLUE}", guest, f"10.0.0.{guest[-1]}/24")
        yield


@pytest.fixture(params=["group", "peers"])
def two_hosts(request: pytest.FixtureRequest) -> Iterator[None]:
    """The first guest of each project on one host, the second on the other."""
    with namespaces("h1", "h2", *GUESTS):
        join("h1", "e0", "h2", "e0")
        for number in (1, 2):
            inside(f"h{number}", "ip", "address", "add", f"192.0.2.{number}/24", "dev", "e0")
            peers = f"192.0.2.{3 - number}" if request.param == "peers" else ""
            drive(f"h{number}", "tests.host.overlay_host", "vxlan", peers, str(RED), str(BLUE))
        for guest in GUESTS:
            plug(f"h{guest[-1]}", f"br{RED if guest.startswith('red') else BLUE}", guest, f"10.0.0.{guest[-1]}/24")
        yield


def check_apart() -> None:
    """Each project's first guest writes to .2 and hears .2 of its own project, and nobody else hears anything."""
    with contextlib.ExitStack() as opened:
        sockets = {guest: opened.enter_context(open_udp(guest)) for guest in GUESTS}
        for colour in ("red", "blue"):
            sockets[f"{colour}1"].sendto(colour.encode(), ("10.0.0.2", PORT))
            assert sockets[f"{colour}2"].recv(100) == colour.encode()
            sockets[f"{colour}2"].sendto(f"{colour} back".encode(), ("10.0.0.1", PORT))
            assert sockets[f"{colour}1"].recv(100) == f"{colour} back".encode()
        for each in sockets.values():
            each.setblocking(False)
            with pytest.raises(BlockingIOError):
                each.recv(100)


def test_on_one_host(one_host: None) -> None:
    check_apart()


def test_over_the_wire_between_two(two_hosts: None) -> None:
    check_apart()


def test_guests_are_told_how_much_fits_in_vxlan() -> None:
    run("ip", "link", "add", "e0", "mtu", "1400", "type", "veth", "peer", "name", "e1")
    assert Vxlan("e0", group=GROUP).mtu() == 1350


async def test_a_network_that_goes_takes_its_devices_along(tmp_path: Path) -> None:
    run("ip", "link", "add", "e0", "type", "veth", "peer", "name", "e1")
    run("ip", "link", "set", "e0", "up")
    driver = VlanNetwork(tmp_path, uplink=Vxlan("e0", group=GROUP, peers=[IPv4Address("192.0.2.9")]))
    await driver.start()
    await driver.ensure_network(network(RED))
    assert links.exists("vx100")
    assert links.exists("br100")
    for _ in range(2):
        await driver.remove_network(network(RED))
        assert not links.exists("vx100")
        assert not links.exists("br100")
    assert not (tmp_path / "networks" / "br100").exists()


@pytest.mark.parametrize("device", ["br100", "vx100"])
async def test_a_device_of_somebody_else_is_not_given_to_a_project(tmp_path: Path, device: str) -> None:
    """The host's own VLAN 100 would have become a project's network."""
    run("ip", "link", "add", "e0", "type", "veth", "peer", "name", "e1")
    run("ip", "link", "add", device, "type", "bridge")
    driver = VlanNetwork(tmp_path, uplink=Vxlan("e0", group=GROUP))
    with pytest.raises(NetworkFailed, match=f"{device}: .* not the launcher's"):
        await driver.ensure_network(network(RED))
    await driver.remove_network(network(RED))
    assert links.exists(device)


def knows_8021q() -> bool:
    made = subprocess.run(
        ["ip", "-batch", "-"],
        input="link add q0 type bridge\nlink add link q0 name q0.1 type vlan id 1\nlink delete q0\n",
        check=False,
        text=True,
        capture_output=True,
    )
    subprocess.run(["ip", "link", "delete", "q0"], check=False, capture_output=True)
    return made.returncode == 0


async def test_a_kernel_without_8021q_is_refused_by_name(tmp_path: Path) -> None:
    if knows_8021q():
        pytest.skip("HOST TEST NOT RUN: this kernel has 802.1Q")
    run("ip", "link", "add", "e0", "type", "veth", "peer", "name", "e1")
    with pytest.raises(HostResourceMissing, match=r"no 802\.1Q VLAN devices") as raised:
        await VlanNetwork(tmp_path, uplink=Tags("e0")).start()
    assert raised.value.hint == '`modprobe 8021q`, or set [network] overlay = "vxlan"'
    assert not [device for device in links._DEVICES.iterdir() if device.name.startswith("probe")]


async def test_an_interface_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(HostResourceMissing, match="no interface e7"):
        await VlanNetwork(tmp_path, uplink=Vxlan("e7", group=GROUP)).start()


def test_the_server_refuses_to_start_and_says_so(tmp_path: Path) -> None:
    settings = ("--set", "network.mode=vlan", "--set", "network.interface=e7")
    words = [sys.executable, "-m", "launcher", "serve", "--state", str(tmp_path), "--listen", "127.0.0.1:0", *settings]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "there is no interface e7" in done.stderr
    assert "[network] interface" in done.stderr
