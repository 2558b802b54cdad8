"""Address translation as text: golden files, and that a difference leads where the whole would."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.drivers.nat import addresses, rules
from launcher.drivers.nat.addresses import Found
from launcher.floating import FloatingPool, Translation

GOLDEN = Path(__file__).parent.parent / "golden"
FIRST, SECOND, THIRD = (IPv4Address(f"203.0.113.{number}") for number in (1, 2, 3))
BLUE, RED = IPv4Network("10.0.0.0/24"), IPv4Network("10.1.0.0/29")
SITE = Translation(
    networks={"br100": BLUE, "br101": RED}, floating={SECOND: IPv4Address("10.1.0.2"), FIRST: IPv4Address("10.0.0.3")}
)
POOL = FloatingPool(name="public", cidr=IPv4Network("203.0.113.0/29"), interface="eth0")


def without(*addresses: IPv4Address) -> Translation:
    kept = {address: fixed for address, fixed in SITE.floating.items() if address not in addresses}
    return SITE.model_copy(update={"floating": kept})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nat", rules.whole(SITE)),
        ("nat_floating_only", rules.whole(SITE.model_copy(update={"masquerade": False}))),
        ("nat_difference", rules.difference(without(FIRST), without(SECOND))),
    ],
)
def test_the_rules_are_those_of_the_golden_files(name: str, text: str) -> None:
    assert text == (GOLDEN / f"{name}.nft").read_text()


def test_nothing_changes_when_nothing_is_changed() -> None:
    assert rules.difference(SITE, SITE) == ""


def play(text: str) -> dict[str, set[str]]:
    """What the sets and maps hold after the lines."""
    held: dict[str, set[str]] = {rules.RANGES: set(), rules.TO_FIXED: set(), rules.TO_FLOATING: set()}
    for verb, name, elements in re.findall(r"^(add|delete) element ip nova-nat (\w+) { (.*) }$", text, re.MULTILINE):
        for element in elements.split(", "):
            (held[name].add if verb == "add" else held[name].remove)(element)
    return held


ADDRESSES = st.integers(1, 6).map(lambda number: IPv4Address(f"203.0.113.{number}"))
FIXED = st.integers(2, 9).map(lambda number: IPv4Address(f"10.0.0.{number}"))
NETWORKS = st.dictionaries(st.sampled_from(["br100", "br101", "br102"]), st.sampled_from([BLUE, RED]), max_size=3)
TRANSLATIONS = st.builds(
    Translation,
    networks=NETWORKS,
    floating=st.dictionaries(ADDRESSES, FIXED, max_size=5).map(
        lambda found: {
            address: fixed for fixed, address in {fixed: address for address, fixed in found.items()}.items()
        }
    ),
)


@given(TRANSLATIONS, TRANSLATIONS)
def test_a_difference_leads_where_the_whole_would(before: Translation, wanted: Translation) -> None:
    assert play(rules.whole(before) + rules.difference(before, wanted)) == play(rules.whole(wanted))


@given(TRANSLATIONS, TRANSLATIONS)
def test_whoever_leads_elsewhere_is_cut(before: Translation, wanted: Translation) -> None:
    cut = set(rules.stale(before.leads, wanted).get("", ()))
    assert cut == {each for each, fixed in before.floating.items() if wanted.floating.get(each) != fixed}


LISTED: list[dict[str, Any]] = [
    {"metainfo": {"version": "1.0.6"}},
    {"table": {"family": "ip", "name": "nova-nat"}},
    {
        "set": {
            "name": "ranges",
            "type": "ipv4_addr",
            "elem": [{"prefix": {"addr": "10.0.0.0", "len": 24}}, {"prefix": {"addr": "10.1.0.0", "len": 29}}],
        }
    },
    {"map": {"name": "to_fixed", "type": "ipv4_addr", "map": "ipv4_addr", "elem": [["203.0.113.1", "10.0.0.3"]]}},
    {"map": {"name": "to_floating", "type": "ipv4_addr", "map": "ipv4_addr", "elem": [["10.0.0.3", "203.0.113.1"]]}},
    {"chain": {"name": "prerouting", "type": "nat", "hook": "prerouting"}},
    *({"rule": {"chain": chain}} for chain in (*["prerouting"] * 2, "output", *["postrouting"] * 7)),
]


def test_what_nft_lists_is_compared_with_what_is_wanted() -> None:
    assert rules.read_content(LISTED) == rules.content(without(SECOND))
    assert rules.read_content(LISTED) != rules.content(SITE)
    assert rules.read_content(LISTED[:-1]) != rules.content(without(SECOND))
    assert rules.read_floating(LISTED) == {FIRST: IPv4Address("10.0.0.3")}
    assert rules.read_floating([]) == {}


def test_a_host_that_drops_is_told_what_guests_need() -> None:
    lines = rules.accept_forwarding(["-P FORWARD DROP", "-A FORWARD -j DOCKER-USER"], ["br101", "br100"])
    assert "\n".join((*lines, "")) == (GOLDEN / "nat_forward.rules").read_text()
    found = [*(line for line in lines if line.startswith("-A")), "-P FORWARD DROP", "-N nova-nat-forward"]
    assert rules.accept_forwarding(found, ["br100", "br101"]) == []
    assert rules.accept_forwarding(found, ["br100"]) != []
    assert rules.accept_forwarding(found, ()) == [":nova-nat-forward - [0:0]"]


def test_a_host_that_accepts_is_left_alone() -> None:
    """And a chain whose name only begins like ours is not ours."""
    found = ["-P FORWARD ACCEPT", "-A FORWARD -j nova-nat-forward-2"]
    assert rules.accept_forwarding(found, ["br100"]) == []


def test_ours_are_the_single_addresses_of_a_pool_on_its_device() -> None:
    found = [
        Found(FIRST, 32, "eth0"),
        Found(SECOND, 29, "eth0"),
        Found(THIRD, 32, "eth1"),
        Found(IPv4Address("203.0.113.9"), 32, "eth0"),
    ]
    assert addresses.ours(found, [POOL]) == {FIRST: "eth0"}


@pytest.mark.parametrize(
    ("cidr", "first", "last"),
    [
        ("203.0.113.0/28", "203.0.113.1", "203.0.113.14"),
        ("203.0.113.0/30", "203.0.113.1", "203.0.113.2"),
        ("203.0.113.4/31", "203.0.113.4", "203.0.113.5"),
        ("203.0.113.9/32", "203.0.113.9", "203.0.113.9"),
    ],
)
def test_a_pool_gives_out_what_a_host_may_have(cidr: str, first: str, last: str) -> None:
    pool = POOL.model_copy(update={"cidr": IPv4Network(cidr)})
    assert (str(pool.first), str(pool.last)) == (first, last)
