"""What may be changed of an instance beside its state: attributes, flavor, protection, lock."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession

from launcher.life import Action
from launcher.models import Quotas, VmState
from tests.flow.house import House, Json
from tests.flow.tenants import people
from tests.flow.test_life import act, brought, done, sound
from tests.waiting import until

USER_DATA = base64.b64encode(b"#!/bin/sh").decode()


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[House]:
    """A house whose projects have room for three vCPUs."""
    async with House(tmp_path, quotas=Quotas(cores=3, memory_mb=5000)).open() as house:
        yield house


async def change(house: House, instance: Json, *, status: int = 200, **body: object) -> Json:
    return await house.ask("PATCH", f"/instances/{instance['id']}", body, status=status)


async def test_a_name_and_what_a_power_off_means_change_at_any_time(house: House) -> None:
    made = await brought(house, VmState.ACTIVE)
    now = await change(house, made, name="other", shutdown_behaviour="terminate", protected=True)
    assert (now["name"], now["shutdown_behaviour"], now["protected"]) == ("other", "terminate", True)
    assert {**now, "name": made["name"], "shutdown_behaviour": "stop", "protected": False} == made
    assert await change(house, made) == now


async def test_a_protected_one_is_not_deleted_until_that_is_taken_back(house: House) -> None:
    made = await house.launch(protected=True)
    for _ in range(2):
        refusal = await house.ask("DELETE", f"/instances/{made['id']}", status=409)
        assert refusal["code"] == "protected"
    await change(house, made, protected=False)
    await house.ask("DELETE", f"/instances/{made['id']}", status=202)
    await house.until(made["id"], "DELETED")


@pytest.mark.parametrize("protected", [False, True])
async def test_a_guest_that_powers_off_ends_its_instance_where_that_was_wished_for(
    house: House, protected: bool
) -> None:
    """Only its own power-off does: no stop, no reboot, and no machine that dies."""
    made = await house.launch(shutdown_behaviour="terminate", protected=protected)
    await house.until(made["id"], "ACTIVE")
    for action, end in (
        (Action.REBOOT, VmState.ACTIVE),
        (Action.STOP, VmState.STOPPED),
        (Action.START, VmState.ACTIVE),
    ):
        await act(house, made, action)
        await done(house, made, end)
    house.virt.end(made["id"], "failed")
    await done(house, made, VmState.STOPPED)
    await act(house, made, Action.START)
    await done(house, made, VmState.ACTIVE)
    house.virt.end(made["id"], "shutdown")
    await house.until(made["id"], "DELETED")
    await until(lambda: not house.leftovers())


async def test_flavor_and_user_data_change_while_it_is_stopped_only(house: House) -> None:
    made = await brought(house, VmState.ACTIVE)
    for body in ({"flavor": "m1.small"}, {"user_data": USER_DATA}):
        refusal = await change(house, made, status=409, **body)
        assert (refusal["code"], "it must be stopped" in refusal["detail"]) == ("wrong_state", True)
    await act(house, made, Action.STOP)
    await done(house, made, VmState.STOPPED)
    now = await change(house, made, flavor="m1.small", user_data=USER_DATA)
    assert now["flavor"]["name"] == "m1.small"
    await until(lambda: house.compute.holdings.held[made["id"]].flavor.name == "m1.small")
    await act(house, made, Action.START)
    await done(house, made, VmState.ACTIVE)
    assert house.order_of(made).flavor.memory_mb == 2048
    await sound(house)


async def test_a_resize_takes_of_the_quota_what_it_needs_more_and_gives_back_what_it_needs_less(small: House) -> None:
    first, second = [await brought(small, VmState.STOPPED) for _ in range(2)]
    await change(small, first, flavor="m1.medium")
    refusal = await change(small, second, flavor="m1.medium", status=403)
    assert (refusal["code"], "cores" in refusal["detail"]) == ("quota_exceeded", True)
    assert (await small.ask("GET", f"/instances/{second['id']}"))["flavor"]["name"] == "m1.tiny"
    await small.ask("DELETE", f"/instances/{first['id']}", status=202)
    await small.until(first["id"], "DELETED")
    await change(small, second, flavor="m1.medium")


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"flavor": "m9.none"}, 404, "m9.none"),
        ({"flavor": "m1.tiny"}, 400, "none shrinks"),
        ({"user_data": "%"}, 400, "user_data"),
    ],
)
async def test_what_cannot_be_changes_nothing(house: House, body: Json, status: int, word: str) -> None:
    made = await brought(house, VmState.STOPPED)
    before = await change(house, made, flavor="m1.small")
    refusal = await change(house, made, status=status, name="other", **body)
    assert word in refusal["detail"]
    assert await house.ask("GET", f"/instances/{made['id']}") == before


async def test_a_locked_one_obeys_administrators_only(house: House) -> None:
    async with people(house) as sessions:
        alice = sessions["alice"]
        made = (await ask(alice, "POST", "/instances", {"image": "ami-tiny", "flavor": "m1.tiny"}, 202))["instances"][0]
        await house.until(made["id"], "ACTIVE")
        one = f"/instances/{made['id']}"
        for by_admin in (False, True):
            locked = await (
                house.ask("PUT", f"{one}/lock") if by_admin else ask(alice, "PUT", f"{one}/lock", None, 200)
            )
            assert locked["locked"]
            for method, path, body in (
                ("POST", f"{one}/stop", {}),
                ("DELETE", one, None),
                ("PATCH", one, {"name": "x"}),
                ("PUT", f"{one}/security-groups", {"security_groups": []}),
            ):
                assert (await ask(alice, method, path, body, 409))["code"] == "locked"
            await ask(alice, "DELETE", f"{one}/lock", None, 403 if by_admin else 200)
        await house.ask("POST", f"{one}/stop", {}, status=202)
        await done(house, made, VmState.STOPPED)
        await house.ask("DELETE", f"{one}/lock", status=200)
        await ask(alice, "POST", f"{one}/start", {}, 202)


async def ask(session: ClientSession, method: str, path: str, body: object, status: int) -> Json:
    async with session.request(method, path, json=body) as response:
        assert response.status == status, await response.text()
        found: Json = await response.json()
        return found
