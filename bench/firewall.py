"""What the packet filters cost, side by side, with 1, 100 and 1,000 instances on the host.

In a network namespace of its own; a driver's name as argument leaves the others out. Each instance has a tap (not
plugged; two are, by veth) and is in two groups: its project's default group, whose rule names itself, and one with
more rules. Changing a rule of a group with 200 members, and latency and throughput between two guests behind the
rules of all, are measured with 1,000. nwfilter, half a second each, ends at 100: its rules for packets are nftables'.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network

from tests.host.nwfilters import plugging

from bench import tables
from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.firewall.iptables import IptablesFirewall
from launcher.drivers.firewall.nftables import NftablesFirewall
from launcher.explaining import Settings
from launcher.models import Flavor, Image, ImageFormat, ImageKind, LaunchOrder, Nic
from launcher.networks import FixedIp, Network, NetworkMode
from launcher.policy import Policy, Protocol, Rule, SecurityGroup
from launcher.sandbox import INSIDE

COUNTS, FEW, ROUNDS, PROJECTS, PINGS, MEGABYTES = (1, 100, 1000), 100, 15, 5, 2000, 256
DRIVERS: dict[str, Callable[[Settings], FirewallDriver]] = {
    "nftables": NftablesFirewall,
    "iptables": IptablesFirewall,
    "nwfilter": plugging,
}
DEFAULT = "nftables"
SETTINGS = Settings(metadata_port=8775)
ANYWHERE = IPv4Network("0.0.0.0/0")
NET = Network(
    name="bench",
    mode=NetworkMode.FLAT_DHCP,
    bridge="br-bench",
    cidr=IPv4Network("10.92.0.0/16"),
    gateway=IPv4Address("10.92.0.1"),
)
IMAGE = Image(
    id="bench",
    name="bench",
    kind=ImageKind.MACHINE,
    format=ImageFormat.RAW,
    size=1,
    virtual_size=1,
    sha256="0" * 64,
    path="/bench",
)
PORT = 5000


def launch(number: int, count: int) -> tuple[LaunchOrder, list[FixedIp], Policy]:
    """An instance among `count`; every fifth is in the same project."""
    identity = f"00000000-0000-4000-8000-{number:012x}"
    mac = f"02:92:00:00:{number >> 8:02x}:{number & 255:02x}"
    order = LaunchOrder(
        instance_id=identity,
        number=number,
        generation=1,
        project_id="bench",
        hostname=f"server-{number}",
        nics=(Nic(mac=mac),),
        flavor=Flavor(name="m1.tiny", vcpus=1, memory_mb=512, root_gb=0),
        image=IMAGE,
    )
    lease = FixedIp(instance_id=identity, address=address(number), mac=mac, hostname=order.hostname, network=NET)
    project = number % PROJECTS
    return order, [lease], Policy(groups=groups(project), members={project + 1: members(project, count)})


@functools.cache  # as messages have them
def address(number: int) -> IPv4Address:
    return NET.gateway + number


def members(project: int, count: int) -> tuple[IPv4Address, ...]:
    return tuple(address(number) for number in range(1, count + 1) if number % PROJECTS == project)


def groups(project: int, port: int = PORT) -> tuple[SecurityGroup, SecurityGroup]:
    own = SecurityGroup(id=project + 1, name="default", rules=(Rule(protocol=Protocol.ANY, group_id=project + 1),))
    web = [Rule(protocol=Protocol.TCP, from_port=each, to_port=each, cidr=ANYWHERE) for each in (80, port)]
    return own, SecurityGroup(id=project + 101, name="web", rules=(*web, Rule(protocol=Protocol.ICMP, cidr=ANYWHERE)))


async def fill(firewall: FirewallDriver, below: int, count: int) -> None:
    for number in range(below + 1, count + 1):
        await firewall.apply(*launch(number, count))


async def add_and_remove(firewall: FirewallDriver, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of one more instance, and of one less."""
    added, removed = [], []
    for turn in range(ROUNDS):
        instance = launch(20_000 + turn, count)
        begun = time.perf_counter()
        await firewall.apply(*instance)
        between = time.perf_counter()
        await firewall.remove(instance[0])
        added.append((between - begun) * 1000)
        removed.append((time.perf_counter() - between) * 1000)
    return added, removed


async def change_rule(firewall: FirewallDriver) -> list[float]:
    """Milliseconds until another port of the group, in which a fifth of 1,000 are, is open."""
    times = []
    for turn in range(ROUNDS):
        policy = Policy(groups=groups(0, PORT + 1 + turn % 2)[1:])
        begun = time.perf_counter()
        await firewall.update(policy)
        times.append((time.perf_counter() - begun) * 1000)
    await firewall.update(Policy(groups=groups(0)[1:]))
    return times


# --- packets -----------------------------------------------------------------------------------------


