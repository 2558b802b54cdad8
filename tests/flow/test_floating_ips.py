"""Floating IPs by the API, through the whole house, with fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from launcher.errors import FirewallFailed, NotFound
from launcher.floating import FloatingPool, Translation
from launcher.messages.floating_ips import AllocateFloatingIp, AssociateFloatingIp, ListFloatingIps
from launcher.messages.network import FindLease, ReleaseFixedIp
from launcher.models import Quotas
from tests.flow.house import House, Json
from tests.flow.test_networks import ADMIN, as_project

POOLS = (
    FloatingPool(name="public", cidr=IPv4Network("203.0.113.0/29"), interface="eth0"),
    FloatingPool(name="other", cidr=IPv4Network("198.51.100.4/31"), interface="eth1"),
)
FIRST = "203.0.113.1"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path, pools=POOLS).open() as house:
        yield house


async def active(house: House, **changes: object) -> Json:
    made = await house.launch(**changes)
    return await house.until(made["id"], "ACTIVE")


async def allocate(house: House, **body: object) -> str:
    made: str = (await house.ask("POST", "/floating-ips", body, status=201))["address"]
    return made


async def associate(house: House, address: str, instance: Json, status: int = 200, **more: object) -> Json:
    body = {"instance": instance["id"], **more}
    return await house.ask("POST", f"/floating-ips/{address}/association", body, status=status)


async def disassociate(house: House, address: str) -> Json:
    return await house.ask("DELETE", f"/floating-ips/{address}/association", status=200)


def leading(house: House) -> dict[str, str]:
    """What the host translates."""
    return {str(address): str(fixed) for address, fixed in house.nat.applied.floating.items()}


async def test_the_first_pools_lowest_address_is_given_first(house: House) -> None:
    assert [await allocate(house) for _ in range(3)] == [FIRST, "203.0.113.2", "203.0.113.3"]
    await house.ask("DELETE", "/floating-ips/203.0.113.2", status=204)
    assert await allocate(house) == "203.0.113.2"
    assert await allocate(house) == "203.0.113.4"
    assert [await allocate(house, pool="other") for _ in range(2)] == ["198.51.100.4", "198.51.100.5"]
    listed = (await house.ask("GET", "/floating-ips", status=200))["floating_ips"]
    assert [each["address"] for each in listed] == sorted(
        (each["address"] for each in listed), key=lambda word: int(IPv4Address(word))
    )


async def test_a_pool_that_is_empty_says_so(house: House) -> None:
    for _ in range(2):
        await allocate(house, pool="other")
    problem = await house.ask("POST", "/floating-ips", {"pool": "other"}, status=503)
    assert problem["code"] == "no_more_floating_ips"
    assert "198.51.100.4 to 198.51.100.5" in problem["detail"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"pool": "nowhere"}, 404, "pool"),
        ({"pool": "a\nb"}, 400, "pool"),
        ({"address": "203.0.113.0"}, 400, "address"),
        ({"address": "203.0.113.7"}, 400, "address"),
        ({"address": "192.0.2.1"}, 400, "address"),
        ({"address": "203.0.113.1/32"}, 400, "address"),
        ({"pool": "other", "address": "203.0.113.2"}, 400, "address"),
    ],
)
async def test_what_is_not_to_be_had_is_refused(house: House, body: Json, status: int, field: str) -> None:
    assert (await house.ask("POST", "/floating-ips", body, status=status))["field"] == field


async def test_an_address_can_be_asked_for_once(house: House) -> None:
    assert await allocate(house, address="203.0.113.5") == "203.0.113.5"
    assert await allocate(house, address="198.51.100.5") == "198.51.100.5"
    await house.ask("POST", "/floating-ips", {"address": "203.0.113.5"}, status=409)


async def test_a_project_holds_no_more_than_its_quota(tmp_path: Path) -> None:
    async with House(tmp_path, pools=POOLS, quotas=Quotas(floating_ips=2)).open() as house:
        for _ in range(2):
            await allocate(house)
        assert (await house.ask("POST", "/floating-ips", {}, status=403))["code"] == "quota_exceeded"
        await house.ask("DELETE", f"/floating-ips/{FIRST}", status=204)
        assert await allocate(house) == FIRST


async def test_without_a_pool_the_next_thing_to_try_is_said(tmp_path: Path) -> None:
    async with House(tmp_path).open() as house:
        problem = await house.ask("POST", "/floating-ips", {}, status=409)
        assert "[network] pools" in problem["hint"]


async def test_it_leads_to_the_instance_until_it_is_told_not_to(house: House) -> None:
    instance, address = await active(house), await allocate(house)
    made = await associate(house, address, instance)
    assert (made["instance_id"], made["fixed"]) == (instance["id"], instance["addresses"][0])
    assert await associate(house, address, instance) == made
    assert leading(house) == {address: instance["addresses"][0]}
    assert await house.ask("GET", f"/floating-ips/{address}", status=200) == made
    lease = await house.bus.call(ADMIN, FindLease(address=IPv4Address(instance["addresses"][0])))
    assert lease is not None
    assert str(lease.floating) == address
    for _ in range(2):
        freed = await disassociate(house, address)
        assert (freed["instance_id"], freed["fixed"]) == (None, None)
    assert leading(house) == {}


async def test_every_network_is_translated(house: House) -> None:
    await house.ask("POST", "/networks", {"name": "back", "cidr": "10.1.0.0/29"}, status=201)
    assert {str(cidr) for cidr in house.nat.applied.networks.values()} == {"10.0.0.0/24", "10.1.0.0/29"}
    await house.ask("DELETE", "/networks/back", status=204)
    assert {str(cidr) for cidr in house.nat.applied.networks.values()} == {"10.0.0.0/24"}


async def test_it_is_moved_only_when_asked_to(house: House) -> None:
    one, other, address = await active(house), await active(house), await allocate(house)
    await associate(house, address, one)
    problem = await associate(house, address, other, status=409)
    assert one["id"] in problem["detail"]
    assert leading(house) == {address: one["addresses"][0]}
    await associate(house, address, other, reassociate=True)
    assert leading(house) == {address: other["addresses"][0]}


async def test_a_fixed_ip_has_one_floating_ip(house: House) -> None:
    instance, first, second = await active(house), await allocate(house), await allocate(house)
    await associate(house, first, instance)
    for more in ({}, {"reassociate": True}):
        problem = await associate(house, second, instance, status=409, **more)
        assert first in problem["detail"]
    assert leading(house) == {first: instance["addresses"][0]}


async def test_each_nic_may_have_its_own(house: House) -> None:
    await house.ask("POST", "/networks", {"name": "back", "cidr": "10.1.0.0/29"}, status=201)
    instance = await active(house, networks=[{"network": "default"}, {"network": "back", "address": "10.1.0.5"}])
    first, second = await allocate(house), await allocate(house)
    await associate(house, first, instance)
    await associate(house, second, instance, fixed="10.1.0.5")
    assert leading(house) == {first: instance["addresses"][0], second: "10.1.0.5"}
    await associate(house, await allocate(house), instance, status=400, fixed="10.1.0.6")


async def test_an_instance_without_an_address_is_refused(house: House) -> None:
    gate = house.hold_step("networking")
    instance, address = await house.launch(), await allocate(house)
    await gate.reached.wait()
    await associate(house, address, instance, status=409)
    gate.open.set()
    await house.until(instance["id"], "ACTIVE")
    await associate(house, address, instance)


async def test_it_outlives_its_instance_and_leads_nowhere(house: House) -> None:
    """Before the next instance can have the fixed IP."""
    instance, address = await active(house), await allocate(house)
    await associate(house, address, instance)
    await house.ask("DELETE", f"/instances/{instance['id']}", status=202)
    await house.until(instance["id"], "DELETED")
    assert leading(house) == {}
    kept = await house.ask("GET", f"/floating-ips/{address}", status=200)
    assert (kept["instance_id"], kept["fixed"]) == (None, None)
    heir = await active(house)
    assert heir["addresses"] == instance["addresses"]
    assert leading(house) == {}


async def test_no_fixed_ip_is_free_while_the_host_still_leads_to_it(house: House) -> None:
    instance, address = await active(house), await allocate(house)
    await associate(house, address, instance)
    refusing = True

    async def refuse(wanted: Translation) -> None:
        if refusing:
            raise FirewallFailed("nft: busy")

    house.nat.fault = refuse
    await house.ask("DELETE", f"/instances/{instance['id']}", status=202)
    await house.until(instance["id"], "DELETING")
    heir = await active(house)
    assert heir["addresses"] != instance["addresses"]
    refusing = False
    await house.until(instance["id"], "DELETED")
    assert leading(house) == {}


async def test_an_address_is_not_free_while_the_host_is_on_its_way_to_lead_elsewhere(house: House) -> None:
    """The row named the new instance already, so the old one's address was given back at once."""
    old, new, address = await active(house), await active(house), await allocate(house)
    await associate(house, address, old)
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def dawdle(wanted: Translation) -> None:
        under_way.set()
        await go_on.wait()

    house.nat.fault = dawdle
    moving = asyncio.create_task(associate(house, address, new, reassociate=True))
    await under_way.wait()
    leaving = asyncio.create_task(house.bus.call(ADMIN, ReleaseFixedIp(instance_id=old["id"])))
    for _ in range(20):
        found = await house.bus.call(ADMIN, FindLease(address=IPv4Address(old["addresses"][0])))
        assert found is not None
    go_on.set()
    await asyncio.gather(moving, leaving)
    assert await house.bus.call(ADMIN, FindLease(address=IPv4Address(old["addresses"][0]))) is None
    assert leading(house) == {address: new["addresses"][0]}


