"""Bridges and taps: what is there is read from /sys, what is missing is made by one `ip -batch` a verb.

No netlink library: for the two commands of a launch it would cost more to import than all launches save.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface
from pathlib import Path
from typing import Any

from launcher.drivers import process
from launcher.drivers.network.driver import Tap
from launcher.errors import NetworkFailed, ProgramFailed

MARK = "launcher"
"""The alias of what we made: a foreign device that happens to be named like one of ours is not swept away."""

_DEVICES = Path("/sys/class/net")
_SYSCTLS = Path("/proc/sys/net")
_TAP = re.compile(r"tap([0-9a-f]{8})(?:-([1-9]\d{0,2}))?")
_IFF_UP = 1
_ADDRESS_WAS_SET = "3"  # NET_ADDR_SET of linux/netdevice.h


@dataclass(frozen=True)
class Bridge:
    """A bridge as /sys shows it."""

    name: str
    up: bool
    stp: bool
    forward_delay: bool
    mac: str
    mac_pinned: bool


async def ensure_bridge(name: str) -> None:
    """The bridge, up, forwarding at once (no spanning tree, no delay), its packets seen by iptables."""
    _ensure_filtering()
    bridge = _find_bridge(name)
    if bridge is None:
        made = [f"link add dev {name} type bridge stp_state 0 forward_delay 0", f"link set dev {name} alias {MARK}"]
        await run_ip(made, name)
        bridge = _find_bridge(name)
        assert bridge is not None
    await run_ip(bridge_lines(bridge), name)


def bridge_lines(bridge: Bridge) -> list[str]:
    """What a bridge lacks. Its MAC is pinned, or each new tap with a lower one would change the gateway's."""
    lines = []
    # One after the other: the kernel refuses a delay of 0 while the spanning tree is on.
    if bridge.stp:
        lines.append(f"link set dev {bridge.name} type bridge stp_state 0")
    if bridge.forward_delay:
        lines.append(f"link set dev {bridge.name} type bridge forward_delay 0")
    if not bridge.mac_pinned:
        lines.append(f"link set dev {bridge.name} address {bridge.mac}")
    if not bridge.up:
        lines.append(f"link set dev {bridge.name} up")
    return lines


