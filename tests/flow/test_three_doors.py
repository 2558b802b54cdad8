"""One machine through three doors: whichever it was launched by, the others see it, name it and type it rightly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.ec2_client import client
from tests.flow.house import ADMIN, House, Json
from tests.flow.openstack_client import get, logged_in

Launch = Callable[[House, ClientSession], Awaitable[str]]


async def by_native(house: House, http: ClientSession) -> str:
    return str((await house.launch(name="vm1", key_name="k"))["id"])


async def by_openstack(house: House, http: ClientSession) -> str:
    (image,) = (await get(http, "/image/v2/images?name=ami-tiny"))["images"]
    server = {"name": "vm1", "imageRef": image["id"], "flavorRef": "m1.tiny", "key_name": "k"}
    async with http.post("/compute/v2.1/servers", json={"server": server}) as response:
        assert response.status == 202, await response.text()
        return str((await response.json())["server"]["id"])


async def by_ec2(house: House, http: ClientSession) -> str:
    ec2 = client(house.url, ADMIN.access_key, ADMIN.secret_key)
    wanted: Any = {"ImageId": "ami-tiny", "InstanceType": "m1.tiny", "MinCount": 1, "MaxCount": 1, "KeyName": "k"}
    await asyncio.to_thread(lambda: ec2.run_instances(**wanted))
    (instance,) = (await house.ask("GET", "/instances", status=200))["instances"]
    return str(instance["id"])


@pytest.mark.parametrize("launch", [by_native, by_openstack, by_ec2])
async def test_what_one_door_launched_the_others_see_as_it_is(house: House, launch: Launch) -> None:
    await house.ask("POST", "/keypairs", {"name": "k"}, status=201)
    async with logged_in(house) as http:
        made = await launch(house, http)
        native: Json = await house.until(made, "ACTIVE")
        server = (await get(http, f"/compute/v2.1/servers/{made}"))["server"]
        ec2 = client(house.url, ADMIN.access_key, ADMIN.secret_key)
        (reservation,) = (await asyncio.to_thread(ec2.describe_instances))["Reservations"]
        (instance,) = reservation["Instances"]
    assert native["flavor"]["name"] == server["flavor"]["id"] == instance["InstanceType"] == "m1.tiny"
    assert native["key_name"] == server["key_name"] == instance["KeyName"] == "k"
    assert (native["name"], native["image_id"]) == (server["name"], server["image"]["id"])
    assert (server["status"], instance["State"]["Name"]) == ("ACTIVE", "running")
    (address,) = native["addresses"]
    assert address == server["addresses"]["default"][0]["addr"] == instance["PrivateIpAddress"]
    assert instance["InstanceId"] == f"i-{native['number']:08x}"
