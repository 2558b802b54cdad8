"""One suite for every packet filter: the fake, and in the sandbox the real ones."""

from __future__ import annotations

import contextlib
import itertools
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest

from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.firewall.fake import FakeFirewall
from launcher.drivers.firewall.iptables import IptablesFirewall
from launcher.drivers.firewall.nftables import NftablesFirewall
from launcher.errors import FirewallFailed
from launcher.explaining import Settings
from launcher.policy import Direction, Policy, Protocol, Rule, SecurityGroup
from tests.host.nwfilters import daemon, plugging
from tests.orders import NETWORK, make_launch, make_order

REAL: dict[str, Callable[[Settings], FirewallDriver]] = {
    "iptables": IptablesFirewall,
    "nftables": NftablesFirewall,
    "nwfilter": plugging,
}
SETTINGS = Settings(metadata_port=8775)
ANYWHERE = IPv4Network("0.0.0.0/0")
FOREIGN = "-s 192.0.2.0/24 -j ACCEPT"


def a_group(number: int, port: int) -> SecurityGroup:
    rule = Rule(protocol=Protocol.TCP, from_port=port, to_port=port, cidr=IPv4Network("0.0.0.0/0"))
    return SecurityGroup(id=number, name=f"group-{number}", rules=(rule,))


SSH, WEB = a_group(1, 22), a_group(12, 80)
NO_PORT = Rule.model_construct(protocol=Protocol.TCP, from_port=70_000, to_port=70_000, cidr=ANYWHERE)
REFUSED = SecurityGroup.model_construct(id=1, name="refused", rules=(NO_PORT,))
"""What no filter takes; the models keep it from getting this far."""


def iptables(*words: str) -> str:
    return subprocess.run(["iptables", *words], check=True, capture_output=True, text=True).stdout


def clear() -> None:
    for table in ("filter", "nat"):
        iptables("-t", table, "-F")
        iptables("-t", table, "-X")


def make(kind: str) -> FirewallDriver:
    return FakeFirewall() if kind == "fake" else REAL[kind](SETTINGS)


@pytest.fixture(params=["fake", *(pytest.param(kind, marks=pytest.mark.host) for kind in REAL)])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param != "fake":
        request.getfixturevalue("sandboxed")
    if request.param == "nwfilter":
        daemon().forget()
    return str(request.param)


@pytest.fixture
async def firewall(kind: str) -> AsyncIterator[FirewallDriver]:
    driver = make(kind)
    yield driver
    await driver.stop()


async def test_everything_may_be_repeated(firewall: FirewallDriver) -> None:
    for _ in range(2):
        await firewall.start()
        await firewall.ensure_base(NETWORK)
        await firewall.apply(*make_launch(1, SSH))
    assert list(await firewall.list_instances()) == [1]
    for _ in range(2):
        await firewall.remove(make_order(1))
    assert list(await firewall.list_instances()) == []


async def test_what_was_never_there_can_be_removed(firewall: FirewallDriver) -> None:
    await firewall.remove(make_order(5))
    await firewall.start()
    await firewall.remove(make_order(5))


async def test_removing_instance_1_leaves_10_to_19(firewall: FirewallDriver) -> None:
    await firewall.start()
    for number in (1, *range(10, 20)):
        await firewall.apply(*make_launch(number, SSH))
    await firewall.remove(make_order(1))
    assert list(await firewall.list_instances()) == list(range(10, 20))


async def test_another_object_finds_what_is_there(firewall: FirewallDriver, kind: str) -> None:
    await firewall.start()
    await firewall.apply(*make_launch(3, SSH))
    again = firewall if kind == "fake" else make(kind)
    assert await again.list_instances() == {3: True}
    await again.apply(*make_launch(5, SSH, WEB))
    await again.remove(make_order(3))
    await firewall.apply(*make_launch(4, SSH))
    assert await firewall.list_instances() == {4: True, 5: True}
    await again.stop()