async def test_one_that_leads_somewhere_is_not_given_back(house: House) -> None:
    instance, address = await active(house), await allocate(house)
    await associate(house, address, instance)
    problem = await house.ask("DELETE", f"/floating-ips/{address}", status=409)
    assert problem["hint"] == f"`launcher floating-ip disassociate {address}` first"
    await disassociate(house, address)
    await house.ask("DELETE", f"/floating-ips/{address}", status=204)
    await house.ask("GET", f"/floating-ips/{address}", status=404)
    await house.ask("DELETE", f"/floating-ips/{address}", status=404)


async def test_what_the_host_refuses_is_not_kept(house: House) -> None:
    instance, address = await active(house), await allocate(house)
    house.nat.own.add(IPv4Address(address))
    problem = await associate(house, address, instance, status=500)
    assert "this host's own address" in problem["detail"]
    assert (await house.ask("GET", f"/floating-ips/{address}"))["fixed"] is None
    second = await allocate(house)
    await associate(house, second, instance)


async def test_a_reassociation_that_fails_leaves_it_where_it_led(house: House) -> None:
    """It was nobody's then: neither the old instance's, which had done nothing, nor the new one's."""
    old, new, address = await active(house), await active(house), await allocate(house)
    await associate(house, address, old)
    broken = True

    async def refuse(wanted: Translation) -> None:
        if broken and wanted.floating.get(IPv4Address(address)) == IPv4Address(new["addresses"][0]):
            raise FirewallFailed("nft: busy")

    house.nat.fault = refuse
    await associate(house, address, new, status=500, reassociate=True)
    assert (await house.ask("GET", f"/floating-ips/{address}"))["instance_id"] == old["id"]
    assert leading(house) == {address: old["addresses"][0]}
    broken = False
    await associate(house, address, new, reassociate=True)
    assert leading(house) == {address: new["addresses"][0]}


