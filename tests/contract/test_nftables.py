"""What is nftables' own: what stands in the kernel afterwards, and what somebody else did to it meanwhile."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from ipaddress import IPv4Address

import pytest

from launcher.drivers.firewall.nftables import NftablesFirewall
from launcher.errors import FirewallFailed
from launcher.explaining import Settings
from launcher.policy import Direction, Policy, Protocol, Rule, SecurityGroup
from tests.contract.test_firewall_driver import SSH, WEB
from tests.orders import NETWORK, make_launch, make_order

pytestmark = pytest.mark.host
SETTINGS = Settings(metadata_port=8775)
FOREIGN = "table ip foreign { chain forward { type filter hook forward priority 0; ip saddr 192.0.2.0/24 accept; }; }"


def nft(commands: str) -> str:
    return subprocess.run(["nft", "-f", "-"], input=commands, check=True, capture_output=True, text=True).stdout


def ruleset() -> str:
    return nft("list ruleset")


@pytest.fixture
async def real(sandboxed: None) -> AsyncIterator[NftablesFirewall]:
    nft(FOREIGN)
    firewall = NftablesFirewall(SETTINGS)
    await firewall.start()
    yield firewall
    await firewall.stop()


async def again() -> NftablesFirewall:
    """As after a restart of the launcher."""
    firewall = NftablesFirewall(SETTINGS)
    await firewall.start()
    return firewall


def named(group_id: int, direction: Direction = Direction.INGRESS) -> Rule:
    return Rule(protocol=Protocol.TCP, group_id=group_id, direction=direction)


async def test_it_cleans_up_after_itself(real: NftablesFirewall) -> None:
    fenced = SecurityGroup(id=3, name="fenced", rules=(named(1), named(1, Direction.EGRESS)))
    order, nics, _ = make_launch(3)
    await real.apply(*make_launch(9))
    await real.remove(make_order(9))
    before = ruleset()
    await real.apply(*make_launch(1, SSH, WEB))
    await real.apply(*make_launch(2, SSH))
    await real.apply(order, nics, Policy(groups=(fenced,), members={1: (IPv4Address("10.0.0.3"),)}))
    assert ruleset() != before
    for number in (1, 2, 3):
        await real.remove(make_order(number))
    assert ruleset() == before


async def test_another_object_cleans_up_too(real: NftablesFirewall) -> None:
    await real.apply(*make_launch(9))
    await real.remove(make_order(9))
    before = ruleset()
    for number in (1, 2):
        await real.apply(*make_launch(number, SSH, SecurityGroup(id=5, name="five", rules=(named(1),))))
    second = await again()
    for number in (1, 2):
        await second.remove(make_order(number))
    await second.stop()
    assert ruleset() == before


async def test_nothing_is_done_twice(real: NftablesFirewall) -> None:
    launch = make_launch(1, SSH, SecurityGroup(id=5, name="five", rules=(named(1),)))
    await real.apply(*launch)
    before = ruleset()
    await real.apply(*launch)
    second = await again()
    await second.apply(*launch)
    await second.stop()
    assert ruleset() == before


async def test_foreign_tables_are_left_alone(real: NftablesFirewall) -> None:
    before = nft("list table ip foreign")
    await real.ensure_base(NETWORK)
    await real.apply(*make_launch(1, SSH))
    await real.remove(make_order(1))
    assert nft("list table ip foreign") == before


async def test_a_flushed_ruleset_is_noticed_by_the_next_apply(real: NftablesFirewall) -> None:
    await real.apply(*make_launch(1, SSH))
    nft("flush ruleset")
    await real.apply(*make_launch(2, SSH))
    assert await real.list_instances() == {2: True}


@pytest.mark.parametrize(
    "what", ["table inet launcher", "chain inet launcher arrivals", "chain bridge launcher from_tap"]
)
async def test_flushed_rules_are_noticed_too(real: NftablesFirewall, what: str) -> None:
    await real.apply(*make_launch(1, SSH))
    nft(f"flush {what}")
    assert await real.list_instances() == {1: False}
    nft(f"flush {what}")
    await real.apply(*make_launch(2, SSH))
    await real.apply(*make_launch(1, SSH))
    assert await real.list_instances() == {1: True, 2: True}


async def test_a_lost_element_is_seen_and_put_back(real: NftablesFirewall) -> None:
    for number in (1, 2):
        await real.apply(*make_launch(number, SSH))
    nft('delete element inet launcher in4 { "br100" . 10.0.0.3 }')
    assert await real.list_instances() == {1: False, 2: True}
    await real.apply(*make_launch(1, SSH))
    assert await real.list_instances() == {1: True, 2: True}


async def test_somebody_elses_rules_cost_no_memory(real: NftablesFirewall) -> None:
    """A change of another table is none of ours: what is known of ours is kept."""
    await real.apply(*make_launch(1, SSH))
    seen = real._ruleset._seen
    nft("add table ip other")
    await real.apply(*make_launch(2, SSH))
    assert real._ruleset._seen is seen
    assert await real.list_instances() == {1: True, 2: True}


async def test_an_address_that_moved_leads_to_its_new_instance(real: NftablesFirewall) -> None:
    await real.apply(*make_launch(1, SSH))
    await real.apply(*make_launch(2, WEB, address="10.0.0.3"))
    assert '"br100" . 10.0.0.3 comment "tap00000002" : goto in_br100_12' in ruleset()


async def test_members_come_and_go_one_by_one(real: NftablesFirewall) -> None:
    group = SecurityGroup(id=5, name="five", rules=(named(5),))
    order, nics, _ = make_launch(1)
    first, second = IPv4Address("10.0.0.3"), IPv4Address("10.0.0.4")
    await real.apply(order, nics, Policy(groups=(group,), members={5: (first,)}))
    for members in ((first, second), (second,), ()):
        await real.update(Policy(groups=(group,), members={5: members}))
        listed = nft("list set inet launcher members4_5")
        assert [address for address in (first, second) if str(address) in listed] == list(members)


async def test_a_network_with_other_addresses_on_the_same_bridge(real: NftablesFirewall) -> None:
    """Two bridges may have the same addresses; each instance is found by both."""
    other = NETWORK.model_copy(update={"bridge": "br101", "name": "other"})
    await real.apply(*make_launch(1, SSH))
    await real.apply(*make_launch(2, WEB, address="10.0.0.3", network=other))
    assert await real.list_instances() == {1: True, 2: True}
    await real.remove(make_order(1))
    assert await real.list_instances() == {2: True}


async def test_without_its_worker_it_goes_on(real: NftablesFirewall) -> None:
    await real.apply(*make_launch(1, SSH))
    assert real._ruleset._nft._process is not None
    real._ruleset._nft._process.kill()
    await real.apply(*make_launch(2, SSH))
    assert await real.list_instances() == {1: True, 2: True}


async def test_what_the_kernel_refuses_changes_nothing(real: NftablesFirewall) -> None:
    order, nics, policy = make_launch(1, SSH)
    nowhere = NETWORK.model_copy(update={"bridge": "a-name-longer-than-any-device"})
    before = ruleset()
    with pytest.raises(FirewallFailed, match="instance-00000001"):
        await real.apply(order, [nics[0].model_copy(update={"network": nowhere})], policy)
    assert ruleset() == before
    await real.apply(order, nics, policy)
    assert await real.list_instances() == {1: True}