async def test_a_rule_that_means_nothing_is_left_out(firewall: FirewallDriver) -> None:
    odd = [
        Rule(protocol=Protocol.ICMP, from_port=kind, to_port=code, cidr=ANYWHERE)
        for kind, code in ((1, 65535), (None, 3), (255, None))
    ]
    backwards = [Rule(protocol=Protocol.TCP, from_port=2, to_port=1, cidr=ANYWHERE)]
    await firewall.start()
    await firewall.apply(*make_launch(1, SecurityGroup(id=3, name="odd", rules=(*odd, *backwards, *SSH.rules))))
    assert await firewall.list_instances() == {1: True}


async def test_every_kind_of_rule_is_taken(firewall: FirewallDriver) -> None:
    near, six = IPv4Network("192.0.2.4/30"), IPv6Network("2001:db8::/32")
    ends: list[dict[str, Any]] = [{"cidr": ANYWHERE}, {"cidr": near}, {"cidr": six}, {"group_id": 1}, {"group_id": 99}]
    numbers = [(None, None), (0, 0), (1, 200), (22, 22), (0, 250)]
    rules = [
        Rule(direction=direction, protocol=protocol, from_port=low, to_port=high, **end)
        for direction, protocol, (low, high), end in itertools.product(Direction, Protocol, numbers, ends)
    ]
    everything = SecurityGroup(id=4, name="everything", rules=(*rules, *rules))
    order, nics, _ = make_launch(1)
    policy = Policy(groups=(everything, SSH), members={1: (IPv4Address("10.0.0.3"), IPv6Address("fd00::3"))})
    await firewall.start()
    for _ in range(2):
        await firewall.apply(order, nics, policy)
        await firewall.update(policy)
    assert await firewall.list_instances() == {1: True}


async def test_groups_that_nobody_is_in_are_ignored(firewall: FirewallDriver) -> None:
    await firewall.start()
    await firewall.update(Policy(groups=(SSH,), members={1: (IPv4Address("10.0.0.3"),)}))
    assert await firewall.list_instances() == {}


async def test_a_group_that_is_refused_holds_up_no_other(firewall: FirewallDriver) -> None:
    """All groups of a change stood or fell together."""
    ports = set(range(4000, 5010))
    await firewall.start()
    for number in range(1, 5):
        await firewall.apply(*make_launch(number, a_group(number, 4000 + number)))
    changed = [a_group(number, 5000 + number) for number in range(1, 5)]
    changed[1], changed[3] = REFUSED.model_copy(update={"id": 2}), REFUSED.model_copy(update={"id": 4})
    refuse_in_the_fake(firewall)
    with pytest.raises(FirewallFailed, match="refused"):
        await firewall.update(Policy(groups=tuple(changed)))
    assert open_ports(firewall) & ports == {5001, 4002, 5003, 4004}
    await firewall.update(Policy(groups=(a_group(2, 5002), a_group(4, 5004))))
    assert open_ports(firewall) & ports == {5001, 5002, 5003, 5004}


def refuse_in_the_fake(firewall: FirewallDriver) -> None:
    async def fault(_point: str, subject: str) -> None:
        if REFUSED.name in subject:
            raise FirewallFailed(subject)

    if isinstance(firewall, FakeFirewall):
        firewall.fault = fault


def open_ports(firewall: FirewallDriver) -> set[int]:
    if isinstance(firewall, FakeFirewall):
        policies = [policy for _, _, policy in firewall.applied.values()]
        return {rule.from_port or 0 for policy in policies for group in policy.groups for rule in group.rules}
    listed = [["nft", "list", "ruleset"], ["iptables-save"]]
    text = "".join(subprocess.run(words, check=True, capture_output=True, text=True).stdout for words in listed)
    return set(map(int, re.findall(r"dport (\d+)", text)))


def saved() -> list[str]:
    """The table without its comments and counters."""
    lines = subprocess.run(["iptables-save", "-t", "filter"], check=True, capture_output=True, text=True).stdout
    return [line.split("[")[0] for line in lines.splitlines() if not line.startswith("#")]


@contextlib.asynccontextmanager
async def another(settings: Settings) -> AsyncIterator[IptablesFirewall]:
    """As after a restart of the launcher."""
    firewall = IptablesFirewall(settings)
    yield firewall
    await firewall.stop()


