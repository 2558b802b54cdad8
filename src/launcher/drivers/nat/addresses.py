"""The addresses of pools on the devices that answer for them.

One of 32 bits, of a pool's range, on the pool's device is ours: a pool is launcher's alone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from launcher.drivers import process
from launcher.drivers.nat.announcing import announce
from launcher.drivers.network import links
from launcher.errors import NetworkFailed
from launcher.floating import FloatingPool


@dataclass(frozen=True)
class Found:
    """An address that some device of this host has."""

    address: IPv4Address
    prefix: int
    device: str


async def list_all() -> list[Found]:
    return read(json.loads(await process.run(["ip", "-json", "-4", "address", "show"]) or "[]"))


def read(devices: Sequence[dict[str, Any]]) -> list[Found]:
    return [
        Found(IPv4Address(each["local"]), int(each["prefixlen"]), device["ifname"])
        for device in devices
        for each in device.get("addr_info", ())
    ]


def ours(found: Iterable[Found], pools: Sequence[FloatingPool]) -> dict[IPv4Address, str]:
    """The floating IPs among them, and their devices."""
    return {
        each.address: each.device
        for each in found
        if each.prefix == 32 and any(each.device == pool.interface and each.address in pool.cidr for pool in pools)
    }


async def remove(present: dict[IPv4Address, str], wanted: Collection[IPv4Address]) -> None:
    for address, device in present.items():
        if address not in wanted:
            await links.run_ip([f"address delete {address}/32 dev {device}"], device)


async def add(
    found: Sequence[Found], wanted: Collection[IPv4Address], pools: Sequence[FloatingPool]
) -> dict[IPv4Address, NetworkFailed]:
    """Every one that can be; answers those that cannot."""
    refused = {}
    for address in sorted(set(wanted) - ours(found, pools).keys()):
        try:
            await _add(found, address, pools)
        except NetworkFailed as error:
            refused[address] = error
    return refused


async def _add(found: Sequence[Found], address: IPv4Address, pools: Sequence[FloatingPool]) -> None:
    pool = check(found, address, pools)
    await links.run_ip([f"address add {address}/32 dev {pool.interface}"], pool.interface)
    announce(pool.interface, [address])


def check(found: Sequence[Found], address: IPv4Address, pools: Sequence[FloatingPool]) -> FloatingPool:
    """The pool whose device can answer for the address. Raises NetworkFailed."""
    pool = next((pool for pool in pools if address in pool.cidr), None)
    if pool is None:
        raise NetworkFailed(f"{address} is of no pool any more", hint="see [network] pools in config.toml")
    if own := next((each for each in found if each.address == address), None):
        raise NetworkFailed(
            f"{address} is this host's own address on {own.device}", hint=f"take it out of the pool {pool.name}"
        )
    if not links.exists(pool.interface):
        raise NetworkFailed(
            f"{address}: pool {pool.name} needs the device {pool.interface}, which is not there",
            hint="see [network] pools in config.toml, and `ip link`",
        )
    return pool
