"""Networks of two projects that have the same addresses, through the whole house."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from random import Random

import pytest

from launcher.floating import FloatingPool
from launcher.identity import new_mac
from launcher.messages.floating_ips import AllocateFloatingIp
from launcher.messages.network import AllocateFixedIp, DeleteNetwork, FindLease
from launcher.messaging import Context
from launcher.networks import FixedIp
from launcher.services.api.metadata.rooms import RoomDoors
from tests.flow.house import House, Json
from tests.flow.test_networks import ADMIN, as_project
from tests.orders import instance_id

POOL = FloatingPool(name="public", cidr=IPv4Network("203.0.113.0/29"), interface="eth0")
RANGE: Json = {"name": "lan", "cidr": "10.1.0.0/24"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path, pools=(POOL,)).open() as house:
        yield house


async def make(house: House, project: str, *, status: int = 201, **changes: object) -> Json:
    return await house.ask("POST", "/networks", {**RANGE, "project_id": project, **changes}, status=status)


async def allocate(house: House, project: str, number: int) -> FixedIp:
    mac = new_mac(Random(f"{project}{number}"))
    request = AllocateFixedIp(instance_id=instance_id(number), project_id=project, mac=mac, hostname="h", network="lan")
    return await house.bus.call(as_project(project), request)


async def test_the_later_of_two_projects_networks_is_apart(house: House) -> None:
    made = [await make(house, project) for project in ("a", "b", "c")]
    assert [each["apart"] for each in made] == [None, 1, 2]
    assert len({each["bridge"] for each in made}) == 3
    assert (await make(house, "d", cidr="10.2.0.0/24"))["apart"] is None
    assert (await make(house, "e", cidr="10.0.128.0/17", name="other"))["apart"] is None
    await house.bus.call(ADMIN, DeleteNetwork(network=str(made[1]["id"])))
    assert (await make(house, "f", cidr="10.1.0.0/16"))["apart"] == 1


@pytest.mark.parametrize(
    ("project", "changes", "field"),
    [
        ("a", {"name": "more", "cidr": "10.1.0.128/25"}, "cidr"),
        ("b", {"cidr": "10.0.0.0/25"}, "cidr"),
        ("b", {"cidr": "10.3.0.0/24", "cidr6": "fd00::/64"}, "cidr6"),
        ("b", {"cidr": "10.0.0.0/8"}, "cidr"),
    ],
    ids=["its own project's", "everybody's", "IPv6", "everybody's and another's"],
)
async def test_what_one_instance_could_join_does_not_overlap(
    house: House, project: str, changes: Json, field: str
) -> None:
    await make(house, "a", cidr6="fd00::/64")
    assert (await make(house, project, status=409, **changes))["field"] == field


async def test_everybodys_network_has_no_projects_addresses(house: House) -> None:
    await make(house, "a")
    assert (await house.ask("POST", "/networks", {**RANGE, "name": "all"}, status=409))["field"] == "cidr"


async def test_the_range_of_the_hosts_own_links_is_no_network_apart(house: House) -> None:
    assert (await make(house, "a", cidr="198.19.0.0/24"))["apart"] is None
    assert "links" in (await make(house, "b", status=409, cidr="198.19.0.0/24"))["detail"]


async def test_an_address_is_whose_bridge_it_is_on(house: House) -> None:
    for project in ("a", "b"):
        await make(house, project)
    one, other = await allocate(house, "a", 1), await allocate(house, "b", 2)
    assert one.address == other.address
    for lease in (one, other):
        assert await house.bus.call(ADMIN, FindLease(address=lease.address, bridge=lease.network.bridge)) == lease
    assert await house.bus.call(ADMIN, FindLease(address=one.address)) is None


async def test_each_gateway_translates_its_own(house: House) -> None:
    """The host knows of a network apart only the link to it, and which floating IPs to lead over it."""
    for project in ("a", "b"):
        await make(house, project)
    leases = [await allocate(house, "a", 1), await allocate(house, "b", 2)]
    addresses = [await led(house, as_project(lease.network.project_id or ""), lease) for lease in leases]
    applied = house.nat.applied
    assert dict(applied.floating) == {addresses[0]: leases[0].address}
    (bridge,) = applied.apart
    assert (bridge, dict(applied.apart[bridge].floating)) == (
        leases[1].network.bridge,
        {addresses[1]: leases[1].address},
    )
    assert {str(each) for each in applied.networks.values()} == {"10.0.0.0/24", "10.1.0.0/24", "198.19.0.2/31"}


async def led(house: House, ctx: Context, lease: FixedIp) -> IPv4Address:
    """A floating IP of the project that leads to the lease, as the rows have it."""
    made = await house.bus.call(ctx, AllocateFloatingIp())
    words = "UPDATE floating_ips SET network = ?, fixed = ? WHERE address = ?"
    values = (lease.network.id, int(lease.address), int(made.address))
    await house.network_role.db.write(lambda db: db.execute(words, values))
    await house.network_role.floating.translate()
    return made.address


class Hotel:
    """Rooms whose sockets are this host's own."""

    def __init__(self) -> None:
        self.rooms: dict[str, int] = {}

    def list_all(self) -> Mapping[str, int]:
        return self.rooms

    def open(self, name: str, kind: socket.SocketKind) -> socket.socket:
        if name == "br-broken":
            raise OSError("no such room")
        return socket.socket(socket.AF_INET, kind)


async def test_a_door_is_open_as_long_as_its_room_is_there() -> None:
    hotel, inside = Hotel(), list[str]()

    @contextlib.asynccontextmanager
    async def serve(listener: socket.socket, room: str) -> AsyncIterator[None]:
        assert listener.getsockname()[1] > 0
        inside.append(room)
        yield
        inside.remove(room)

    doors = RoomDoors(hotel, port=0, serve=serve)
    for rooms in ({"br1": 1, "br-broken": 2}, {"br1": 1, "br2": 3}, {"br1": 4}, {}):
        hotel.rooms = dict(rooms)
        await doors.look()
        assert sorted(inside) == sorted(rooms.keys() - {"br-broken"})
    hotel.rooms = {"br1": 1}
    await doors.look()
    await doors.close()
    assert inside == []