@pytest.fixture
async def real(sandboxed: None) -> AsyncIterator[IptablesFirewall]:
    iptables("-A", "FORWARD", *FOREIGN.split())
    firewall = IptablesFirewall(SETTINGS)
    await firewall.start()
    yield firewall
    await firewall.stop()


@pytest.mark.host
class TestIptables:
    async def test_it_cleans_up_after_itself(self, real: IptablesFirewall) -> None:
        before = saved()
        await real.apply(*make_launch(1, SSH, WEB))
        await real.apply(*make_launch(2, SSH))
        assert saved() != before
        await real.remove(make_order(1))
        await real.remove(make_order(2))
        assert saved() == before

    async def test_nothing_is_done_twice(self, real: IptablesFirewall) -> None:
        await real.apply(*make_launch(1, SSH, WEB))
        before = saved()
        async with another(SETTINGS) as other:
            await other.start()
        await real.apply(*make_launch(1, SSH, WEB))
        async with another(SETTINGS) as other:
            await other.apply(*make_launch(1, SSH, WEB))
        assert saved() == before

    async def test_foreign_rules_stay_below_ours(self, real: IptablesFirewall) -> None:
        await real.apply(*make_launch(1, SSH))
        await real.remove(make_order(1))
        assert iptables("-S", "FORWARD").splitlines()[1:] == ["-A FORWARD -j nova-local", f"-A FORWARD {FOREIGN}"]

    async def test_a_flushed_table_is_noticed_by_the_next_apply(self, real: IptablesFirewall) -> None:
        """The chains were filled although no packet came by them any more."""
        await real.apply(*make_launch(1, SSH))
        iptables("-F")
        await real.apply(*make_launch(2, SSH))
        assert "-A FORWARD -j nova-local" in saved()
        assert "-A nova-fallback -j DROP" in saved()
        await real.apply(*make_launch(1, SSH))
        assert "-A nova-local -d 10.0.0.3/32 -o br100 -j nova-inst-1" in saved()

    async def test_a_cleared_table_is_noticed_too(self, real: IptablesFirewall) -> None:
        await real.apply(*make_launch(1, SSH))
        clear()
        await real.remove(make_order(1))
        await real.apply(*make_launch(2, SSH))
        assert list(await real.list_instances()) == [2]

    async def test_filters_that_no_packet_comes_by_are_listed_as_such(self, real: IptablesFirewall) -> None:
        for number in (1, 2):
            await real.apply(*make_launch(number, SSH))
        assert await real.list_instances() == {1: True, 2: True}
        iptables("-I", "FORWARD", *FOREIGN.split())
        assert await real.list_instances() == {1: True, 2: True}
        iptables("-F", "nova-inst-1")
        assert await real.list_instances() == {1: False, 2: True}
        iptables("-D", "nova-local", "-d", "10.0.0.4", "-o", "br100", "-j", "nova-inst-2")
        assert await real.list_instances() == {1: False, 2: False}
        for number in (1, 2):
            await real.apply(*make_launch(number, SSH))
        for chain in ("FORWARD", "INPUT", "nova-local", "nova-out", "nova-input", "nova-host", "nova-fallback"):
            assert await real.list_instances() == {1: True, 2: True}
            iptables("-F", chain)
            assert await real.list_instances() == {1: False, 2: False}
            for number in (1, 2):
                await real.apply(*make_launch(number, SSH))

    async def test_the_metadata_port_follows_the_setting(self, real: IptablesFirewall) -> None:
        for port in (1000, 8775, 8775):
            async with another(Settings(metadata_port=port)) as other:
                await other.ensure_base(NETWORK)
        nat = iptables("-t", "nat", "-S", "nova-metadata").splitlines()
        assert len(nat) == 2
        assert nat[1].endswith("-j REDIRECT --to-ports 8775")

    async def test_an_address_that_moved_leads_to_its_new_instance(self, real: IptablesFirewall) -> None:
        await real.apply(*make_launch(1, SSH))
        await real.apply(*make_launch(2, SSH, address="10.0.0.3"))
        assert [line for line in saved() if "-d 10.0.0.3/32" in line] == [
            "-A nova-local -d 10.0.0.3/32 -o br100 -j nova-inst-2"
        ]
