"""An instance gets another root, for good or for a while; whatever is cut off, what a guest has written to stays."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from launcher.life import Action
from launcher.models import POWERED_OFF, VmState
from tests.flow.house import House, Json
from tests.flow.test_images import upload
from tests.flow.test_life import Stand, act, brought, done, sound


async def with_key(house: House, name: str) -> str:
    return str((await house.ask("POST", "/keypairs", {"name": name}, status=201))["public_key"])


async def test_a_rebuilt_instance_has_another_image_and_key_and_what_else_it_had(house: House) -> None:
    await upload(house, "other", b"other" * 1000)
    key = await with_key(house, "new")
    made = await brought(house, VmState.ACTIVE)
    before = house.images.disks[made["id"]]
    await act(house, made, Action.REBUILD, image="other", key_name="new")
    now = await done(house, made, VmState.ACTIVE)
    assert (now["image_name"], now["key_name"], now["generation"]) == ("other", "new", made["generation"] + 1)
    assert all(now[same] == made[same] for same in ("id", "addresses", "nics", "host", "flavor", "hostname"))
    after = house.images.disks[made["id"]]
    assert (after is not before, after.public_key, after.disks.kernel) == (True, key, None)
    await sound(house)


@pytest.mark.parametrize(
    ("action", "kind"), [(Action.REBUILD, "disks"), (Action.RESCUE, "rescues"), (Action.UNRESCUE, "disks")]
)
async def test_a_disk_that_a_guest_may_have_written_to_is_not_made_again(
    tmp_path: Path, action: Action, kind: str
) -> None:
    """The launcher dies between the start of the machine and its last word."""
    first = House(tmp_path)
    async with first.open():
        made = await brought(first, VmState.RESCUED if action is Action.UNRESCUE else VmState.ACTIVE)
        stand = Stand(first, "spawned")
        await act(first, made, action)
        await asyncio.wait_for(stand.reached.wait(), 5)
        begun: Json = {**getattr(first.images, kind)}
        stand.cut = True
        stand.open.set()
    first.virt.fault = None
    async with first.successor().open() as second:
        await done(second, made, VmState.RESCUED if action is Action.RESCUE else VmState.ACTIVE)
        assert getattr(second.images, kind)[made["id"]] is begun[made["id"]]
        await sound(second)


async def test_a_rescue_leaves_the_own_root_alone(house: House) -> None:
    made = await brought(house, VmState.ACTIVE)
    own = house.images.disks[made["id"]]
    for _ in range(2):
        await act(house, made, Action.RESCUE)
        assert (await done(house, made, VmState.RESCUED))["status"] == "RESCUED"
        other = house.images.rescues[made["id"]].disks
        assert (other.rescued, other.root != own.disks.root) == (own.disks.root, True)
        await sound(house)
        await act(house, made, Action.UNRESCUE)
        now = await done(house, made, VmState.ACTIVE)
        assert (house.images.rescues, house.images.disks[made["id"]]) == ({}, own)
    assert now["image_id"] == made["image_id"]


async def test_a_rescued_guest_that_powers_itself_off_is_stopped_and_starts_from_its_own(house: House) -> None:
    made = await brought(house, VmState.RESCUED)
    house.virt.end(made["id"], POWERED_OFF)
    await done(house, made, VmState.STOPPED)
    await sound(house)
    await act(house, made, Action.START)
    await done(house, made, VmState.ACTIVE)
    assert house.images.rescues == {}


@pytest.mark.parametrize("action", [Action.REBUILD, Action.RESCUE])
async def test_what_cannot_be_booted_is_refused_while_the_old_disk_is_there(house: House, action: Action) -> None:
    for name, kind in (("kernel", "kernel"), ("large", "machine")):
        await upload(house, name, b"large" * 1000, kind=kind)
    await house.ask("PATCH", "/images/large", {"min_memory_mb": 10_000}, status=200)
    made = await brought(house, VmState.ACTIVE)
    for image, status in (("none", 404), ("kernel", 400), ("large", 400)):
        await act(house, made, action, image=image, status=status)
    if action is Action.REBUILD:
        await act(house, made, action, key_name="none", status=404)
    assert await house.ask("GET", f"/instances/{made['id']}") == made
