"""POST /instances through all five roles on fakes, and back."""

from __future__ import annotations

import asyncio
import base64
import json
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from launcher.models import PowerState, Quotas
from tests.flow.house import House, Json
from tests.waiting import eventually

STEPS = ["networking", "bridging", "imaging", "injecting", "filtering", "spawning"]


async def events_of(house: House, instance_id: str) -> list[Json]:
    """The event log of an instance, as the stream shows it."""
    path = f"/events?instance_id={instance_id}&follow=false"
    async with house.http.get(path) as response:
        lines = (await response.text()).splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


async def test_a_launch_ends_in_a_running_machine(house: House) -> None:
    made = await house.launch(name="vm 1", key_name=None, metadata={"purpose": "test"})
    assert made["status"] == "BUILD"
    active = await house.until(made["id"], "ACTIVE")
    assert active["host"] == "node-1"
    assert active["addresses"] == ["10.0.0.2"]
    assert active["hostname"] == "vm-1"
    assert active["task_state"] is None
    assert active["security_groups"] == ["default"]
    assert active["metadata"] == {"purpose": "test"}
    assert active["launched_ms"] >= active["created_ms"]
    assert [domain.instance_id for domain in house.virt.domains.values()] == [made["id"]]


async def test_every_step_is_an_event_in_order(house: House) -> None:
    made = await house.launch()
    await house.until(made["id"], "ACTIVE")
    events = await events_of(house, made["id"])
    assert [event["task_state"] for event in events] == ["scheduling", *STEPS, None]
    assert [event["at_ms"] for event in events] == sorted(event["at_ms"] for event in events)
    assert events[-1]["vm_state"] == "active"


async def test_the_trace_goes_through_the_roles_in_order(house: House) -> None:
    parent = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    body = {"image": "ami-tiny", "flavor": "m1.tiny"}
    made = (await house.ask("POST", "/instances", body, status=202, headers=parent))["instances"][0]
    await house.until(made["id"], "ACTIVE")

    async def look() -> list[Json] | None:
        spans: list[Json] = (await house.ask("GET", f"/instances/{made['id']}/trace", status=200))["spans"]
        return spans if len(spans) >= 11 else None

    spans = await eventually(look, what="all spans")
    assert {span["trace_id"] for span in spans} == {"a" * 32}
    hops = [span["role"] for span in spans if span["kind"] != "step"]
    assert hops == ["api", "controller", "scheduler", "compute", "network"]
    assert [span["name"] for span in spans if span["kind"] == "step"] == STEPS
    by_id = {span["span_id"]: span for span in spans}
    roots = [span for span in spans if span["parent_id"] not in by_id]
    assert [(root["role"], root["parent_id"]) for root in roots] == [("api", "b" * 16)]
    network = next(span for span in spans if span["role"] == "network")
    assert by_id[network["parent_id"]]["name"] == "networking"
    for span in spans:
        assert (span["queued_ms"] or span["start_ms"]) <= span["start_ms"] <= span["end_ms"]


async def test_terminate_leaves_nothing(house: House) -> None:
    made = await house.launch()
    await house.until(made["id"], "ACTIVE")
    assert len(house.leftovers()) == 5
    await house.ask("DELETE", f"/instances/{made['id']}", status=202)
    gone = await house.until(made["id"], "DELETED")
    assert gone["addresses"] == []
    assert house.leftovers() == []
    assert (await house.ask("GET", "/instances", status=200))["instances"] == []
    await house.ask("DELETE", f"/instances/{made['id']}", status=202)


@pytest.mark.parametrize("step", ["bridging", "imaging", "injecting", "filtering", "spawning"])
async def test_a_step_that_fails_for_good_ends_in_an_error_that_names_it(house: House, step: str) -> None:
    house.break_step(step)
    made = await house.launch()
    failed = await house.until(made["id"], "ERROR")
    assert failed["fault"]["step"] == step
    assert failed["fault"]["message"]
    assert failed["fault"]["request_id"]
    assert house.leftovers() == []
    await house.ask("DELETE", f"/instances/{made['id']}", status=202)
    await house.until(made["id"], "DELETED")


async def test_a_step_that_fails_once_is_tried_again(house: House) -> None:
    house.break_step("spawning", times=1)
    made = await house.launch()
    await house.until(made["id"], "ACTIVE")
    messages = [event["message"] for event in await events_of(house, made["id"])]
    assert sum("trying again" in message for message in messages) == 1


async def test_no_address_left_is_an_error_of_networking(tmp_path: Path) -> None:
    async with House(tmp_path, cidr=IPv4Network("10.0.0.0/30")).open() as house:
        first = await house.launch()
        await house.until(first["id"], "ACTIVE")
        second = await house.launch()
        fault = (await house.until(second["id"], "ERROR"))["fault"]
        assert (fault["code"], fault["step"]) == ("no_more_fixed_ips", "networking")
        await house.ask("DELETE", f"/instances/{first['id']}", status=202)
        await house.until(first["id"], "DELETED")
        third = await house.launch()
        await house.until(third["id"], "ACTIVE")


