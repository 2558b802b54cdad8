"""The metadata service's trees, tokens, allowances and door, without a launcher around them."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from random import Random
from typing import Any

import pytest

from launcher.errors import NotFound
from launcher.guestdata import ec2, openstack
from launcher.guestdata.guest import Guest
from launcher.guestdata.tree import Directory, Node, find, leaves, split
from launcher.messages.instances import GetGuestMetadata
from launcher.messages.network import FindLease, ListAddresses
from launcher.messaging import Context
from launcher.models import Flavor, GuestMetadata, Instance, VmState
from launcher.networks import FixedIp, NetworkMode
from launcher.services.api.metadata import door
from launcher.services.api.metadata.door import Allowance, Door
from launcher.services.api.metadata.guests import Guests, Source
from launcher.services.api.metadata.tokens import Tokens
from tests.orders import NETWORK, TINY, instance_id, make_instance, make_lease, make_order, make_told
from tests.waiting import until

GOLDEN = Path(__file__).parent.parent / "golden"
CTX = Context(request_id="req-1", project_id="p", user_id="u", trace_id="a" * 32)
ELSEWHERE = NETWORK.model_copy(
    update={
        "name": "back",
        "mode": NetworkMode.FLAT,
        "bridge": "br101",
        "cidr": IPv4Network("10.1.0.0/16"),
        "gateway": IPv4Address("10.1.0.1"),
        "dns": (IPv4Address("9.9.9.9"),),
        "cidr6": IPv6Network("fd00:1::/64"),
    }
)


class StoppedClock:
    def __init__(self) -> None:
        self.ms = 1_790_000_000_000.0

    def now_ms(self) -> float:
        return self.ms


def make_guest(*more: FixedIp, user_data: bytes | None = b"\x00\xff#!", **changes: Any) -> Guest:
    order = make_order(42)
    values: dict[str, Any] = {
        "id": order.instance_id,
        "number": 42,
        "generation": 1,
        "project_id": "demo",
        "user_id": "me",
        "name": "web 1",
        "hostname": order.hostname,
        "status": "ACTIVE",
        "vm_state": VmState.ACTIVE,
        "task_state": None,
        "state_since_ms": 0,
        "host": "box",
        "nics": order.nics,
        "flavor": TINY,
        "image_id": "11111111-0000-4000-8000-000000000001",
        "image_name": "ami-tiny",
        "key_name": "my key",
        "security_groups": ("default", "web"),
        "availability_zone": None,
        "metadata": {"role": "db", "a=b": "no", "x/y": "no", "..": "no", "two\nlines": "no", "_index": "no"},
        "reservation_id": "r-12345678",
        "launch_index": 3,
        "created_ms": 1_790_000_000_000,
        "launched_ms": None,
        "fault": None,
        "trace_id": "a" * 32,
    }
    told = GuestMetadata(
        instance=Instance(**{**values, **changes}),
        region="here-1",
        availability_zone="az-2",
        public_key="ssh-ed25519 AAAA me",
        kernel_id="22222222-0000-4000-8000-000000000001",
        ramdisk_id=None,
        user_data=None if user_data is None else base64.b64encode(user_data).decode(),
    )
    return Guest(told, (make_lease(order, "10.0.0.3"), *more))


def second_nic() -> FixedIp:
    return make_lease(make_order(42), "10.1.2.3", ELSEWHERE).model_copy(update={"mac": "02:16:3e:00:00:ff", "nic": 1})


def printed(node: Node, path: str) -> list[str]:
    """Each directory with its listing, each leaf with its text."""
    if not isinstance(node, Directory):
        return [f"{path} = {node.body!r}"]
    lines = [f"{path}/ : {' '.join(node.listing().split(chr(10)))}"]
    return lines + [line for name, child in node.entries.items() for line in printed(child, f"{path}/{name}")]


# --- the trees -----------------------------------------------------------------------------------------


def test_the_ec2_tree_is_the_golden_one() -> None:
    latest = find(ec2.root(make_guest(second_nic()), tags=True), ["latest"])
    assert "\n".join([*printed(latest, "latest"), ""]) == (GOLDEN / "metadata_ec2.txt").read_text()


def test_the_openstack_tree_is_the_golden_one() -> None:
    latest = find(openstack.root(make_guest(second_nic()), rng=Random(1)), ["latest"])
    shown = "\n".join([*printed(latest, "openstack/latest"), ""])
    seed = json.loads(dict(leaves(latest, ""))["/meta_data.json"].body)["random_seed"]
    assert len(base64.b64decode(seed)) == openstack.SEED_BYTES
    assert shown.replace(seed, "SEED") == (GOLDEN / "metadata_openstack.txt").read_text()


def test_versions_are_listed_bare_and_all_are_there() -> None:
    guest = make_guest()
    by_ec2, by_openstack = ec2.root(guest, tags=True), openstack.root(guest, rng=Random(1))
    assert by_ec2.listing().split("\n") == list(ec2.VERSIONS)
    assert {"1.0", "2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", "latest"} <= set(ec2.VERSIONS)
    assert by_openstack.listing().split("\n") == list(openstack.VERSIONS)
    for version in ec2.VERSIONS:
        assert find(by_ec2, split(f"/{version}//meta-data/instance-id/")) == find(
            by_ec2, ["latest", "meta-data", "instance-id"]
        )


def test_what_a_guest_was_not_given_is_not_there() -> None:
    guest = make_guest(user_data=None)
    bare = Guest(guest.told.model_copy(update={"public_key": None, "kernel_id": None}), guest.nics)
    tree = ec2.root(bare, tags=False)
    for path in ("user-data", "meta-data/public-keys", "meta-data/kernel-id", "meta-data/ramdisk-id", "meta-data/tags"):
        with pytest.raises(NotFound):
            find(tree, ["latest", *split(path)])
    with pytest.raises(NotFound):
        find(openstack.root(bare, rng=Random(1)), ["latest", "user_data"])


@pytest.mark.parametrize("path", ["nothing", "latest/meta-data/ami-id/x", "latest/../latest", "latest/dynamic/iam"])
def test_an_unknown_path_is_not_found(path: str) -> None:
    with pytest.raises(NotFound):
        find(ec2.root(make_guest(), tags=True), split(path))


def test_hostile_tags_never_become_lines_of_a_listing() -> None:
    hostile = {"0=key": "x", "a/": "x", "": "x", ".": "x", " pad ": "x", "ok": "two\nlines", "k" * 129: "x", "é": "x"}
    tags = find(ec2.root(make_guest(metadata=hostile), tags=True), ["latest", "meta-data", "tags", "instance"])
    assert isinstance(tags, Directory)
    assert tags.listing() == "ok"


# --- tokens and allowances -------------------------------------------------------------------------------


def test_a_token_is_good_for_its_instance_and_its_time() -> None:
    clock = StoppedClock()
    tokens = Tokens(clock=clock, rng=Random(1))
    token = tokens.issue(instance_id(1), 60)
    assert token != tokens.issue(instance_id(1), 60)
    assert tokens.seconds_left(token, instance_id(1)) == 60
    assert tokens.seconds_left(token, instance_id(2)) == 0
    clock.ms += 59_001
    assert tokens.seconds_left(token, instance_id(1)) == 1
    clock.ms += 999
    assert tokens.seconds_left(token, instance_id(1)) == 0


def test_no_changed_token_and_none_of_another_process_is_good() -> None:
    clock = StoppedClock()
    tokens = Tokens(clock=clock, rng=Random(1))
    raw = base64.urlsafe_b64decode(tokens.issue(instance_id(1), 60))
    changed = [raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] for at in range(len(raw))]
    changed += [raw[:end] for end in range(len(raw))] + [raw + b"\0"]
    for each in changed:
        assert tokens.seconds_left(base64.urlsafe_b64encode(each).decode(), instance_id(1)) == 0
    for text in ("", "=", "é", "\0", "a b"):
        assert tokens.seconds_left(text, instance_id(1)) == 0
    successor = Tokens(clock=clock, rng=Random(2))
    assert successor.seconds_left(base64.urlsafe_b64encode(raw).decode(), instance_id(1)) == 0


def test_one_guest_uses_up_its_own_allowance_only() -> None:
    clock = StoppedClock()
    allowance = Allowance(clock=clock, rate=2.0, burst=3)
    greedy, other = (Source("br100", IPv4Address(f"10.0.0.{end}")) for end in (2, 3))
    assert [allowance.take(greedy) for _ in range(5)] == [True, True, True, False, False]
    assert allowance.take(other)
    assert allowance.take(Source("br101", greedy.address))
    clock.ms += 1000
    assert [allowance.take(greedy) for _ in range(3)] == [True, True, False]


def test_sources_that_are_quiet_are_forgotten() -> None:
    clock = StoppedClock()
    allowance = Allowance(clock=clock)
    for number in range(3 * door.AT_ONCE):
        assert allowance.take(Source("br100", IPv4Address(number)))
        clock.ms += 1000
    assert len(allowance.taken) <= door.AT_ONCE + 1


# --- guests ----------------------------------------------------------------------------------------------


class Told:
    """Stands for the bus and the two roles behind it."""

    def __init__(self, guest: Guest) -> None:
        self.guest, self.asked = guest, list[type]()

    async def call(self, ctx: Context, message: Any, *, timeout: float) -> Any:
        self.asked.append(type(message))
        answers: dict[Any, Any] = {
            FindLease: next((nic for nic in self.guest.nics if nic.address == getattr(message, "address", None)), None),
            ListAddresses: list(self.guest.nics),
            GetGuestMetadata: self.guest.told,
        }
        return answers[type(message)]


async def test_what_changes_is_seen_within_two_seconds_and_whose_address_it_is_at_once() -> None:
    clock, bus = StoppedClock(), Told(make_guest(second_nic()))
    guests, source = Guests(bus=bus, clock=clock), Source("br100", IPv4Address("10.0.0.3"))  # type: ignore[arg-type]
    assert (await guests.find(CTX, source)).nics == bus.guest.nics
    changed = Guest(make_guest(metadata={"role": "web"}).told, bus.guest.nics)
    bus.guest = changed
    assert (await guests.find(CTX, source)).told.instance.metadata["role"] == "db"
    clock.ms += 2000
    assert (await guests.find(CTX, source)).told.instance.metadata["role"] == "web"
    assert bus.asked.count(FindLease) == 3
    bus.guest = Guest(changed.told, ())
    with pytest.raises(NotFound):
        await guests.find(CTX, source)


async def test_an_instance_without_an_address_has_nothing_to_see() -> None:
    guests = Guests(bus=Told(Guest(make_guest().told, ())), clock=StoppedClock())  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="no address yet"):
        await guests.get(CTX, instance_id(42))


# --- the door --------------------------------------------------------------------------------------------


def anybody(source: Source) -> bool:
    return True


class Entrance:
    """A door on loopback, whose sources are all of the bridge `lo`."""

    def __init__(self, *, lifetime: float = 30.0, burst: int = door.BURST) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.door = Door(
            asyncio.Protocol, allowance=Allowance(clock=StoppedClock(), burst=burst), admits=anybody, lifetime=lifetime
        )
        self.clients: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def enter(self, source: str = "127.0.0.1") -> asyncio.StreamReader:
        self.clients.append(await asyncio.open_connection(*self.listener.getsockname(), local_addr=(source, 0)))
        return self.clients[-1][0]

    async def leave(self) -> None:
        for _, writer in self.clients:
            writer.transport.abort()
        self.listener.close()


@pytest.fixture
async def entrance() -> AsyncIterator[Entrance]:
    entrance = Entrance()
    async with entrance.door.open(entrance.listener):
        yield entrance
        await entrance.leave()


async def ended(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of a connection on which nothing comes."""
    async with asyncio.timeout(10):
        try:
            return await reader.read(1) == b""
        except ConnectionResetError:
            return True