def plug(number: int) -> int:
    """A guest: a namespace whose NIC's other end is the instance's tap; its descriptor."""
    libc, home = ctypes.CDLL(None), os.open("/proc/self/ns/net", os.O_RDONLY)
    libc.unshare(0x40000000)
    there = os.open("/proc/self/ns/net", os.O_RDONLY)
    libc.setns(home, 0)
    order, (lease,), _ = launch(number, 1)
    path = f"/proc/{os.getpid()}/fd/{there}"
    ip(*f"link add {order.tap} type veth peer name eth0 address {lease.mac} netns {path}".split())
    ip("link", "set", order.tap, "master", NET.bridge, "up")
    libc.setns(there, 0)
    ip("address", "add", f"{lease.address}/16", "dev", "eth0")
    ip("link", "set", "eth0", "up")
    libc.setns(home, 0)
    os.close(home)
    return there


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def at(place: int, kind: socket.SocketKind) -> socket.socket:
    libc, home = ctypes.CDLL(None), os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    libc.setns(place, 0)
    made = socket.socket(socket.AF_INET, kind)
    libc.setns(home, 0)
    os.close(home)
    return made


def latency(one: int, other: int, target: IPv4Address) -> list[float]:
    """Microseconds of a round trip of tcp, of the first packet of a connection with it: connect and close."""
    times = []
    with at(other, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(target), PORT))
        listener.listen(64)
        for _ in range(PINGS):
            with at(one, socket.SOCK_STREAM) as caller:
                begun = time.perf_counter()
                caller.connect((str(target), PORT))
                times.append((time.perf_counter() - begun) * 1e6)
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            listener.accept()[0].close()
    return times


def throughput(one: int, other: int, target: IPv4Address) -> float:
    """Megabytes a second of one connection."""
    block = bytes(1 << 20)
    with at(other, socket.SOCK_STREAM) as listener, at(one, socket.SOCK_STREAM) as caller:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(target), PORT))
        listener.listen()
        caller.connect((str(target), PORT))
        accepted = listener.accept()[0]
        pid = os.fork()
        if pid == 0:
            caller.close()
            while accepted.recv(1 << 20):
                pass
            os._exit(0)
        accepted.close()
        begun = time.perf_counter()
        for _ in range(MEGABYTES):
            caller.sendall(block)
        caller.shutdown(socket.SHUT_WR)
        os.waitpid(pid, 0)
        return MEGABYTES / (time.perf_counter() - begun)


def measure_packets(name: str) -> tuple[list[float], list[float]]:
    """Between the last two instances, whose rules a linear search finds last."""
    one, other = plug(COUNTS[-1] - PROJECTS), plug(COUNTS[-1])
    try:
        target = address(COUNTS[-1])
        return latency(one, other, target), [throughput(one, other, target) for _ in range(3)]
    finally:
        for number, place in ((COUNTS[-1] - PROJECTS, one), (COUNTS[-1], other)):
            ip("link", "del", launch(number, 1)[0].tap)
            os.close(place)


def clear() -> None:
    """This namespace is ours, and to remove 1,000 by iptables takes minutes."""
    for command in (["nft", "flush", "ruleset"], ["iptables", "-F"]):
        subprocess.run(command, check=True)


async def measure(name: str, rows: dict[str, dict[str, Sequence[float]]]) -> None:
    firewall, below = DRIVERS[name](SETTINGS), 0
    await firewall.ensure_base(NET)
    for count in [count for count in COUNTS if name != "nwfilter" or count <= FEW]:
        begun = time.perf_counter()
        await fill(firewall, below, count)
        print(f"{name}: {count - below} added in {time.perf_counter() - begun:.1f} s", file=sys.stderr)
        below = count
        added, removed = await add_and_remove(firewall, count)
        rows["milliseconds"] |= {f"{name}, add one to {count}": added, f"{name}, remove one of {count}": removed}
    if below == COUNTS[-1]:
        rows["milliseconds"][f"{name}, a rule of a group of 200"] = await change_rule(firewall)
        times, rates = measure_packets(name)
        rows["microseconds to connect, 1,000 instances"][name] = times
        rows["megabytes a second, 1,000 instances"][name] = rates
    await firewall.stop()
    clear()


async def main(chosen: Sequence[str]) -> None:
    ip("link", "add", NET.bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0")
    ip("link", "set", NET.bridge, "up")
    rows: dict[str, dict[str, Sequence[float]]] = {
        title: {}
        for title in (
            "milliseconds",
            "microseconds to connect, 1,000 instances",
            "megabytes a second, 1,000 instances",
        )
    }
    for title, samples in zip(list(rows)[1:], measure_packets("no filter"), strict=True):
        rows[title]["no filter"] = samples
    for name in chosen:
        await measure(name, rows)
    for title, series in rows.items():
        tables.show(title, series, digits=2)
    names = {"add1_ms": "add one to 1", "add1000_ms": "add one to 1000", "remove1000_ms": "remove one of 1000"}
    found = {key: rows["milliseconds"].get(f"{DEFAULT}, {words}") for key, words in names.items()}
    tables.finish("firewall", **{key: statistics.median(samples) for key, samples in found.items() if samples})


if __name__ == "__main__":
    if os.environ.get(INSIDE) != "1":
        os.execv(
            sys.executable,
            [sys.executable, "-m", "launcher.sandbox", sys.executable, "-m", "bench.firewall", *sys.argv[1:]],
        )
    asyncio.run(main(sys.argv[1:] or list(DRIVERS)))