async def ensure_address(bridge: str, address: IPv4Interface) -> None:
    """The gateway's address on the bridge; raises NetworkFailed where the range is in use elsewhere on this host."""
    routes = json.loads(await process.run(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]")
    if taken := find_collision(routes, bridge, address.network):
        raise NetworkFailed(
            f"{bridge}: the range {address.network} is taken on this host by the route {taken}",
            hint="give the instances another range: [network] cidr",
        )
    if not has_address(routes, bridge, address):
        await run_ip([f"address replace {address} brd + dev {bridge}"], bridge)


def find_collision(routes: Sequence[dict[str, Any]], bridge: str, wanted: IPv4Network) -> str | None:
    """The first route that shares addresses with `wanted` and does not lead to the bridge, for a reader."""
    for route in routes:
        target = _target(route)
        # A prefix this short is a default route by another name: VPNs use two halves, 0.0.0.0/1 and 128.0.0.0/1.
        if route.get("dev") != bridge and target.prefixlen >= 8 and target.overlaps(wanted):
            way = f"dev {route['dev']}" if "dev" in route else route.get("type", "with several next hops")
            return f"{target} {way}"
    return None


def has_address(routes: Sequence[dict[str, Any]], bridge: str, address: IPv4Interface) -> bool:
    """Whether the bridge has this address with this prefix: the kernel then has a local and a link route."""
    found = {_target(route) for route in routes if route.get("dev") == bridge}
    return {address.network, IPv4Network(address.ip)} <= found


async def remove_address(bridge: str, address: IPv4Interface | IPv6Interface) -> None:
    """The bridge is not the gateway any more; absent is success."""
    if not exists(bridge):
        return
    shown = json.loads(await process.run(["ip", "-json", "address", "show", "dev", bridge]) or "[]")
    if any(f"{each['local']}/{each['prefixlen']}" == str(address) for link in shown for each in link["addr_info"]):
        await run_ip([f"address delete {address} dev {bridge}"], bridge)


async def ensure_address6(bridge: str, address: IPv6Interface) -> None:
    """The gateway's IPv6 address on the bridge, at once: nobody else can have it, so it is not probed for."""
    await run_ip([f"address replace {address} dev {bridge} nodad"], bridge)


async def plug(tap: str, bridge: str, *, owner: int, hairpin: bool) -> None:
    """The tap, ours, on this bridge, up. `owner` is the user id that may open it: QEMU's.

    With `hairpin` a frame may leave by the port it came from, as from a guest to its own floating IP.
    """
    if exists(tap) and not _is_tap(tap):
        raise NetworkFailed(f"{tap}: there is a device of this name that is no tap", hint=f"see `ip link show {tap}`")
    lines = [] if exists(tap) else [f"tuntap add dev {tap} mode tap user {owner}"]
    lines += [f"link set dev {tap} alias {MARK} master {bridge} up"]
    lines += [f"link set dev {tap} type bridge_slave hairpin {'on' if hairpin else 'off'}"]
    await run_ip(lines, tap)


async def remove(device: str) -> None:
    """The device is gone; absent is success."""
    if not exists(device):
        return
    try:
        await run_ip([f"link delete dev {device}"], device)
    except NetworkFailed:
        if exists(device):
            raise


def check_ours(device: str) -> None:
    """Raises NetworkFailed when there is a device of this name that we did not make; it may lead anywhere."""
    if exists(device) and _read(device, "ifalias") != MARK:
        raise NetworkFailed(
            f"{device}: there is a device of this name that is not the launcher's",
            hint="set other [network] segments; see `ip link`",
        )


async def remove_ours(device: str) -> None:
    """The device is gone if we made it."""
    if _read(device, "ifalias") == MARK:
        await remove(device)


def answer_at_once(device: str) -> None:
    """For addresses that the device answers for without having them: by itself the kernel waits up to 0.8 s."""
    with contextlib.suppress(OSError):
        (_SYSCTLS / "ipv4" / "neigh" / device / "proxy_delay").write_text("0")


def mtu_of(device: str) -> int:
    return int(_read(device, "mtu"))


def list_taps() -> list[Tap]:
    """What the names of our taps say."""
    found = (match for device in _DEVICES.iterdir() if (match := _TAP.fullmatch(device.name)))
    return sorted(Tap(int(match[1], 16), int(match[2] or 0)) for match in found if _read(match[0], "ifalias") == MARK)


def list_nics(tap: str) -> list[int]:
    """Which NICs of the instance with this first tap have one, whoever made it."""
    found = (match for device in _DEVICES.iterdir() if (match := _TAP.fullmatch(device.name)))
    return sorted(int(match[2] or 0) for match in found if f"tap{match[1]}" == tap)


def _ensure_filtering() -> None:
    """Without this setting packets between two ports of a bridge never reach iptables, and no filter holds."""
    for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
        setting = _SYSCTLS / "bridge" / name
        try:
            if setting.read_text().strip() != "1":
                setting.write_text("1")
        except OSError as error:
            raise NetworkFailed(
                f"{setting} cannot be set to 1 ({error.strerror}); security groups would not hold between guests",
                hint="load the kernel module: `modprobe br_netfilter`",
            ) from error


def _find_bridge(name: str) -> Bridge | None:
    if not exists(name):
        return None
    if not (_DEVICES / name / "bridge").is_dir():
        raise NetworkFailed(f"{name}: there is a device of this name that is no bridge", hint="set [network] bridge")
    return Bridge(
        name=name,
        up=bool(int(_read(name, "flags"), 16) & _IFF_UP),
        stp=_read(name, "bridge/stp_state") != "0",
        forward_delay=_read(name, "bridge/forward_delay") != "0",
        mac=_read(name, "address"),
        mac_pinned=_read(name, "addr_assign_type") == _ADDRESS_WAS_SET,
    )


def have(prefix: str) -> bool:
    """Whether there is a device whose name begins so."""
    return any(device.name.startswith(prefix) for device in _DEVICES.iterdir())


def exists(device: str) -> bool:
    return (_DEVICES / device).exists()


def _is_tap(device: str) -> bool:
    return (_DEVICES / device / "tun_flags").exists()


def _read(device: str, attribute: str) -> str:
    """A device's attribute; nothing if the device has gone meanwhile."""
    try:
        return (_DEVICES / device / attribute).read_text().strip()
    except OSError:
        return ""


def _target(route: dict[str, Any]) -> IPv4Network:
    target = str(route["dst"])
    return IPv4Network("0.0.0.0/0" if target == "default" else target)


async def run_ip(lines: Sequence[str], device: str) -> None:
    """Several commands of ip(8) as one program; the first that fails ends it."""
    if not lines:
        return
    try:
        await process.run(["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")
    except ProgramFailed as error:
        raise NetworkFailed(f"{device}: {'; '.join(lines)}: {error}", hint=_hint(str(error))) from error


def _hint(said: str) -> str:
    if "not permitted" in said or "denied" in said:
        where = "as root or in the sandbox (`launcher serve --sandbox`)"
        return f"run the server {where}; /dev/net/tun must be open to user {os.geteuid()}"
    return "see `ip link` and `ip address`"
