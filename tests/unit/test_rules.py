"""The packet filter's rules as text: golden files, and the 2011 mistakes that must not come back."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.drivers.firewall import chains, rules
from launcher.drivers.firewall.chains import Chains
from launcher.explaining import Settings
from launcher.models import LaunchOrder
from launcher.policy import Direction, Policy, Protocol, Rule, SecurityGroup
from launcher.ports import ports_of
from tests.orders import NETWORK, make_lease, make_order

GOLDEN = Path(__file__).parent.parent / "golden"
ANYWHERE = IPv4Network("0.0.0.0/0")
THE_ARTICLES = NETWORK.model_copy(update={"cidr": IPv4Network("10.0.0.0/27")})
SSH_AND_PING = SecurityGroup(
    id=1,
    name="default",
    rules=(
        Rule(protocol=Protocol.TCP, from_port=22, to_port=22, cidr=ANYWHERE),
        Rule(protocol=Protocol.ICMP, cidr=ANYWHERE),
    ),
)
WEB = SecurityGroup(
    id=12,
    name="web",
    rules=(
        Rule(protocol=Protocol.TCP, from_port=8000, to_port=8099, cidr=IPv4Network("192.0.2.0/24")),
        Rule(protocol=Protocol.UDP, from_port=0, to_port=0, cidr=ANYWHERE),
        Rule(protocol=Protocol.ICMP, from_port=0, to_port=0, cidr=ANYWHERE),
        Rule(protocol=Protocol.ICMP, from_port=8, cidr=ANYWHERE),
        Rule(protocol=Protocol.ANY, cidr=IPv4Network("198.51.100.7/32")),
    ),
)


FENCED = SecurityGroup(
    id=7,
    name="fenced",
    rules=(
        Rule(protocol=Protocol.TCP, from_port=22, group_id=9),
        Rule(protocol=Protocol.UDP, from_port=53, cidr=ANYWHERE, direction=Direction.EGRESS),
        Rule(protocol=Protocol.ANY, group_id=9, direction=Direction.EGRESS),
        Rule(protocol=Protocol.ICMP, from_port=128, cidr=IPv6Network("2001:db8::/32")),
    ),
)
MEMBERS = {9: (IPv4Address("10.0.0.9"), IPv4Address("10.0.0.8"), IPv6Address("fd00::9"))}
WITH_IPV6 = NETWORK.model_copy(update={"cidr6": IPv6Network("fd00::/64")})


def an_order(number: int = 1) -> LaunchOrder:
    return make_order(number)


def apply(found: Chains, number: int, *groups: SecurityGroup, last: int | None = None, open_: bool = True) -> list[str]:
    order, policy = an_order(number), Policy(groups=groups, members=MEMBERS)
    ports = ports_of(order, [make_lease(order, f"10.0.0.{last or order.number + 2}", THE_ARTICLES)])
    settings = Settings(allow_host_traffic=False, allow_project_net_traffic=open_)
    return rules.apply_instance(found, order, ports, policy, settings)


def changed(found: Chains, lines: list[str]) -> Chains:
    return chains.play(found, chains.transaction("filter", lines))


def applied(found: Chains, number: int, *groups: SecurityGroup, last: int | None = None) -> Chains:
    return changed(found, apply(found, number, *groups, last=last))


def apply6(found: Chains, *groups: SecurityGroup) -> list[str]:
    order, policy = an_order(3), Policy(groups=groups, members=MEMBERS)
    ports = ports_of(order, [make_lease(order, "10.0.0.5", WITH_IPV6)])
    return rules.apply_instance(found, order, ports, policy, SERVED, six=True)


SERVED = Settings(metadata_port=8775)
FRESH: Chains = {"INPUT": [], "FORWARD": ["-i docker0 -j ACCEPT"], "OUTPUT": []}
BASE = changed(FRESH, rules.base(FRESH))
TWO = applied(applied(BASE, 1, SSH_AND_PING), 10, SSH_AND_PING, WEB)


def transactions() -> dict[str, str]:
    only_one = applied(BASE, 1, SSH_AND_PING)
    return {
        "base": chains.transaction("filter", rules.base(FRESH)),
        "apply": chains.transaction("filter", apply(BASE, 1, SSH_AND_PING)),
        "apply_shared_group": chains.transaction("filter", apply(only_one, 10, SSH_AND_PING, WEB, open_=False)),
        "apply_again": chains.transaction("filter", apply(TWO, 1, SSH_AND_PING)),
        "remove": chains.transaction("filter", rules.remove_instance(TWO, an_order(10))),
        "metadata": chains.transaction("nat", rules.redirect_metadata({"PREROUTING": []}, "br100", 8775)),
        "apply_limited": chains.transaction("filter", apply(BASE, 2, FENCED)),
        "apply_ipv6": chains.transaction("filter", apply6({"INPUT": [], "FORWARD": [], "OUTPUT": []}, FENCED)),
        "services": chains.transaction("filter", rules.open_services(BASE, WITH_IPV6, SERVED)),
        "services_ipv6": chains.transaction("filter", rules.open_services(BASE, WITH_IPV6, SERVED, six=True)),
    }


@pytest.mark.parametrize("name", transactions())
def test_transactions_are_as_agreed(name: str) -> None:
    assert transactions()[name] == (GOLDEN / f"{name}.rules").read_text()


def test_the_articles_example() -> None:
    found = applied(BASE, 1, SSH_AND_PING)
    assert {chain: found[chain] for chain in ("nova-local", "nova-inst-1", "nova-sg-1", "nova-fallback")} == {
        "nova-local": ["-m physdev --physdev-is-in -j nova-out", "-d 10.0.0.3/32 -o br100 -j nova-inst-1"],
        "nova-inst-1": [
            "-m conntrack --ctstate INVALID -j DROP",
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-j nova-sg-1",
            "-s 10.0.0.1/32 -p udp -m udp --sport 67 --dport 68 -j ACCEPT",
            "-s 10.0.0.0/27 -j ACCEPT",
            "-j nova-fallback",
        ],
        "nova-sg-1": ["-p tcp -m tcp --dport 22 -j ACCEPT", "-p icmp -j ACCEPT"],
        "nova-fallback": ["-j DROP"],
    }


def test_services_are_opened_once_and_beside_another_networks() -> None:
    other = NETWORK.model_copy(update={"name": "b", "bridge": "br-b", "gateway": IPv4Address("10.9.0.1")})
    one = changed(BASE, rules.open_services(BASE, NETWORK, SERVED))
    both = changed(one, rules.open_services(one, other, SERVED))
    for network in (NETWORK, other):
        assert rules.open_services(both, network, SERVED) == []
    assert len(both["nova-host"]) == len(BASE["nova-host"]) + 8
    closed = changed(both, rules.open_services(both, other, Settings()))
    assert closed["nova-host"] == [
        rule for rule in both["nova-host"] if "-d 10.9.0.1/32" not in rule or "8775" not in rule
    ]
    assert rules.base(closed) == []


def test_the_base_is_complete_once_it_is_there() -> None:
    assert rules.base(BASE) == []
    assert BASE["FORWARD"] == ["-j nova-local", "-i docker0 -j ACCEPT"]


def test_a_jump_that_somebody_pushed_down_comes_back_to_the_top() -> None:
    pushed = BASE | {"FORWARD": ["-j DOCKER", "-j nova-local"]}
    assert changed(pushed, rules.base(pushed))["FORWARD"] == ["-j nova-local", "-j DOCKER"]


def test_removing_instance_1_leaves_10_to_19() -> None:
    found = applied(BASE, 1, SSH_AND_PING)
    for number in range(10, 20):
        found = applied(found, number, SSH_AND_PING)
    left = changed(found, rules.remove_instance(found, an_order(1)))
    assert rules.instances(left) == dict.fromkeys(range(10, 20), True)
    assert left["nova-local"] == [rule for rule in found["nova-local"] if not rule.endswith("nova-inst-1")]
    for chain, gone in (("nova-out", 2), ("nova-input", 1)):
        assert len(left[chain]) == len(found[chain]) - gone


def test_a_group_goes_with_its_last_instance() -> None:
    without_ten = changed(TWO, rules.remove_instance(TWO, an_order(10)))
    assert "nova-sg-12" not in without_ten
    assert "nova-sg-1" in without_ten
    assert changed(without_ten, rules.remove_instance(without_ten, an_order(1))) == BASE


def test_a_group_left_by_its_instance_goes_too() -> None:
    assert "nova-sg-12" not in applied(TWO, 10, SSH_AND_PING)


def test_removing_what_is_not_there_changes_nothing() -> None:
    assert rules.remove_instance(BASE, an_order(1)) == []


def test_applying_twice_is_applying_once() -> None:
    assert applied(TWO, 1, SSH_AND_PING) == TWO


def test_an_address_leads_to_its_newest_instance_only() -> None:
    found = applied(TWO, 2, SSH_AND_PING, last=3)
    assert [rule for rule in found["nova-local"] if "10.0.0.3/32" in rule] == ["-d 10.0.0.3/32 -o br100 -j nova-inst-2"]


def test_a_new_rule_of_a_shared_group_reaches_its_chain() -> None:
    opened = SecurityGroup(id=1, name="default", rules=(Rule(protocol=Protocol.ANY, cidr=ANYWHERE),))
    assert applied(TWO, 1, opened)["nova-sg-1"] == ["-j ACCEPT"]


def test_foreign_rules_stay() -> None:
    foreign = TWO | {"INPUT": ["-p tcp --dport 22 -j ACCEPT", *TWO["INPUT"]], "ufw-user": ["-j RETURN"]}
    cleared = changed(foreign, rules.remove_instance(foreign, an_order(1)))
    assert cleared["ufw-user"] == ["-j RETURN"]
    assert cleared["INPUT"] == foreign["INPUT"]


def test_a_transaction_does_not_grow_with_the_instances() -> None:
    found = BASE
    for number in range(1, 25):
        found = applied(found, number, SSH_AND_PING)
    few = apply(applied(BASE, 1, SSH_AND_PING), 27, SSH_AND_PING)
    many = apply(found, 27, SSH_AND_PING)
    assert few == many


def test_iptables_save_is_understood() -> None:
    saved = "# by iptables-save\n*filter\n:FORWARD ACCEPT [1:60]\n:nova-spoof - [0:0]\n"
    saved += "-A FORWARD -j nova-local\n-A nova-spoof -m physdev  --physdev-in tap00000001 -j DROP\nCOMMIT\n"
    assert chains.play({}, saved) == {
        "FORWARD": ["-j nova-local"],
        "nova-spoof": ["-m physdev --physdev-in tap00000001 -j DROP"],
    }


def test_another_metadata_port_replaces_the_old_one() -> None:
    before = chains.play({"PREROUTING": []}, "\n".join(rules.redirect_metadata({"PREROUTING": []}, "br100", 1)))
    assert rules.redirect_metadata(before, "br100", 1) == []
    after = chains.play(before, "\n".join(rules.redirect_metadata(before, "br100", 8775)))
    assert [rule.split()[-1] for rule in after["nova-metadata"]] == ["8775"]
    assert chains.play(after, "\n".join(rules.redirect_metadata(after, "br100", None)))["nova-metadata"] == []


def test_a_join_is_one_line() -> None:
    found = applied(BASE, 2, FENCED)
    joined = Policy(groups=(FENCED,), members={9: (*MEMBERS[9], IPv4Address("10.0.0.7"))})
    lines = rules.update_groups(found, joined)
    assert lines == [
        "-A nova-from-9 -s 10.0.0.7/32 -j ACCEPT",
        "-A nova-to-9 -d 10.0.0.7/32 -j MARK --set-xmark 0x8000000/0x8000000",
    ]
    after = changed(found, lines)
    assert rules.update_groups(after, joined) == []
    left = rules.update_groups(after, Policy(groups=(FENCED,), members={9: ()}))
    assert sorted(left) == sorted(
        [f"-D {chain} {rule}" for chain in ("nova-from-9", "nova-to-9") for rule in after[chain]]
    )


def test_an_instance_that_is_limited_no_more_has_one_chain_less() -> None:
    found = applied(BASE, 2, FENCED)
    assert "nova-out-2" in found
    after = applied(found, 2, FENCED, SSH_AND_PING)
    assert "nova-out-2" not in after
    assert "nova-eg-7" not in after
    assert changed(after, rules.remove_instance(after, an_order(2))) == BASE


def test_the_same_address_on_another_bridge_is_another_instances() -> None:
    order = an_order(5)
    elsewhere = make_lease(order, "10.0.0.3", NETWORK.model_copy(update={"bridge": "br101"}))
    lines = rules.apply_instance(TWO, order, ports_of(order, [elsewhere]), Policy(), SERVED)
    assert [rule for rule in changed(TWO, lines)["nova-local"] if "10.0.0.3/32" in rule] == [
        "-d 10.0.0.3/32 -o br100 -j nova-inst-1",
        "-d 10.0.0.3/32 -o br101 -j nova-inst-5",
    ]


MEANINGS: dict[str, tuple[dict[str, Any], str]] = {
    "one port": ({"protocol": "tcp", "from_port": 22, "to_port": 22}, "-p tcp -m tcp --dport 22 "),
    "a range": ({"protocol": "udp", "from_port": 1, "to_port": 65535}, "-p udp -m udp --dport 1:65535 "),
    "port 0": ({"protocol": "tcp", "from_port": 0, "to_port": 0}, "-p tcp -m tcp --dport 0 "),
    "all ports": ({"protocol": "tcp"}, "-p tcp "),
    "only the lower bound": ({"protocol": "tcp", "from_port": 80}, "-p tcp -m tcp --dport 80 "),
    "any icmp": ({"protocol": "icmp"}, "-p icmp "),
    "icmp type 0": ({"protocol": "icmp", "from_port": 0}, "-p icmp -m icmp --icmp-type 0 "),
    "icmp type 8 code 0": ({"protocol": "icmp", "from_port": 8, "to_port": 0}, "-p icmp -m icmp --icmp-type 8/0 "),
    "any protocol": ({"protocol": "any"}, ""),
}


@pytest.mark.parametrize(("fields", "match"), MEANINGS.values(), ids=MEANINGS)
def test_what_a_rule_lets_in(fields: dict[str, Any], match: str) -> None:
    group = SecurityGroup(id=1, name="g", rules=(Rule(cidr=ANYWHERE, **fields),))
    assert rules.group_rules(group) == [f"{match}-j ACCEPT"]


@pytest.mark.parametrize(
    "fields",
    [
        {"protocol": "icmp", "from_port": 1, "to_port": 65535},
        {"protocol": "icmp", "from_port": 256},
        {"protocol": "icmp", "from_port": 255},
        {"protocol": "icmp", "to_port": 0},
        {"protocol": "tcp", "from_port": 23, "to_port": 22},
    ],
)
def test_a_rule_that_means_nothing_is_left_out(fields: dict[str, Any]) -> None:
    """One refused the whole transaction. To iptables, `--icmp-type 255` is any type."""
    nonsense = Rule(cidr=ANYWHERE, **fields)
    assert nonsense.nonsense
    group = SecurityGroup(id=1, name="g", rules=(nonsense, *SSH_AND_PING.rules))
    assert rules.group_rules(group) == rules.group_rules(SSH_AND_PING)


def test_doubled_rules_and_groups_count_once() -> None:
    twice = SecurityGroup(id=1, name="default", rules=SSH_AND_PING.rules * 2)
    assert applied(BASE, 1, twice, twice) == applied(BASE, 1, SSH_AND_PING)


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([1, 2, 10, 11]), st.sets(st.sampled_from([0, 1]))), max_size=12)
)
def test_whatever_the_order_of_changes_nothing_is_left(steps: list[tuple[bool, int, set[int]]]) -> None:
    found, present = BASE, set()
    for apply, number, chosen in steps:
        if apply:
            found = applied(found, number, *((SSH_AND_PING, WEB)[each] for each in chosen))
            present.add(number)
        else:
            found = changed(found, rules.remove_instance(found, an_order(number)))
            present.discard(number)
        assert rules.instances(found) == dict.fromkeys(sorted(present), True)
    for number in present:
        found = changed(found, rules.remove_instance(found, an_order(number)))
    assert found == BASE
