"""Address translation as text for nft and iptables-restore: pure, from what is wanted.

    prerouting   to 203.0.113.1 ─► to 10.0.0.3          a floating IP, from anywhere; the source stays
    output       the same, from the host itself
    postrouting  guest ─► floating IP of a guest        from the asker's floating IP, else from the gateway: the
                                                        answer has to come back this way, also from a neighbour
                 the host ─► floating IP                from the gateway
                 anybody ─► guest                       as it is
                 10.0.0.3 ─► elsewhere                  from 203.0.113.1
                 10.0.0.0/24 ─► elsewhere               from the host's address there (masqueraded)

What only crosses the bridge of a network apart is in a zone, and left alone: its gateway translates it, by the same
table in a namespace.

The table is launcher's alone, so nobody else's rule is ever read or written, and a packet is looked up in maps,
however many addresses there are. Filters look at a packet between the two translations: at the fixed address and the
client's own one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from launcher.floating import Translation

TABLE = "nova-nat"
FORWARD = "nova-nat-forward"
RANGES, TO_FIXED, TO_FLOATING = "ranges", "to_fixed", "to_floating"

_NOT_ROUTED = "{ 224.0.0.0/4, 255.255.255.255 }"
_LEAVES = f"ip saddr @{RANGES} ip daddr != {_NOT_ROUTED}"
_COMES_BACK = f"ip daddr @{RANGES} ct status dnat"
_BASE = f"""\
add table ip {TABLE}
delete table ip {TABLE}
table ip {TABLE} {{
	set {RANGES} {{
		type ipv4_addr
		flags interval
	}}
	map {TO_FIXED} {{
		type ipv4_addr : ipv4_addr
	}}
	map {TO_FLOATING} {{
		type ipv4_addr : ipv4_addr
	}}
	chain prerouting {{
		type nat hook prerouting priority dstnat; policy accept;
		ct zone != 0 accept
		dnat to ip daddr map @{TO_FIXED}
	}}
	chain output {{
		type nat hook output priority -100; policy accept;
		dnat to ip daddr map @{TO_FIXED}
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		ct zone != 0 accept
		ip saddr @{RANGES} {_COMES_BACK} snat to ip saddr map @{TO_FLOATING}
		ip saddr @{RANGES} {_COMES_BACK} masquerade
		fib saddr type local {_COMES_BACK} masquerade
		ip daddr @{RANGES} accept
		{_LEAVES} snat to ip saddr map @{TO_FLOATING}
	}}
}}
"""


def whole(wanted: Translation) -> str:
    """The table anew, in one transaction: a packet meets the old one or the new one."""
    masquerade = f"add rule ip {TABLE} postrouting {_LEAVES} masquerade\n" if wanted.masquerade else ""
    return _BASE + masquerade + difference(Translation(masquerade=wanted.masquerade), wanted)


def nothing() -> str:
    """The table is gone; absent is success."""
    return f"add table ip {TABLE}\ndelete table ip {TABLE}\n"


def difference(before: Translation, wanted: Translation) -> str:
    """Only what changes between two that masquerade alike; first what goes."""
    old, new = _elements(before), _elements(wanted)
    return "".join(
        f"{verb} element ip {TABLE} {name} {{ {', '.join(lines)} }}\n"
        for verb, some, others in (("delete", old, new), ("add", new, old))
        for name in some
        if (lines := [line for line in some[name] if line not in set(others[name])])
    )


def stale(before: Mapping[IPv4Address, tuple[str, IPv4Address]], wanted: Translation) -> dict[str, list[IPv4Address]]:
    """The floating IPs that lead elsewhere now, or nowhere, by where they have led until now."""
    leads, found = wanted.leads, dict[str, list[IPv4Address]]()
    for floating, (bridge, fixed) in before.items():
        if leads.get(floating) != (bridge, fixed):
            found.setdefault(bridge, []).append(floating)
    return found


def forwarding(bridges: Iterable[str], gateways: Iterable[str] = ()) -> list[str]:
    """In iptables' table filter, at the end of FORWARD, where the host's policy would drop what nobody accepted.

    Whoever drops a packet by a rule has done so before; what security groups say of guests, too. The `gateways` of
    networks apart filter themselves.
    """
    per_bridge = (
        "-i {0} -o {0} -j ACCEPT",
        "-o {0} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-o {0} -m conntrack --ctstate DNAT -j ACCEPT",
        "-o {0} -j RETURN",
    )
    known, links = sorted(set(bridges) - set(gateways)), sorted(gateways)
    rules = [rule.format(bridge) for rule in per_bridge for bridge in known]
    rules += [f"-o {link} -j ACCEPT" for link in links]
    return rules + [f"-i {each} -j ACCEPT" for each in (*known, *links)]


def accept_forwarding(found: Sequence[str], bridges: Collection[str], gateways: Collection[str] = ()) -> list[str]:
    """Lines for iptables-restore, none where there is nothing to do.

    `found` is what `iptables -S` says of FORWARD, and of our chain if FORWARD leads to it.
    """
    known = any(FORWARD in line.split() for line in found)
    if not known and not ("-P FORWARD DROP" in found and bridges):
        return []
    wanted = [f"-A {FORWARD} {rule}" for rule in forwarding(bridges, gateways)]
    jump = f"-A FORWARD -j {FORWARD}"
    if [line for line in found if line.startswith(f"-A {FORWARD} ")] == wanted and jump in found:
        return []
    return [f":{FORWARD} - [0:0]", *wanted, *([] if jump in found else [jump])]


@dataclass(frozen=True)
class Content:
    """What of a table can be compared whatever version of nft has printed it."""

    ranges: frozenset[str]
    to_fixed: Mapping[str, str]
    to_floating: Mapping[str, str]
    rules: Mapping[str, int]


def content(wanted: Translation) -> Content:
    return Content(
        ranges=frozenset(map(str, wanted.networks.values())),
        to_fixed={str(address): str(fixed) for address, fixed in wanted.floating.items()},
        to_floating={str(fixed): str(address) for address, fixed in wanted.floating.items()},
        rules={"prerouting": 2, "output": 1, "postrouting": 6 + wanted.masquerade},
    )


def read_content(listed: Sequence[Mapping[str, Any]]) -> Content:
    """From what `nft -j list table` says; an absent table has nothing."""
    chains = Counter(each["rule"]["chain"] for each in listed if "rule" in each)
    sets = {found["name"]: found.get("elem", []) for each in listed for found in each.values() if "type" in found}
    return Content(
        ranges=frozenset(map(_range, sets.get(RANGES, []))),
        to_fixed=dict(sets.get(TO_FIXED, [])),
        to_floating=dict(sets.get(TO_FLOATING, [])),
        rules=chains,
    )


def read_floating(listed: Sequence[Mapping[str, Any]]) -> dict[IPv4Address, IPv4Address]:
    """Where the table lets floating IPs lead."""
    return {IPv4Address(address): IPv4Address(fixed) for address, fixed in read_content(listed).to_fixed.items()}


def _range(element: Any) -> str:
    """A prefix as nft writes it; one of 32 bits is a plain address."""
    if isinstance(element, str):
        return f"{element}/32"
    prefix = element.get("prefix", {})
    return f"{prefix.get('addr')}/{prefix.get('len')}"


def _elements(translation: Translation) -> dict[str, list[str]]:
    floating = sorted(translation.floating.items())
    return {
        RANGES: [str(each) for each in sorted(set(translation.networks.values()), key=_order)],
        TO_FIXED: [f"{address} : {fixed}" for address, fixed in floating],
        TO_FLOATING: [f"{fixed} : {address}" for address, fixed in floating],
    }


def _order(network: IPv4Network) -> tuple[int, int]:
    return int(network.network_address), network.prefixlen