async def test_a_small_network_takes_as_many_as_it_has_addresses_and_goes_on_when_one_is_free(tmp_path: Path) -> None:
    async with House(tmp_path, cidr=IPv4Network("10.0.0.0/29")).open() as house:
        made = [await house.launch() for _ in range(8)]

        async def at_rest() -> list[Json] | None:
            found = [await house.ask("GET", f"/instances/{each['id']}", status=200) for each in made]
            return found if {each["status"] for each in found} <= {"ACTIVE", "ERROR"} else None

        found = await eventually(at_rest, what="all at rest")
        active = [each for each in found if each["status"] == "ACTIVE"]
        assert {each["addresses"][0] for each in active} == {f"10.0.0.{number}" for number in range(2, 7)}
        assert len(house.network.leases["br100"]) == 5
        faults = [each["fault"] for each in found if each["status"] == "ERROR"]
        assert [(fault["code"], fault["step"]) for fault in faults] == [("no_more_fixed_ips", "networking")] * 3
        assert {fault["message"] for fault in faults} == {"no free address in network default (10.0.0.0/29, 5 usable)"}
        await house.ask("DELETE", f"/instances/{active[2]['id']}", status=202)
        await house.until(active[2]["id"], "DELETED")
        last = await house.launch()
        assert (await house.until(last["id"], "ACTIVE"))["addresses"] == active[2]["addresses"]


async def test_count_makes_as_many_with_names_and_one_reservation(house: House) -> None:
    body = {"image": "ami-tiny", "flavor": "m1.tiny", "name": "web", "count": 3}
    made = (await house.ask("POST", "/instances", body, status=202))["instances"]
    assert [instance["name"] for instance in made] == ["web-1", "web-2", "web-3"]
    assert len({nic["mac"] for instance in made for nic in instance["nics"]}) == 3
    assert len({instance["reservation_id"] for instance in made}) == 1
    assert [instance["launch_index"] for instance in made] == [0, 1, 2]
    for instance in made:
        await house.until(instance["id"], "ACTIVE")


async def test_fifty_posts_at_the_quotas_edge_take_exactly_what_is_left(tmp_path: Path) -> None:
    async with House(tmp_path, quotas=Quotas(instances=7)).open() as house:
        body = {"image": "ami-tiny", "flavor": "m1.tiny"}
        answers = await asyncio.gather(*(house.ask("POST", "/instances", body) for _ in range(50)))
        refused = [answer for answer in answers if "instances" not in answer]
        assert len(refused) == 43
        assert {answer["code"] for answer in refused} == {"quota_exceeded"}
        assert "7 of 7 in use" in refused[-1]["detail"]
        made = [answer["instances"][0]["id"] for answer in answers if "instances" in answer]
        listed = await house.ask("GET", "/instances", status=200)
        assert sorted(each["id"] for each in listed["instances"]) == sorted(made)
        assert len(set(made)) == 7
        for instance_id in made:
            await house.until(instance_id, "ACTIVE")
        await house.ask("DELETE", f"/instances/{made[0]}", status=202)
        await house.until(made[0], "DELETED")
        again = await asyncio.gather(*(house.ask("POST", "/instances", body) for _ in range(10)))
        assert sum("instances" in answer for answer in again) == 1


@pytest.mark.parametrize(("quota", "most"), [("cores", 11), ("memory_mb", 5 * 512 + 511)])
async def test_fifty_posts_for_several_take_no_more_than_any_quota(tmp_path: Path, quota: str, most: int) -> None:
    async with House(tmp_path, quotas=Quotas(instances=1000).model_copy(update={quota: most})).open() as house:
        body = {"image": "ami-tiny", "flavor": "m1.tiny", "min_count": 1, "max_count": 3}
        answers = await asyncio.gather(*(house.ask("POST", "/instances", body) for _ in range(50)))
        made = [each["id"] for answer in answers for each in answer.get("instances", ())]
        assert len(made) == len(set(made)) == {"cores": 11, "memory_mb": 5}[quota]
        assert {answer["code"] for answer in answers if "instances" not in answer} == {"quota_exceeded"}


async def test_min_count_is_all_or_nothing_and_max_count_as_many_as_fit(tmp_path: Path) -> None:
    async with House(tmp_path, quotas=Quotas(instances=3)).open() as house:
        body = {"image": "ami-tiny", "flavor": "m1.tiny"}
        await house.ask("POST", "/instances", {**body, "min_count": 4, "max_count": 9}, status=403)
        assert (await house.ask("GET", "/instances", status=200))["instances"] == []
        made = (await house.ask("POST", "/instances", {**body, "min_count": 2, "max_count": 9}, status=202))[
            "instances"
        ]
        assert len(made) == 3


async def test_an_idempotency_key_returns_the_same_instances(house: House) -> None:
    body, headers = {"image": "ami-tiny", "flavor": "m1.tiny", "count": 2}, {"Idempotency-Key": "abc"}
    asked = [house.ask("POST", "/instances", body, status=202, headers=headers) for _ in range(20)]
    made = [[instance["id"] for instance in answer["instances"]] for answer in await asyncio.gather(*asked)]
    assert all(ids == made[0] for ids in made)
    assert len((await house.ask("GET", "/instances", status=200))["instances"]) == 2
    assert {each["id"] for each in (await house.ask("GET", "/instances"))["instances"]} == set(made[0])
    other = await house.ask("POST", "/instances", {**body, "count": 1}, status=409, headers=headers)
    assert other["field"] == "Idempotency-Key"


async def test_user_data_and_the_key_reach_the_guests_metadata(house: House) -> None:
    key = await house.ask("POST", "/keypairs", {"name": "test"}, status=201)
    encoded = base64.b64encode(b"#!/bin/sh\n").decode()
    made = await house.launch(key_name="test", user_data=encoded)
    await house.until(made["id"], "ACTIVE")
    assert house.order_of(made).public_key == key["public_key"]


async def test_a_guest_that_powers_itself_off_is_stopped(house: House) -> None:
    made = await house.launch()
    await house.until(made["id"], "ACTIVE")
    house.virt.watcher(made["id"], PowerState.STOPPED, "shutdown")
    await house.until(made["id"], "STOPPED")
    await house.ask("DELETE", f"/instances/{made['id']}", status=202)
    await house.until(made["id"], "DELETED")
    assert house.leftovers() == []
