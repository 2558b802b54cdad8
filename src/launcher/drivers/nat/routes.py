"""Floating IPs that lead to networks apart: a route over the link for each, and the pool's device answers for it.

What leads over such a link is ours, and so is what answers for an address of a pool on the pool's device.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from launcher.drivers import process
from launcher.drivers.nat import addresses
from launcher.drivers.nat.announcing import announce
from launcher.drivers.network import links
from launcher.errors import NetworkFailed
from launcher.floating import Beyond, FloatingPool
from launcher.networks import LINK_DEVICE


@dataclass(frozen=True)
class Ways:
    """The link that each address leads over, and the devices that answer for each."""

    links: Mapping[IPv4Address, str]
    answering: Mapping[IPv4Address, str]

    @property
    def whole(self) -> dict[IPv4Address, str]:
        return {address: device for address, device in self.links.items() if address in self.answering}


async def look(pools: Sequence[FloatingPool]) -> Ways:
    """Nothing is asked for where there cannot be anything."""
    if not pools or not links.have(LINK_DEVICE):
        return Ways({}, {})
    routes = json.loads(await process.run(["ip", "-json", "-4", "route", "show"]) or "[]")
    proxies = json.loads(await process.run(["ip", "-json", "-4", "neigh", "show", "proxy"]) or "[]")
    return read(routes, proxies, pools)


def read(
    routes: Sequence[Mapping[str, Any]], proxies: Sequence[Mapping[str, Any]], pools: Sequence[FloatingPool]
) -> Ways:
    led = {each["dst"]: each["dev"] for each in routes if each.get("dev", "").startswith(LINK_DEVICE)}
    answering = {IPv4Address(each["dst"]): each["dev"] for each in proxies}
    return Ways(
        links={IPv4Address(target): device for target, device in led.items() if "/" not in target},
        answering={
            address: device
            for address, device in answering.items()
            if any(device == pool.interface and address in pool.cidr for pool in pools)
        },
    )


async def remove(present: Ways, wanted: Mapping[IPv4Address, Beyond]) -> None:
    lines = [
        f"route delete {address}/32 dev {device}"
        for address, device in present.links.items()
        if address not in wanted or wanted[address].device != device
    ]
    lines += [
        f"neigh delete proxy {address} dev {device}"
        for address, device in present.answering.items()
        if address not in wanted
    ]
    await links.run_ip(lines, "floating IPs")


async def add(
    present: Ways,
    found: Sequence[addresses.Found],
    wanted: Mapping[IPv4Address, Beyond],
    pools: Sequence[FloatingPool],
) -> dict[IPv4Address, NetworkFailed]:
    """Every one that can be; answers those that cannot."""
    refused = {}
    for address, beyond in sorted(wanted.items()):
        if present.whole.get(address) == beyond.device:
            continue
        try:
            pool = addresses.check(found, address, pools)
            lines = [
                f"route replace {address}/32 via {beyond.link[1]} dev {beyond.device}",
                f"neigh replace proxy {address} dev {pool.interface}",
            ]
            await links.run_ip(lines, beyond.device)
            links.answer_at_once(pool.interface)
            announce(pool.interface, [address])
        except NetworkFailed as error:
            refused[address] = error
    return refused
