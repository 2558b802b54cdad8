"""Images of instances: what they are, cut off at every point, overtaken, refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from launcher.errors import HypervisorBusy
from launcher.life import OPERATIONS, Action
from launcher.messages.images import EndUpload, OpenSnapshot
from launcher.models import InstanceId, InstanceRef, Quotas, VmState
from tests.flow.house import House, Json
from tests.flow.test_image_hosts import Far, far
from tests.flow.test_images import upload
from tests.flow.test_life import Stand, act, brought, done, sound
from tests.waiting import eventually, until

__all__ = ["far"]


async def image_of(house: House, instance: Json, name: str = "copy", *, status: int = 201) -> Json:
    """The image; or what it is refused with."""
    answer = await house.ask("POST", "/images", {"name": name, "source": f"instance:{instance['id']}"}, status=status)
    found: Json = answer["images"][0] if status == 201 else answer
    return found


async def image_until(house: House, image: Json, state: str) -> Json:
    async def look() -> Json | None:
        found = await house.ask("GET", f"/images/{image['id']}", status=200)
        return found if found["state"] == state else None

    return await eventually(look, what=f"{image['name']} becoming {state}")


def nothing_arriving(house: House) -> None:
    assert list((house.state / "vault" / "arriving").iterdir()) == []


@pytest.mark.parametrize("state", OPERATIONS[Action.SNAPSHOT].allowed)
async def test_an_image_boots_as_its_instance_did_and_the_instance_stays_what_it_is(
    house: House, state: VmState
) -> None:
    made = await brought(house, state)
    image = await image_of(house, made)
    assert (image["state"], image["public"], image["project_id"]) == ("saving", False, made["project_id"])
    found = await image_until(house, image, "active")
    source = await house.ask("GET", f"/images/{made['image_id']}")
    assert [found[key] for key in ("kernel_id", "ramdisk_id")] == [source[key] for key in ("kernel_id", "ramdisk_id")]
    assert found["min_disk_gb"] == 1
    assert house.vault.path(found["sha256"]).read_text() == "what instance-00000001 has on its disk\n"
    assert await done(house, made, state) == {
        **made,
        "state_since_ms": (await done(house, made, state))["state_since_ms"],
    }
    assert house.virt.copied == ([made["id"]] if state in (VmState.ACTIVE, VmState.PAUSED) else [])
    nothing_arriving(house)
    await sound(house)
    another = await house.launch(image="copy")
    assert (await house.until(another["id"], "ACTIVE"))["image_id"] == found["id"]


async def test_one_at_a_time_and_nothing_else_meanwhile(house: House) -> None:
    made = await brought(house, VmState.ACTIVE)
    stand = Stand(house, "copy")
    image = await image_of(house, made)
    await asyncio.wait_for(stand.reached.wait(), 5)
    assert (await house.ask("GET", f"/instances/{made['id']}"))["task_state"] == "image_snapshot"
    for refusal in (await image_of(house, made, status=409), await act(house, made, Action.STOP, status=409)):
        assert refusal["code"] == "wrong_state"
    assert len((await house.ask("GET", "/images"))["images"]) == 4, "what was refused left no image"
    stand.open.set()
    await image_until(house, image, "active")


@pytest.mark.parametrize("point", ["copy", "copied"])
async def test_a_launcher_that_ends_in_the_middle_goes_on_with_it(tmp_path: Path, point: str) -> None:
    first = House(tmp_path)
    async with first.open():
        made = await brought(first, VmState.ACTIVE)
        stand = Stand(first, point)
        image = await image_of(first, made)
        await asyncio.wait_for(stand.reached.wait(), 5)
        stand.cut = True
        stand.open.set()
    first.virt.fault = None
    async with first.successor().open() as second:
        await image_until(second, image, "active")
        await done(second, made, VmState.ACTIVE)
        nothing_arriving(second)
        await sound(second)


async def test_an_image_that_has_come_is_not_brought_again(house: House) -> None:
    """The host died between its last byte and its last word."""
    made = await brought(house, VmState.STOPPED)
    house.images.before = _refuse_to_save
    image = await image_of(house, made)
    ctx, opened = house.compute.own_context(), OpenSnapshot(instance_id=made["id"], generation=made["generation"])
    ctx = ctx.model_copy(update={"project_id": made["project_id"]})
    ticket = await house.bus.call(ctx, opened)
    assert ticket is not None
    arrival = await house.vault.open_arrival(ticket.image_id, resume=False)
    await arrival.append(b"all of it")
    await house.bus.call(ctx, EndUpload(image_id=image["id"], received=await arrival.finish()))
    await arrival.close()
    await done(house, made, VmState.STOPPED)
    assert (await image_until(house, image, "active"))["size"] == 9
    nothing_arriving(house)


@pytest.mark.parametrize("point", ["copy", "copied"])
async def test_a_delete_wins_over_it(house: House, point: str) -> None:
    made = await brought(house, VmState.ACTIVE)
    stand = Stand(house, point)
    image = await image_of(house, made)
    await asyncio.wait_for(stand.reached.wait(), 5)
    await house.ask("DELETE", f"/instances/{made['id']}", status=202)
    await house.until(made["id"], "DELETED")  # it does not wait for the copy, which stands there for ever
    assert "deleted meanwhile" in (await image_until(house, image, "error"))["reason"]
    await until(lambda: not house.leftovers())
    await house.ask("DELETE", f"/images/{image['id']}", status=200)
    nothing_arriving(house)
    await sound(house)


async def test_what_fails_for_good_is_the_images_error_and_the_instance_runs_on(house: House) -> None:
    made = await brought(house, VmState.ACTIVE)

    async def fail(point: str, instance_id: InstanceId) -> None:
        if point == "copy":
            raise HypervisorBusy("not now")

    house.virt.fault = fail
    image = await image_of(house, made)
    assert (await image_until(house, image, "error"))["reason"] == "not now"
    found = await done(house, made, VmState.ACTIVE)
    assert (found["fault"]["step"], found["generation"]) == ("image_snapshot", made["generation"])
    house.virt.fault = None
    await image_until(house, await image_of(house, made, "again"), "active")
    assert (await done(house, made, VmState.ACTIVE))["fault"] is None
    await sound(house)


async def test_an_image_that_the_gate_refuses_is_in_error(house: House) -> None:
    house.controller.images.imports.most = 10
    made = await brought(house, VmState.ACTIVE)
    image = await image_of(house, made)
    assert "at most 10 are allowed" in (await image_until(house, image, "error"))["reason"]
    assert (await done(house, made, VmState.ACTIVE))["fault"]["code"] == "bad_image"
    await until(lambda: list((house.state / "vault" / "arriving").iterdir()) == [], within=15)


async def test_the_quota_of_images_counts_them(tmp_path: Path) -> None:
    async with House(tmp_path, quotas=Quotas(images=1)).open() as house:
        made = await brought(house, VmState.ACTIVE)
        await image_until(house, await image_of(house, made), "active")
        await done(house, made, VmState.ACTIVE)
        assert (await image_of(house, made, "more", status=403))["code"] == "quota_exceeded"
        assert (await house.ask("GET", f"/instances/{made['id']}"))["task_state"] is None


async def test_nothing_is_said_of_how_it_boots(house: House) -> None:
    made = await brought(house, VmState.STOPPED)
    body = {"name": "copy", "source": f"instance:{made['id']}", "kernel_id": "x"}
    assert (await house.ask("POST", "/images", body, status=400))["field"] == "kernel_id"


async def test_an_image_that_nothing_could_boot_is_refused(house: House) -> None:
    kernel = await upload(house, "kernel", kind="kernel")
    await upload(house, "own", b"own disk" * 100, kernel_id=kernel["id"])
    made = await house.until((await house.launch(image="own"))["id"], "ACTIVE")
    for image in ("own", "kernel"):
        await house.ask("DELETE", f"/images/{image}", status=200)
    assert "which was deleted" in (await image_of(house, made, status=409))["detail"]


async def test_a_far_host_brings_it_by_the_controllers_door(far: Far) -> None:
    content = b"far disk" * 100_000
    await upload(far.house, content=content)
    made = await far.house.until((await far.house.launch(image="mine"))["id"], "ACTIVE", within=60)
    await act(far.house, made, Action.STOP)
    await done(far.house, made, VmState.STOPPED)
    image = await image_until(far.house, await image_of(far.house, made), "active")
    assert (image["format"], image["virtual_size"]) == ("qcow2", -(-len(content) // 512) * 512)
    assert not list(far.store.path.glob("instance-*/image"))


async def _refuse_to_save(verb: str, order: InstanceRef) -> None:
    if verb == "save_image":
        raise HypervisorBusy("not yet")
