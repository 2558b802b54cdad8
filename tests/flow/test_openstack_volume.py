"""Cinder's and Glance's doors: volumes, snapshots, images and their bytes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.flow import openstack_client
from tests.flow.house import House, Json
from tests.flow.openstack_client import logged_in, openstack
from tests.flow.test_openstack_compute import compare
from tests.waiting import eventually

V3, V2 = "/volume/v3", "/image/v2"


@pytest.fixture
async def http(house: House) -> AsyncIterator[ClientSession]:
    async with logged_in(house) as session:
        yield session


async def send(
    http: ClientSession, method: str, path: str, body: object = None, *, status: int, version: str = "3.0"
) -> Any:
    return await openstack_client.send(http, method, path, body, status=status, version=f"volume {version}")


async def rested(http: ClientSession, path: str, status: str) -> Json:
    """A volume or a snapshot, once it has this status."""

    async def look() -> Json | None:
        (found,) = (await send(http, "GET", f"{V3}{path}", status=200)).values()
        return found if found["status"] == status else None

    return await eventually(look, what=f"{path} is {status}")


async def test_the_volume_story_by_the_openstack_command(house: House, http: ClientSession) -> None:
    await openstack(house, "server create --image ami-tiny --flavor m1.tiny --wait vm1")
    made = json.loads(await openstack(house, "volume create --size 1 --property a=b data -f json"))
    await rested(http, f"/volumes/{made['id']}", "available")
    await openstack(house, "server add volume vm1 data")
    await rested(http, f"/volumes/{made['id']}", "in-use")
    (listed,) = json.loads(await openstack(house, "volume list -f json"))
    assert (listed["Name"], listed["Size"], listed["Status"]) == ("data", 1, "in-use")
    server = json.loads(await openstack(house, "server show vm1 -f json"))
    assert [each["id"] for each in server["volumes_attached"]] == [made["id"]]
    await openstack(house, "server remove volume vm1 data")
    await rested(http, f"/volumes/{made['id']}", "available")
    await openstack(house, "volume set --size 2 data")
    await rested(http, f"/volumes/{made['id']}", "available")
    shown = json.loads(await openstack(house, "volume show data -f json"))
    assert (shown["size"], shown["properties"]) == (2, {"a": "b"})
    snapshot = json.loads(await openstack(house, "volume snapshot create --volume data monday -f json"))
    await rested(http, f"/snapshots/{snapshot['id']}", "available")
    await openstack(house, "volume snapshot delete monday")
    await openstack(house, "volume delete data")


async def test_the_image_story_by_the_openstack_command(house: House, tmp_path: Path) -> None:
    disk, back = tmp_path / "disk.raw", tmp_path / "back.raw"
    disk.write_bytes(b"\x00" * 512 + b"a disk" * 1000)
    create = f"image create --file {disk} --disk-format raw --container-format bare --property os_distro=x web -f json"
    made = json.loads(await openstack(house, create))
    assert (made["name"], made["disk_format"]) == ("web", "raw")
    await openstack(house, "image set --min-ram 64 --property os_version=1 web")
    shown = json.loads(await openstack(house, "image show web -f json"))
    assert (shown["status"], shown["min_ram"], shown["size"]) == ("active", 64, disk.stat().st_size)
    assert (shown["properties"]["os_distro"], shown["properties"]["os_version"]) == ("x", "1")
    await openstack(house, f"image save --file {back} web")
    assert back.read_bytes() == disk.read_bytes()
    server = json.loads(await openstack(house, "server create --image web --flavor m1.tiny --wait vm1 -f json"))
    assert server["status"] == "ACTIVE"
    await openstack(house, "server delete --wait vm1")
    await openstack(house, "image delete web")
    assert "web" not in await openstack(house, "image list")


async def test_a_volume_is_made_where_a_server_is_and_of_a_snapshot(house: House, http: ClientSession) -> None:
    server = (await house.launch(name="vm1"))["id"]
    await house.until(server, "ACTIVE")
    hints = {"OS-SCH-HNT:scheduler_hints": {"local_to_instance": server}}
    body = {"volume": {"size": 1, "name": "data"}, **hints}
    first = (await send(http, "POST", f"{V3}/volumes", body, status=202))["volume"]
    found = await rested(http, f"/volumes/{first['id']}", "available")
    assert found["os-vol-host-attr:host"] == "node-1"
    taken = await send(http, "POST", f"{V3}/snapshots", {"snapshot": {"volume_id": first["id"]}}, status=202)
    snapshot = taken["snapshot"]["id"]
    await rested(http, f"/snapshots/{snapshot}", "available")
    body = {"volume": {"snapshot_id": snapshot, "name": "copy"}}
    second = (await send(http, "POST", f"{V3}/volumes", body, status=202))["volume"]
    assert (second["snapshot_id"], second["size"]) == (snapshot, 1)
    await rested(http, f"/volumes/{second['id']}", "available")
    for query, names in (("", ["copy", "data"]), ("?limit=1", ["copy"]), ("?sort=name:asc", ["copy", "data"])):
        assert [
            each["name"] for each in (await send(http, "GET", f"{V3}/volumes{query}", status=200))["volumes"]
        ] == names
    attach = {"volumeAttachment": {"volumeId": first["id"]}}
    await send(http, "POST", f"/compute/v2.1/servers/{server}/os-volume_attachments", attach, status=200)
    await rested(http, f"/volumes/{first['id']}", "in-use")
    action, extend = f"{V3}/volumes/{first['id']}/action", {"os-extend": {"new_size": 2}}
    await send(http, "POST", action, extend, status=400, version="3.41")
    await send(http, "POST", action, extend, status=202, version="3.42")
    assert (await rested(http, f"/volumes/{first['id']}", "in-use"))["id"] == first["id"]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"size": 1, "colour": "red"}, 400, "badRequest"),
        ({"size": 0}, 400, "badRequest"),
        ({"source_volid": "x"}, 400, "badRequest"),
        ({"size": 1, "group_id": None}, 400, "badRequest"),
        ({"size": 1, "volume_type": "fast"}, 400, "badRequest"),
        ({"size": 1, "snapshot_id": "nowhere"}, 404, "itemNotFound"),
        ({"size": 2000}, 413, "overLimit"),
    ],
)
async def test_a_volume_that_cannot_be_is_refused_in_cinders_words(
    http: ClientSession, body: Json, status: int, word: str
) -> None:
    assert word in await send(http, "POST", f"{V3}/volumes", {"volume": body}, status=status)


@pytest.mark.parametrize(
    ("patch", "status"),
    [
        ([{"op": "replace", "path": "/name", "value": "other"}], 200),
        ([{"op": "add", "path": "/colour", "value": "red"}], 200),
        ([{"op": "replace", "path": "/size", "value": 1}], 400),
        ([{"op": "replace", "path": "/protected", "value": True}], 400),
        ([{"op": "replace", "path": "/visibility", "value": "community"}], 400),
        ([{"op": "move", "path": "/name"}], 400),
        ({"name": "other"}, 400),
    ],
)
async def test_a_patch_says_what_can_be_said(http: ClientSession, patch: object, status: int) -> None:
    made = await send(http, "POST", f"{V2}/images", {"name": "web", "disk_format": "qcow2"}, status=201)
    assert (made["status"], made["disk_format"]) == ("queued", "qcow2")
    told = await send(http, "PATCH", f"{V2}/images/{made['id']}", patch, status=status)
    assert status != 200 or told["name"] in ("other", "web")


async def test_words_that_have_no_field_are_kept_until_they_are_taken_back(http: ClientSession) -> None:
    made = await send(
        http, "POST", f"{V2}/images", {"name": "web", "os_distro": "x", "hw_machine_type": "q35"}, status=201
    )
    assert (made["os_distro"], made["hw_machine_type"]) == ("x", "q35")
    removed = [{"op": "remove", "path": "/os_distro"}]
    assert "os_distro" not in await send(http, "PATCH", f"{V2}/images/{made['id']}", removed, status=200)


async def test_an_image_is_shared_with_its_members(house: House, http: ClientSession) -> None:
    project = (await house.ask("POST", "/projects", {"name": "beta"}, status=201))["id"]
    made = await send(http, "POST", f"{V2}/images", {"name": "web"}, status=201)
    path = f"{V2}/images/{made['id']}/members"
    member = await send(http, "POST", path, {"member": project}, status=200)
    assert (member["member_id"], member["status"]) == (project, "accepted")
    assert (await send(http, "GET", f"{V2}/images/{made['id']}", status=200))["visibility"] == "shared"
    await send(http, "DELETE", f"{path}/{project}", status=204)
    assert (await send(http, "GET", path, status=200))["members"] == []


async def test_every_answer_of_volumes_and_images_is_the_golden_one(house: House, http: ClientSession) -> None:
    made = (await send(http, "POST", f"{V3}/volumes", {"volume": {"size": 1, "name": "data"}}, status=202))["volume"]
    await rested(http, f"/volumes/{made['id']}", "available")
    for version in ("3.0", "3.13"):
        told = await send(http, "GET", f"{V3}/volumes/{made['id']}", status=200, version=version)
        compare(f"volume-{version}", told, house)
    for name in ("types", "limits", "os-quota-sets/admin", "os-services"):
        compare(f"volume-{name.partition('/')[0]}", await send(http, "GET", f"{V3}/{name}", status=200), house)
    (image, *_) = (await send(http, "GET", f"{V2}/images?name=ami-tiny", status=200))["images"]
    compare("image", image, house)