async def test_a_guest_has_so_many_connections_and_no_more(entrance: Entrance) -> None:
    for _ in range(door.PER_GUEST):
        await entrance.enter()
    assert await ended(await entrance.enter())
    await entrance.enter("127.0.0.2")
    await until(lambda: len(entrance.door.inside) == door.PER_GUEST + 1)
    assert set(entrance.door.inside.values()) == {
        Source("lo", IPv4Address("127.0.0.1")),
        Source("lo", IPv4Address("127.0.0.2")),
    }
    entrance.clients[0][1].transport.abort()
    await until(lambda: any(each.is_closing() for each in entrance.door.inside))
    again = await entrance.enter()
    await until(lambda: len(entrance.door.inside) == door.PER_GUEST + 1)
    assert not again.at_eof()


async def test_a_client_that_says_nothing_is_cut() -> None:
    entrance = Entrance(lifetime=0.05)
    async with entrance.door.open(entrance.listener):
        assert await ended(await entrance.enter())
        await entrance.leave()


async def test_a_guest_that_connects_again_and_again_is_turned_away() -> None:
    entrance = Entrance(burst=3)
    async with entrance.door.open(entrance.listener):
        for _ in range(3):
            await entrance.enter()
            entrance.clients[-1][1].transport.abort()
        assert await ended(await entrance.enter())
        await entrance.enter("127.0.0.2")
        await until(lambda: Source("lo", IPv4Address("127.0.0.2")) in entrance.door.inside.values())
        await entrance.leave()


async def test_who_comes_by_no_bridge_is_not_let_in() -> None:
    entrance = Entrance()
    entrance.door.admits = door.by_a_bridge
    async with entrance.door.open(entrance.listener):
        assert await ended(await entrance.enter())
        assert entrance.door.inside == {}
        await entrance.leave()


def test_disks_of_the_flavor_are_told_by_ec2s_names() -> None:
    """cloud-init mounts the one and swaps to the other."""
    flavor = Flavor(name="m1.disks", vcpus=1, memory_mb=512, root_gb=0, ephemeral_gb=1, swap_mb=64)
    assert flavor.devices == {"ephemeral0": "vdb", "swap": "vdc"}
    assert flavor.model_copy(update={"ephemeral_gb": 0}).devices == {"swap": "vdb"}
    guest = Guest(make_told(make_instance(flavor=flavor)), (make_lease(make_order()),))
    told = find(ec2.root(guest, tags=False), ["latest", "meta-data", "block-device-mapping"])
    assert dict(leaves(told, "")).keys() == {"/ami", "/root", "/ephemeral0", "/swap"}