async def test_a_reassociation_that_fails_leads_nowhere_when_the_old_instance_has_gone(house: House) -> None:
    old, new, address = await active(house), await active(house), await allocate(house)
    await associate(house, address, old)

    going: list[asyncio.Task[None]] = []

    async def refuse(wanted: Translation) -> None:
        if not going and wanted.floating.get(IPv4Address(address)) == IPv4Address(new["addresses"][0]):
            release = house.bus.call(ADMIN, ReleaseFixedIp(instance_id=old["id"]))
            going.append(asyncio.create_task(release))
            raise FirewallFailed("nft: busy")

    house.nat.fault = refuse
    await associate(house, address, new, status=500, reassociate=True)
    await asyncio.gather(*going)
    assert (await house.ask("GET", f"/floating-ips/{address}"))["fixed"] is None
    assert leading(house) == {}


@pytest.mark.parametrize("word", ["203.0.113.9", "nonsense", "203.0.113.1%0a", "::1", "203.0.113.01"])
async def test_an_unknown_one_is_not_found(house: House, word: str) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("DELETE", "/association")):
        await house.ask(method, f"/floating-ips/{word}{path}", status=404)


async def test_projects_do_not_see_each_others(house: House) -> None:
    instance, mine = await active(house), IPv4Address(await allocate(house))
    stranger = as_project("stranger")
    assert await house.bus.call(stranger, ListFloatingIps()) == []
    its = (await house.bus.call(stranger, AllocateFloatingIp())).address
    assert its != mine
    for address in (mine, its):
        with pytest.raises(NotFound):
            await house.bus.call(stranger, AssociateFloatingIp(address=address, instance=instance["id"]))
    problem = await associate(house, str(its), instance, status=400)
    assert "another project" in problem["detail"]
    assert [each.address for each in await house.bus.call(ADMIN, ListFloatingIps())] == [mine, its]


async def test_the_next_process_leads_as_the_one_before(house: House, tmp_path: Path) -> None:
    instance, address = await active(house), await allocate(house)
    await associate(house, address, instance)
    house.nat.applied = Translation(masquerade=False)
    second = tmp_path / "again"
    second.mkdir()
    for file in tmp_path.glob("*.db*"):
        (second / file.name).write_bytes(file.read_bytes())
    successor = house.successor()
    successor.state = second
    async with successor.open():
        assert leading(successor) == {address: instance["addresses"][0]}


async def test_a_host_that_cannot_translate_still_launches(tmp_path: Path) -> None:
    house = House(tmp_path, pools=POOLS)

    async def refuse(wanted: Translation) -> None:
        raise FirewallFailed("no nft here")

    house.nat.fault = refuse
    async with house.open():
        instance = await active(house)
        await house.ask("DELETE", f"/instances/{instance['id']}", status=202)
        await house.until(instance["id"], "DELETED")


async def test_the_audit_sees_what_nobody_owns_and_what_is_missing(house: House) -> None:
    instance, address = await active(house), await allocate(house)
    await associate(house, address, instance)
    assert (await house.ask("GET", "/audit", status=200))["findings"] == []
    house.nat.strays.add(IPv4Address("203.0.113.6"))
    house.nat.applied = Translation(networks=house.nat.applied.networks)
    found = (await house.ask("GET", "/audit", status=200))["findings"]
    assert [(each["trouble"], each["kind"], each["name"]) for each in found] == [
        ("ownerless", "floating", "203.0.113.6"),
        ("missing", "floating", address),
    ]
    await house.ask("POST", "/gc", {}, status=200)
    assert (await house.ask("GET", "/audit", status=200))["findings"] == []
