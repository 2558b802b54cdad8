"""OpenStack's own clients against a whole launcher: keystoneauth, openstacksdk and the `openstack` command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession

from tests.flow.house import ADMIN, House, Json
from tests.flow.openstack_client import get, logged_in, login, openstack


@pytest.fixture
async def http(house: House) -> AsyncIterator[ClientSession]:
    async with logged_in(house) as session:
        yield session


async def test_the_story_by_the_openstack_command(house: House) -> None:
    assert "lt_" in await openstack(house, "token issue")
    assert "admin" in await openstack(house, "project list")
    made = json.loads(await openstack(house, "user create --password secret --project admin bob -f json"))
    assert (made["name"], made["default_project_id"]) == ("bob", "admin")
    await openstack(house, "role add --user bob --project admin member")
    await house.ask("POST", "/keypairs", {"name": "test"}, status=201)
    create = "server create --image ami-tiny --flavor m1.tiny --key-name test --wait vm1 -f json"
    server = json.loads(await openstack(house, create))
    assert (server["status"], server["key_name"], server["name"]) == ("ACTIVE", "test", "vm1")
    native = await house.ask("GET", "/instances/vm1", status=200)
    assert (native["id"], native["flavor"]["name"]) == (server["id"], "m1.tiny")
    (listed,) = json.loads(await openstack(house, "server list -f json"))
    assert (listed["Name"], listed["Image"], listed["Flavor"]) == ("vm1", "ami-tiny", "m1.tiny")
    await openstack(house, "server delete --wait vm1")
    assert "No Server found" in await openstack(house, "server show vm1", code=1)


async def test_keystoneauth_finds_every_service(house: House) -> None:
    """In a thread, as these clients wait."""
    from keystoneauth1.identity import v3
    from keystoneauth1.session import Session

    def discover() -> dict[str, Any]:
        auth = v3.Password(
            auth_url=f"{house.url}/identity",
            username="admin",
            password=ADMIN.password,
            project_name="admin",
            user_domain_id="default",
            project_domain_id="default",
        )
        session = Session(auth=auth)
        wanted = [
            ("identity", (3, 0)),
            ("compute", (2, 1)),
            ("image", (2, 0)),
            ("network", (2, 0)),
            ("block-storage", (3, 0)),
        ]
        found = {kind: session.get_endpoint_data(service_type=kind, min_version=least) for kind, least in wanted}
        return {kind: data.url for kind, data in found.items() if data}

    found = await asyncio.to_thread(discover)
    assert found == {
        "identity": f"{house.url}/identity/v3/",
        "compute": f"{house.url}/compute/v2.1/",
        "image": f"{house.url}/image/v2/",
        "network": f"{house.url}/network/v2.0/",
        "block-storage": f"{house.url}/volume/v3/",
    }


async def test_a_token_says_what_it_is_good_for_and_ends(house: House, http: ClientSession) -> None:
    async with http.post("/identity/v3/auth/tokens", json=login()) as response:
        token, told = response.headers["X-Subject-Token"], (await response.json())["token"]
    assert told["project"] == {"id": "admin", "name": "admin", "domain": {"id": "default", "name": "Default"}}
    assert [each["name"] for each in told["roles"]] == ["admin", "member", "reader"]
    assert {each["type"] for each in told["catalog"]} == {"identity", "compute", "image", "network", "block-storage"}
    assert {end["region"] for each in told["catalog"] for end in each["endpoints"]} == {"RegionOne"}
    subject = {"X-Subject-Token": token}
    seen = await get(http, "/identity/v3/auth/tokens", headers=subject)
    assert seen["token"] == told
    native = {"Authorization": f"Bearer {token}"}
    await house.ask("GET", "/instances", status=200, headers=native)
    async with http.delete("/identity/v3/auth/tokens", headers=subject) as response:
        assert response.status == 204
    await get(http, "/identity/v3/auth/tokens", headers=subject, status=404)
    await house.ask("GET", "/instances", status=401, headers=native)


async def test_an_unscoped_token_becomes_a_scoped_one_and_does_nothing_else(house: House, http: ClientSession) -> None:
    async with http.post("/identity/v3/auth/tokens", json=login(scope="unscoped")) as response:
        unscoped, told = response.headers["X-Subject-Token"], (await response.json())["token"]
    assert "project" not in told
    assert "catalog" not in told
    headers = {"X-Auth-Token": unscoped}
    assert [each["name"] for each in (await get(http, "/identity/v3/auth/projects", headers=headers))["projects"]]
    await get(http, "/compute/v2.1/servers", headers=headers, status=401)
    await get(http, "/identity/v3/users", headers=headers, status=403)
    identity = {"methods": ["token"], "token": {"id": unscoped}}
    async with http.post("/identity/v3/auth/tokens", json=login(identity=identity)) as response:
        assert response.status == 201
        rescoped = (await response.json())["token"]
    assert rescoped["methods"] == ["password", "token"]
    assert rescoped["expires_at"] <= told["expires_at"]


async def test_an_application_credential_lets_in_with_its_own_role(house: House, http: ClientSession) -> None:
    body = {"application_credential": {"name": "app", "roles": [{"name": "reader"}]}}
    async with http.post("/identity/v3/users/admin/application_credentials", json=body) as response:
        assert response.status == 201, await response.text()
        made = (await response.json())["application_credential"]
    identity = {
        "methods": ["application_credential"],
        "application_credential": {"id": made["id"], "secret": made["secret"]},
    }
    async with http.post("/identity/v3/auth/tokens", json={"auth": {"identity": identity}}) as response:
        assert response.status == 201, await response.text()
        token, told = response.headers["X-Subject-Token"], (await response.json())["token"]
    assert [each["name"] for each in told["roles"]] == ["reader"]
    headers = {"X-Auth-Token": token}
    await get(http, "/compute/v2.1/servers", headers=headers)
    server = {"server": {"name": "x", "imageRef": "ami-tiny", "flavorRef": "m1.tiny"}}
    async with http.post("/compute/v2.1/servers", json=server, headers=headers) as response:
        assert (response.status, list(await response.json())) == (403, ["forbidden"])
    async with http.post("/identity/v3/users/admin/application_credentials", json=body, headers=headers) as response:
        assert response.status == 403


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"auth": {}}, 400),
        ({"auth": {"identity": {"methods": ["totp"]}}}, 401),
        ({"auth": {"identity": {"methods": ["password"]}}}, 401),
        (login(scope={"project": {"name": "nowhere"}}), 401),
        (login(scope={"project": {"name": "admin", "domain": {"name": "Other"}}}), 401),
        (login(scope={"domain": {"id": "default"}}), 400),
        (login(extra=1), 400),
    ],
)
async def test_a_login_that_is_wrong_is_refused_in_keystones_words(house: House, body: Json, status: int) -> None:
    async with ClientSession(house.url) as session, session.post("/identity/v3/auth/tokens", json=body) as response:
        refused = await response.json()
        assert response.status == status
        assert response.headers["X-Openstack-Request-Id"].startswith("req-")
    assert refused["error"]["code"] == status
    assert ADMIN.password not in str(refused)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("GET", "/compute/v2.1/servers/nowhere", None, 404, "itemNotFound"),
        ("GET", "/compute/v2.1/flavors/m9.huge", None, 404, "itemNotFound"),
        ("GET", "/compute/v2.1/nothing", None, 404, "itemNotFound"),
        ("GET", "/compute/v2.1/servers?colour=red", None, 400, "badRequest"),
        ("GET", "/compute/v2.1/flavors?limit=many", None, 400, "badRequest"),
        ("POST", "/compute/v2.1/servers", {"server": {"name": "x"}}, 400, "badRequest"),
        (
            "POST",
            "/compute/v2.1/servers",
            {"server": {"name": "x", "flavorRef": "f", "imageRef": "i", "y": 1}},
            400,
            "bad",
        ),
        ("GET", "/image/v2/images/nowhere", None, 404, "message"),
        ("GET", "/identity/v3/users/nobody", None, 404, "error"),
    ],
)
async def test_refusals_are_in_the_services_own_words(
    http: ClientSession, method: str, path: str, body: object, status: int, word: str
) -> None:
    async with http.request(method, path, json=body) as response:
        assert response.status == status, await response.text()
        assert any(name.startswith(word) for name in await response.json())


@pytest.mark.parametrize("host", ["[::1", "x y", "a:b:c", "%00"])
async def test_a_host_that_makes_no_sense_is_no_fault_of_the_server(house: House, host: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(house.url.rpartition(":")[2]))
    writer.write(f"GET /identity/v3 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(10):
        line = await reader.readline()
    writer.close()
    assert int(line.split()[1]) < 500


async def test_only_the_microversion_that_is_honoured_is_served(http: ClientSession) -> None:
    async with http.get("/compute/v2.1/flavors", headers={"OpenStack-API-Version": "compute 2.1"}) as response:
        assert response.headers["OpenStack-API-Version"] == "compute 2.1"
    await get(http, "/compute/v2.1/flavors", headers={"OpenStack-API-Version": "compute 2.99"}, status=406)


async def test_lists_are_paged_and_filtered_as_novas(house: House, http: ClientSession) -> None:
    for name in ("web-1", "web-2", "db"):
        await house.launch(name=name)
    first = await get(http, "/compute/v2.1/servers?limit=2")
    assert [each["name"] for each in first["servers"]] == ["db", "web-2"]
    rest = await get(http, first["servers_links"][0]["href"].removeprefix(house.url))
    assert [each["name"] for each in rest["servers"]] == ["web-1"]
    named = await get(http, "/compute/v2.1/servers/detail?name=^web&sort_key=name&sort_dir=asc")
    assert [each["name"] for each in named["servers"]] == ["web-1", "web-2"]
    assert (await get(http, "/compute/v2.1/servers?name=(a%2B)%2B$"))["servers"] == []
