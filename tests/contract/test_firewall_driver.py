"""One suite for every packet filter: the fake, and iptables in the sandbox."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.firewall.fake import FakeFirewall
from launcher.drivers.firewall.iptables import IptablesFirewall
from launcher.errors import FirewallFailed
from launcher.networks import NetworkMode
from launcher.policy import Protocol, Rule, SecurityGroup
from tests.orders import NETWORK, make_launch, make_order

FOREIGN = "-s 192.0.2.0/24 -j ACCEPT"


def a_group(number: int, port: int) -> SecurityGroup:
    rule = Rule(protocol=Protocol.TCP, from_port=port, to_port=port, cidr=IPv4Network("0.0.0.0/0"))
    return SecurityGroup(id=number, name=f"group-{number}", rules=(rule,))


SSH, WEB = a_group(1, 22), a_group(12, 80)


def iptables(*words: str) -> str:
    return subprocess.run(["iptables", *words], check=True, capture_output=True, text=True).stdout


def clear() -> None:
    for table in ("filter", "nat"):
        iptables("-t", table, "-F")
        iptables("-t", table, "-X")


@pytest.fixture(params=["fake", pytest.param("iptables", marks=pytest.mark.host)])
async def firewall(request: pytest.FixtureRequest) -> AsyncIterator[FirewallDriver]:
    if request.param == "fake":
        yield FakeFirewall()
        return
    request.getfixturevalue("sandboxed")
    yield IptablesFirewall(metadata_port=8775)
    clear()


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


async def test_another_object_finds_what_is_there(firewall: FirewallDriver) -> None:
    await firewall.start()
    await firewall.apply(*make_launch(3, SSH))
    again = IptablesFirewall() if isinstance(firewall, IptablesFirewall) else firewall
    assert list(await again.list_instances()) == [3]
    await again.remove(make_order(3))
    await firewall.apply(*make_launch(4, SSH))
    assert list(await firewall.list_instances()) == [4]


def saved() -> list[str]:
    """The table without its comments and counters."""
    lines = subprocess.run(["iptables-save", "-t", "filter"], check=True, capture_output=True, text=True).stdout
    return [line.split("[")[0] for line in lines.splitlines() if not line.startswith("#")]


@pytest.fixture
async def real(sandboxed: None) -> AsyncIterator[IptablesFirewall]:
    iptables("-A", "FORWARD", *FOREIGN.split())
    firewall = IptablesFirewall()
    await firewall.start()
    yield firewall
    clear()


@pytest.mark.host
class TestIptables:
    @pytest.mark.parametrize("mode", NetworkMode)
    async def test_ipv6_is_refused_on_every_bridge_of_ours(self, real: IptablesFirewall, mode: NetworkMode) -> None:
        """Of projects' vlans it was not."""
        if not Path("/proc/net/if_inet6").exists():
            pytest.skip("HOST TEST NOT RUN: this kernel has no IPv6")
        await real.ensure_base(NETWORK.model_copy(update={"mode": mode, "bridge": f"br-{mode.replace('_', '-')}"}))
        found = subprocess.run(["ip6tables-save", "-t", "filter"], check=True, capture_output=True, text=True).stdout
        assert (f"-i br-{mode.replace('_', '-')} -j DROP" in found) == (mode is not NetworkMode.FLAT)

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
        await IptablesFirewall().start()
        await real.apply(*make_launch(1, SSH, WEB))
        await IptablesFirewall().apply(*make_launch(1, SSH, WEB))
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
        assert "-A nova-local -d 10.0.0.3/32 -j nova-inst-1" in saved()

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
        iptables("-D", "nova-local", "-d", "10.0.0.4", "-j", "nova-inst-2")
        assert await real.list_instances() == {1: False, 2: False}
        for number in (1, 2):
            await real.apply(*make_launch(number, SSH))
        for chain in ("FORWARD", "INPUT", "nova-local", "nova-spoof", "nova-fallback"):
            assert await real.list_instances() == {1: True, 2: True}
            iptables("-F", chain)
            assert await real.list_instances() == {1: False, 2: False}
            for number in (1, 2):
                await real.apply(*make_launch(number, SSH))

    async def test_a_refused_rule_changes_nothing(self, real: IptablesFirewall) -> None:
        await real.apply(*make_launch(1, SSH))
        before = saved()
        nonsense = Rule(protocol=Protocol.ICMP, from_port=1, to_port=65535, cidr=IPv4Network("0.0.0.0/0"))
        with pytest.raises(FirewallFailed, match="icmp type 1 with code 65535"):
            await real.apply(*make_launch(1, SecurityGroup(id=3, name="odd", rules=(nonsense,))))
        assert saved() == before

    async def test_every_kind_of_rule_is_taken(self, real: IptablesFirewall) -> None:
        anywhere, near = IPv4Network("0.0.0.0/0"), IPv4Network("192.0.2.4/30")
        ports = [(None, None), (0, 0), (1, 65535), (22, 22), (0, 65535)]
        of_ports = [
            Rule(protocol=protocol, from_port=low, to_port=high, cidr=cidr)
            for protocol in (Protocol.TCP, Protocol.UDP, Protocol.ANY)
            for low, high in ports
            for cidr in (anywhere, near)
        ]
        of_icmp = [
            Rule(protocol=Protocol.ICMP, from_port=kind, to_port=code, cidr=near)
            for kind, code in ((None, None), (0, None), (0, 0), (8, 0), (255, 255))
        ]
        everything = SecurityGroup(id=4, name="everything", rules=(*of_ports, *of_icmp, *of_icmp))
        await real.apply(*make_launch(1, everything, everything))
        before = saved()
        await IptablesFirewall().apply(*make_launch(1, everything))
        assert saved() == before

    async def test_the_metadata_port_follows_the_setting(self, real: IptablesFirewall) -> None:
        for port in (1000, 8775, 8775):
            await IptablesFirewall(metadata_port=port).ensure_base(NETWORK)
        nat = iptables("-t", "nat", "-S", "nova-metadata").splitlines()
        assert len(nat) == 2
        assert nat[1].endswith("-j REDIRECT --to-ports 8775")

    async def test_an_address_that_moved_leads_to_its_new_instance(self, real: IptablesFirewall) -> None:
        await real.apply(*make_launch(1, SSH))
        await real.apply(*make_launch(2, SSH, address="10.0.0.3"))
        assert [line for line in saved() if "-d 10.0.0.3/32" in line] == ["-A nova-local -d 10.0.0.3/32 -j nova-inst-2"]
