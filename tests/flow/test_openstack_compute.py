"""Nova's door: actions, the rooms below a server, and what each microversion has."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from launcher.services.api.openstack.actions import OLD_CONSOLES, REFUSED
from tests.flow import openstack_client
from tests.flow.house import House, Json
from tests.flow.openstack_client import get, logged_in
from tests.flow.test_floating_ips import POOLS
from tests.waiting import eventually

NOVA = "/compute/v2.1"
GOLDEN = Path(__file__).parents[1] / "golden" / "openstack"
WRITE = os.environ.get("LAUNCHER_WRITE_GOLDEN") == "1"
VERSIONS = ("2.1", "2.3", "2.9", "2.16", "2.19", "2.26", "2.47", "2.63", "2.71", "2.73", "2.79")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path, pools=POOLS).open() as opened:
        yield opened


@pytest.fixture
async def http(house: House) -> AsyncIterator[ClientSession]:
    async with logged_in(house) as session:
        yield session


async def send(
    http: ClientSession, method: str, path: str, body: object = None, *, status: int, version: str = "2.1"
) -> Any:
    return await openstack_client.send(http, method, f"{NOVA}{path}", body, status=status, version=f"compute {version}")


async def act(http: ClientSession, server: str, action: Json, *, status: int = 202, version: str = "2.1") -> Any:
    return await send(http, "POST", f"/servers/{server}/action", action, status=status, version=version)


async def settled(house: House, instance: str, state: str) -> None:
    """It is so, and nothing is under way."""

    async def look() -> bool:
        found = await house.ask("GET", f"/instances/{instance}", status=200)
        return (found["status"], found["task_state"]) == (state, None)

    await eventually(look, what=f"{instance} is {state}")


async def test_a_servers_life_by_its_actions(house: House, http: ClientSession) -> None:
    made = (await house.launch(name="vm1"))["id"]
    await house.until(made, "ACTIVE")
    for action, state in (
        ({"pause": None}, "PAUSED"),
        ({"unpause": None}, "ACTIVE"),
        ({"suspend": None}, "SUSPENDED"),
        ({"resume": None}, "ACTIVE"),
        ({"reboot": {"type": "HARD"}}, "ACTIVE"),
        ({"os-stop": None}, "STOPPED"),
    ):
        await act(http, made, action)
        await settled(house, made, state)
    await act(http, made, {"os-stop": None}, status=409)
    assert (await send(http, "GET", f"/servers/{made}", status=200))["server"]["status"] == "SHUTOFF"
    await act(http, made, {"resize": {"flavorRef": "m1.small"}})
    await act(http, made, {"confirmResize": None}, status=409)
    await act(http, made, {"os-start": None})
    assert (await house.until(made, "ACTIVE"))["flavor"]["name"] == "m1.small"
    assert "output" in await act(http, made, {"os-getConsoleOutput": {"length": 5}}, status=200)
    actions = (await send(http, "GET", f"/servers/{made}/os-instance-actions", status=200))["instanceActions"]
    words = [each["action"] for each in actions]
    assert words == ["start", "stop", "reboot", "resume", "suspend", "unpause", "pause", "create"]
    path = f"/servers/{made}/os-instance-actions/{actions[-1]['request_id']}"
    events = (await send(http, "GET", path, status=200))["instanceAction"]["events"]
    assert [each["event"] for each in events][:2] == ["api_scheduling", "compute_networking"]


async def test_a_server_is_rebuilt_and_rescued(house: House, http: ClientSession) -> None:
    made = await house.launch(name="vm1")
    await house.until(made["id"], "ACTIVE")
    rebuild = {"rebuild": {"imageRef": made["image_id"], "name": "vm2"}}
    told = (await act(http, made["id"], rebuild))["server"]
    assert told["name"] == "vm2"
    await settled(house, made["id"], "ACTIVE")
    assert await act(http, made["id"], {"rescue": None}, status=200) == {}
    await settled(house, made["id"], "RESCUED")
    assert (await send(http, "GET", f"/servers/{made['id']}", status=200))["server"]["status"] == "RESCUE"
    await act(http, made["id"], {"unrescue": None})
    await settled(house, made["id"], "ACTIVE")
    await act(http, made["id"], {"rebuild": {"imageRef": "nowhere"}}, status=400)


async def test_an_image_of_a_server_is_told_as_its_version_tells_it(house: House, http: ClientSession) -> None:
    made = (await house.launch(name="vm1"))["id"]
    await house.until(made, "ACTIVE")
    action = {"createImage": {"name": "copy", "metadata": {"a": "b"}}}
    image = (await act(http, made, action, version="2.45"))["image_id"]

    async def active() -> Json | None:
        found = await get(http, f"/image/v2/images/{image}")
        return found if found["status"] == "active" else None

    told = await eventually(active, what="the image")
    assert (told["name"], told["a"]) == ("copy", "b")
    await settled(house, made, "ACTIVE")
    assert await act(http, made, {"createImage": {"name": "another"}}) is None


async def test_groups_and_floating_ips_by_actions_of_old_versions(house: House, http: ClientSession) -> None:
    made = (await house.launch(name="vm1"))["id"]
    await house.until(made, "ACTIVE")
    await house.ask("POST", "/security-groups", {"name": "web"}, status=201)
    address = (await house.ask("POST", "/floating-ips", {}, status=201))["address"]
    await act(http, made, {"addSecurityGroup": {"name": "web"}})
    await act(http, made, {"removeSecurityGroup": {"name": "default"}})
    await act(http, made, {"addFloatingIp": {"address": address}})
    server = (await send(http, "GET", f"/servers/{made}", status=200))["server"]
    assert server["security_groups"] == [{"name": "web"}]
    assert [each["OS-EXT-IPS:type"] for each in server["addresses"]["default"]] == ["fixed", "floating"]
    await act(http, made, {"removeFloatingIp": {"address": address}})
    await act(http, made, {"addFloatingIp": {"address": address}}, status=400, version="2.44")


async def test_a_lock_has_a_reason_since_its_version(house: House, http: ClientSession) -> None:
    made = (await house.launch(name="vm1"))["id"]
    await act(http, made, {"lock": {"locked_reason": "mine"}}, status=400, version="2.72")
    await act(http, made, {"lock": {"locked_reason": "mine"}}, version="2.73")
    told = (await send(http, "GET", f"/servers/{made}", status=200, version="2.73"))["server"]
    assert (told["locked"], told["locked_reason"]) == (True, "mine")
    assert len((await send(http, "GET", "/servers?locked=true", status=200, version="2.73"))["servers"]) == 1
    await act(http, made, {"unlock": None})
    told = (await send(http, "GET", f"/servers/{made}", status=200, version="2.73"))["server"]
    assert (told["locked"], told["locked_reason"]) == (False, None)


@pytest.mark.parametrize("name", [*REFUSED, *OLD_CONSOLES])
async def test_what_is_not_done_is_refused_with_its_reason(house: House, http: ClientSession, name: str) -> None:
    made = (await house.launch(name="vm1"))["id"]
    refused = await act(http, made, {name: {}}, status=501)
    assert len(refused["notImplemented"]["message"]) > len(name) + 10


@pytest.mark.parametrize("body", [{}, {"pause": None, "lock": None}, {"dance": None}, {"reboot": {"type": "WILD"}}])
async def test_an_action_that_is_none_is_a_bad_request(house: House, http: ClientSession, body: Json) -> None:
    made = (await house.launch(name="vm1"))["id"]
    assert "badRequest" in await act(http, made, body, status=400)


async def test_metadata_and_tags_are_kept_apart(house: House, http: ClientSession) -> None:
    made = (await house.launch(name="vm1", metadata={"a": "1"}))["id"]
    path = f"/servers/{made}"
    await send(http, "POST", f"{path}/metadata", {"metadata": {"b": "2"}}, status=200)
    await send(http, "PUT", f"{path}/metadata/a", {"meta": {"a": "3"}}, status=200)
    await send(http, "PUT", f"{path}/metadata/a", {"meta": {"c": "3"}}, status=400)
    assert (await send(http, "GET", f"{path}/metadata", status=200))["metadata"] == {"a": "3", "b": "2"}
    await send(http, "PUT", f"{path}/metadata", {"metadata": {"c": "4"}}, status=200)
    await send(http, "DELETE", f"{path}/metadata/c", status=204)
    assert (await send(http, "GET", f"{path}/metadata", status=200))["metadata"] == {}
    await send(http, "PUT", f"{path}/tags", {"tags": ["x", "y"]}, status=404)
    await send(http, "PUT", f"{path}/tags", {"tags": ["x", "y", "x"]}, status=200, version="2.26")
    await send(http, "PUT", f"{path}/tags/z", status=201, version="2.26")
    await send(http, "PUT", f"{path}/tags/a%2Cb", status=400, version="2.26")
    await send(http, "DELETE", f"{path}/tags/x", status=204, version="2.26")
    assert (await send(http, "GET", f"{path}/tags", status=200, version="2.26"))["tags"] == ["y", "z"]
    for query, count in (("tags=y,z", 1), ("tags=y,q", 0), ("tags-any=y,q", 1), ("not-tags=y", 0)):
        found = (await send(http, "GET", f"/servers?{query}", status=200, version="2.26"))["servers"]
        assert len(found) == count, query


@pytest.mark.parametrize(
    ("version", "change", "status", "word"),
    [
        ("2.18", {"description": "d"}, 400, "description"),
        ("2.19", {"description": "d"}, 202, ""),
        ("2.51", {"tags": ["t"], "networks": "auto"}, 400, "tags"),
        ("2.52", {"tags": ["t"], "networks": "auto"}, 202, ""),
        ("2.36", {"networks": "auto"}, 400, "networks"),
        ("2.37", {}, 400, "networks"),
        ("2.37", {"networks": "none"}, 400, "networks"),
        ("2.57", {"personality": [], "networks": "auto"}, 400, "personality"),
        ("2.1", {"personality": [{"path": "/etc/motd", "contents": "aGk="}]}, 202, ""),
        ("2.1", {"colour": "red"}, 400, "Additional properties are not allowed"),
        ("2.1", {"adminPass": "secret"}, 400, "adminPass"),
        ("2.74", {"host": "node-1", "networks": "auto"}, 400, "host"),
    ],
)
async def test_a_field_is_there_in_the_versions_that_have_it(
    http: ClientSession, version: str, change: Json, status: int, word: str
) -> None:
    body = {"server": {"name": "x", "imageRef": "ami-tiny", "flavorRef": "m1.tiny", **change}}
    answer = await send(http, "POST", "/servers", body, status=status, version=version)
    assert word in (answer.get("badRequest", {}).get("message", ""))


@pytest.mark.parametrize(
    ("version", "status"), [("2.80", 406), ("3.1", 406), ("2", 400), ("x.y", 400), ("latest", 200)]
)
async def test_a_version_is_one_that_is_honoured_or_refused(http: ClientSession, version: str, status: int) -> None:
    await send(http, "GET", "/servers", status=status, version=version)
    headers = {"X-OpenStack-Nova-API-Version": version}
    await get(http, f"{NOVA}/servers", status=status, headers=headers)


def masked(told: Json, house: House) -> str:
    """Without what differs from run to run."""
    text = json.dumps(told, indent=1, sort_keys=True).replace(house.url, "http://launcher")
    text = re.sub(r'"[0-9a-f]{56}"', '"HASH"', text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6}|Z)Z?", "TIME", text)
    text = re.sub(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID", text)
    text = re.sub(r'("(user|project|tenant)_id": )"[0-9a-f]{32}"', r'\1"ID"', text)
    return re.sub(r"(req|r)-[0-9a-z]+|([0-9a-f]{2}:){5}[0-9a-f]{2}", "WORD", text) + "\n"


def compare(name: str, told: Json, house: House) -> None:
    golden = GOLDEN / f"{name}.json"
    if WRITE:
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(masked(told, house))
    assert masked(told, house) == golden.read_text(), golden.name


async def test_every_answer_is_the_golden_one_of_its_version(house: House, http: ClientSession) -> None:
    made = (await house.launch(name="vm1", metadata={"a": "1"}))["id"]
    await house.until(made, "ACTIVE")
    await house.ask("POST", "/keypairs", {"name": "k", "public_key": KEY}, status=201)
    for version in VERSIONS:
        told = await send(http, "GET", f"/servers/{made}", status=200, version=version)
        compare(f"server-{version}", told, house)
    for name, path, versions in (
        ("flavor", "/flavors/m1.tiny", ("2.1", "2.55", "2.61", "2.75")),
        ("key-pair", "/os-keypairs/k", ("2.1", "2.2")),
        ("limits", "/limits", ("2.1", "2.36", "2.39", "2.57")),
        ("quota-set", "/os-quota-sets/admin", ("2.1", "2.36", "2.57")),
        ("services", "/os-services", ("2.1", "2.11", "2.53")),
        ("hypervisors", "/os-hypervisors", ("2.1", "2.53")),
        ("actions", f"/servers/{made}/os-instance-actions", ("2.1", "2.58")),
        ("interfaces", f"/servers/{made}/os-interface", ("2.1", "2.70")),
        ("diagnostics", f"/servers/{made}/diagnostics", ("2.1", "2.48")),
        ("ips", f"/servers/{made}/ips", ("2.1",)),
        ("zones", "/os-availability-zone/detail", ("2.1",)),
        ("versions", "", ("2.1",)),
    ):
        for version in versions:
            compare(f"{name}-{version}", await send(http, "GET", path, status=200, version=version), house)
    update = {"server": {"name": "vm2"}}
    for version in ("2.1", "2.75"):
        told = await send(http, "PUT", f"/servers/{made}", update, status=200, version=version)
        compare(f"server-updated-{version}", told, house)


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJvVBXXQ6XmWfbAmXxQNS3yTHWe0F0GqNQ2TuyN4nGd1 somebody"
