"""Networks by the API, and instances with several NICs, through the whole house."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv4Network
from pathlib import Path
from random import Random

import pytest

from launcher.accounts import UserRole
from launcher.drivers.network.driver import Tap
from launcher.errors import Conflict, Forbidden, NetworkFailed, NoMoreFixedIps, NotFound
from launcher.identity import new_mac
from launcher.messages.network import (
    AllocateFixedIp,
    CreateNetwork,
    DeleteNetwork,
    FindLease,
    ListNetworks,
    ReleaseFixedIp,
)
from launcher.messaging import Context
from launcher.networks import FixedIp, Network, ProjectRange
from tests.flow.house import House, Json
from tests.orders import instance_id

BACK: Json = {"name": "back", "cidr": "10.1.0.0/29"}


def as_project(project_id: str, *, admin: bool = False) -> Context:
    return Context(
        request_id="req-1",
        project_id=project_id,
        user_id="u",
        role=UserRole.ADMIN if admin else UserRole.MEMBER,
        trace_id="0" * 32,
    )


ADMIN = as_project("admin", admin=True)


async def make(house: House, **changes: object) -> Json:
    return await house.ask("POST", "/networks", {**BACK, **changes}, status=201)


async def test_the_network_of_the_settings_is_the_first(house: House) -> None:
    (first,) = (await house.ask("GET", "/networks", status=200))["networks"]
    assert (first["id"], first["name"], first["cidr"], first["project_id"]) == (1, "default", "10.0.0.0/24", None)
    await house.ask("DELETE", "/networks/default", status=409)


async def test_a_network_is_made_with_all_that_was_left_out(house: House) -> None:
    made = await make(house)
    assert (made["gateway"], made["bridge"], made["segment"]) == ("10.1.0.1", "br101", None)
    assert await house.ask("GET", "/networks/back", status=200) == made
    assert await house.ask("GET", f"/networks/{made['id']}", status=200) == made
    assert set(house.network.bridges) == {"br100", "br101"}
    assert set(house.firewall.networks) == {"default", "back"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "default"}, "name"),
        ({"cidr": "10.0.0.128/25"}, "cidr"),
        ({"cidr": "10.0.0.0/8"}, "cidr"),
        ({"bridge": "br100"}, "bridge"),
    ],
)
async def test_what_is_another_networks_is_refused(house: House, changes: Json, field: str) -> None:
    problem = await house.ask("POST", "/networks", {**BACK, **changes}, status=409)
    assert problem["field"] == field
    assert set(house.network.bridges) == {"br100"}


@pytest.mark.parametrize(
    "changes",
    [
        {"cidr": "0.0.0.0/33"},
        {"cidr": "10.1.0.0/31"},
        {"gateway": "10.1.0.0"},
        {"gateway": "10.1.0.7"},
        {"gateway": "10.2.0.1"},
        {"bridge": "br 1"},
        {"bridge": "a" * 16},
        {"name": "a\nb"},
        {"name": "x" * 300},
        {"segment": 7},
        {"cidr6": "fd00::/56"},
        {"dns": ["1.1.1.1,--server=9.9.9.9"]},
    ],
)
async def test_what_makes_no_sense_is_refused(house: House, changes: Json) -> None:
    await house.ask("POST", "/networks", {**BACK, **changes}, status=400)
    assert set(house.network.bridges) == {"br100"}


async def test_what_the_host_refuses_is_not_kept(house: House) -> None:
    async def refuse(point: str, subject: str) -> None:
        if (point, subject) == ("ensure_network", "back"):
            raise NetworkFailed("br101: the range is taken on this host")

    house.network.fault = refuse
    await house.ask("POST", "/networks", BACK, status=500)
    assert [each["name"] for each in (await house.ask("GET", "/networks"))["networks"]] == ["default"]
    house.network.fault = None
    await make(house)


async def test_a_network_goes_when_nobody_is_in_it(house: House) -> None:
    await make(house)
    instance = await house.launch(networks=[{"network": "back"}])
    await house.until(instance["id"], "ACTIVE")
    problem = await house.ask("DELETE", "/networks/back", status=409)
    assert "1 addresses in use" in problem["detail"]
    await house.ask("DELETE", f"/instances/{instance['id']}", status=202)
    await house.until(instance["id"], "DELETED")
    await house.ask("DELETE", "/networks/back", status=204)
    await house.ask("GET", "/networks/back", status=404)
    assert set(house.network.bridges) == {"br100"}


async def test_a_deletion_that_was_cut_is_finished_by_the_next_process(house: House) -> None:
    await make(house)

    async def die(point: str, subject: str) -> None:
        if point == "remove_network":
            raise NetworkFailed("cut")

    house.network.fault = die
    await house.ask("DELETE", "/networks/back", status=500)
    await house.ask("GET", "/networks/back", status=404)
    assert "br101" in house.network.bridges
    house.network.fault = None
    async with house.successor().open():
        assert set(house.network.bridges) == {"br100"}


async def test_a_machine_with_two_nics(house: House) -> None:
    await make(house)
    wanted = [{"network": "default"}, {"network": "back", "address": "10.1.0.5"}]
    made = await house.launch(networks=wanted)
    assert len({nic["mac"] for nic in made["nics"]}) == 2
    active = await house.until(made["id"], "ACTIVE")
    assert active["addresses"] == ["10.0.0.2", "10.1.0.5"]
    assert [(nic["network"], nic["address"]) for nic in active["nics"]] == [
        ("default", "10.0.0.2"),
        ("back", "10.1.0.5"),
    ]
    number = active["number"]
    assert house.network.taps == {Tap(number, 0): "br100", Tap(number, 1): "br101"}
    order, nics, _ = house.firewall.applied[number]
    assert [(nic.nic, nic.mac, str(nic.address)) for nic in nics] == [
        (0, order.nics[0].mac, "10.0.0.2"),
        (1, order.nics[1].mac, "10.1.0.5"),
    ]
    assert {bridge: len(leases) for bridge, leases in house.network.leases.items()} == {"br100": 1, "br101": 1}
    assert (await house.ask("GET", "/audit", status=200))["findings"] == []
    await house.ask("DELETE", f"/instances/{made['id']}", status=202)
    gone = await house.until(made["id"], "DELETED")
    assert (gone["addresses"], gone["nics"]) == ([], [])
    assert house.leftovers() == []


async def test_the_second_tap_alone_is_found_and_removed(house: House) -> None:
    await make(house)
    made = await house.launch(networks=[{"network": "default"}, {"network": "back"}])
    active = await house.until(made["id"], "ACTIVE")
    del house.network.taps[Tap(active["number"], 1)]
    (found,) = (await house.ask("GET", "/audit", status=200))["findings"]
    assert (found["trouble"], found["kind"], found["name"]) == ("missing", "tap", f"tap{active['number']:08x}-1")


@pytest.mark.parametrize(
    ("networks", "status"),
    [
        ([{"network": "nowhere"}], 404),
        ([{"network": "default", "address": "10.0.0.1"}], 400),
        ([{"network": "default", "address": "10.0.0.255"}], 400),
        ([{"network": "default", "address": "192.168.0.1"}], 400),
        ([{"network": "default", "address": "10.0.0.9"}], 409),
        ([{"network": "default"}] * 9, 400),
        ([{"network": ""}], 400),
    ],
)
async def test_nics_that_cannot_be_are_refused_at_once(house: House, networks: list[Json], status: int) -> None:
    made = await house.launch(networks=[{"network": "default", "address": "10.0.0.9"}])
    await house.until(made["id"], "ACTIVE")
    body = {"image": "ami-tiny", "flavor": "m1.tiny", "networks": networks}
    await house.ask("POST", "/instances", body, status=status)


async def test_one_address_is_not_for_several_instances(house: House) -> None:
    nics = [{"network": "default", "address": "10.0.0.9"}]
    body = {"image": "ami-tiny", "flavor": "m1.tiny", "count": 2, "networks": nics}
    await house.ask("POST", "/instances", body, status=400)


async def test_another_projects_network_is_not_seen(house: House) -> None:
    await make(house, project_id="theirs")
    mine, theirs = as_project("mine"), as_project("theirs")
    assert [each.name for each in await house.bus.call(mine, ListNetworks())] == ["default"]
    assert [each.name for each in await house.bus.call(theirs, ListNetworks())] == ["default", "back"]
    with pytest.raises(NotFound):
        await allocate(house, "mine", network="back")
    assert str((await allocate(house, "theirs", network="back")).address) == "10.1.0.2"
    with pytest.raises(Forbidden):
        await house.bus.call(theirs, CreateNetwork(name="n", cidr=IPv4Network("10.3.0.0/24")))
    with pytest.raises(Forbidden):
        await house.bus.call(theirs, DeleteNetwork(network="back"))


async def allocate(house: House, project: str, *, number: int = 900, network: str | None = None) -> FixedIp:
    mac = new_mac(Random(f"{project}{number}"))
    request = AllocateFixedIp(
        instance_id=instance_id(number), project_id=project, mac=mac, hostname="h", network=network
    )
    return await house.bus.call(as_project(project), request)


# --- a network for each project ----------------------------------------------------------------------


@pytest.fixture
async def estate(tmp_path: Path) -> AsyncIterator[House]:
    """In the mode vlan: three segments, room for four networks of a /28."""
    cidr = IPv4Network("10.0.0.0/26")
    async with House(tmp_path, cidr=cidr, projects=ProjectRange(cidr, 28, range(100, 103))).open() as house:
        yield house


async def test_a_projects_first_launch_takes_its_network(estate: House) -> None:
    assert await estate.bus.call(ADMIN, ListNetworks()) == []
    assert estate.network.bridges == {}
    made = await estate.launch()
    active = await estate.until(made["id"], "ACTIVE")
    (taken,) = await estate.bus.call(ADMIN, ListNetworks())
    assert (taken.project_id, taken.segment, taken.bridge, str(taken.cidr)) == ("admin", 100, "br100", "10.0.0.0/28")
    assert active["addresses"] == ["10.0.0.2"]
    assert await estate.until((await estate.launch())["id"], "ACTIVE")
    assert await estate.bus.call(ADMIN, ListNetworks()) == [taken]


async def test_each_project_has_its_own_and_what_is_free_is_taken_again(estate: House) -> None:
    found: dict[str, Network] = {}
    for number, project in enumerate(("a", "b", "c"), start=1):
        found[project] = (await allocate(estate, project, number=number)).network
    assert [(each.segment, str(each.cidr)) for each in found.values()] == [
        (100, "10.0.0.0/28"),
        (101, "10.0.0.16/28"),
        (102, "10.0.0.32/28"),
    ]
    with pytest.raises(Conflict, match="all segments from 100 to 102"):
        await allocate(estate, "d", number=4)
    await estate.bus.call(ADMIN, DeleteNetwork(network=str((await spare(estate, "b", 2)).id)))
    assert (await allocate(estate, "d", number=4)).network.segment == 101


async def spare(house: House, project: str, number: int) -> Network:
    """The network of the project, after its only instance has given its address back."""
    await house.bus.call(ADMIN, ReleaseFixedIp(instance_id=instance_id(number)))
    return next(each for each in await house.bus.call(ADMIN, ListNetworks()) if each.project_id == project)


async def test_when_the_range_is_used_up_the_error_says_so(tmp_path: Path) -> None:
    cidr = IPv4Network("10.0.0.0/28")
    async with House(tmp_path, cidr=cidr, projects=ProjectRange(cidr, 28, range(100, 200))).open() as house:
        await allocate(house, "a")
        with pytest.raises(NoMoreFixedIps, match=r"no part of 10\.0\.0\.0/28 is left"):
            await allocate(house, "b", number=2)


async def test_the_metadata_service_finds_a_lease_by_address_and_bridge(estate: House) -> None:
    lease = await allocate(estate, "a")
    find = FindLease(address=lease.address, bridge=lease.network.bridge)
    assert await estate.bus.call(ADMIN, find) == lease
    assert await estate.bus.call(ADMIN, FindLease(address=lease.address, bridge="br-other")) is None
