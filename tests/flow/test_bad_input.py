"""Whatever is refused gets a problem document with the reason, and changes nothing."""

from __future__ import annotations

import asyncio
import base64

import pytest

from launcher.services.api.ec2.service import PATHS as EC2_PATHS
from tests.flow.house import TOKEN, House

GOOD = {"image": "ami-tiny", "flavor": "m1.tiny"}


@pytest.mark.parametrize(
    ("changes", "status", "field"),
    [
        ({"image": "ami-nope"}, 404, "image"),
        ({"image": "ami-tiny-kernel"}, 400, "image"),
        ({"image": 7}, 400, "image"),
        ({"flavor": "m9.huge"}, 404, "flavor"),
        ({"key_name": "nope"}, 404, "key_name"),
        ({"security_groups": ["nope"]}, 404, "security_groups"),
        ({"security_groups": "default"}, 400, "security_groups"),
        ({"user_data": "not base64!"}, 400, "user_data"),
        ({"user_data": "A" * 92000}, 400, "user_data"),
        ({"count": "3"}, 400, "count"),
        ({"count": 0}, 400, "count"),
        ({"count": 2, "min_count": 1}, 400, "count"),
        ({"min_count": 3, "max_count": 2}, 400, "min_count"),
        ({"count": 1.5}, 400, "count"),
        ({"name": "a\nb"}, 400, "name"),
        ({"name": "-rf"}, 400, "name"),
        ({"name": "x" * 256}, 400, "name"),
        ({"metadata": {"k": 1}}, 400, "metadata.k"),
        ({"metadata": {"k" * 256: "v"}}, 400, "metadata"),
        ({"color": "red"}, 400, "color"),
    ],
)
async def test_a_wrong_field_is_named(house: House, changes: dict[str, object], status: int, field: str) -> None:
    problem = await house.ask("POST", "/instances", {**GOOD, **changes}, status=status)
    assert problem["field"] == field
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["request_id"].startswith("req-")
    assert (await house.ask("GET", "/instances", status=200))["instances"] == []


@pytest.mark.parametrize(
    ("raw", "status"),
    [(b"", 400), (b"{", 400), (b"[]", 400), (b"null", 400), (b'{"image": "\xff"}', 400), (b" " * 300_000, 413)],
)
async def test_a_body_that_is_no_request(house: House, raw: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    async with house.http.post("/instances", data=raw, headers=headers) as response:
        assert response.status == status, await response.text()
        assert response.content_type == "application/problem+json"


async def test_other_content_types_methods_and_paths(house: House) -> None:
    async with house.http.post("/instances", data=b"<a/>", headers={"Content-Type": "text/xml"}) as response:
        assert response.status == 415
    assert (await house.ask("PUT", "/instances", status=405))["detail"] == "PUT is not possible at /instances"
    assert (await house.ask("GET", "/nothing/here", status=404))["code"] == "http_error"
    await house.ask("GET", "/instances?colour=red", status=400)
    await house.ask("GET", "/instances?limit=0", status=400)
    await house.ask("GET", "/instances?marker=nope", status=404)
    await house.ask("GET", "/instances?status=BROKEN", status=400)
    await house.ask("GET", "/instances/nope", status=404)
    await house.ask("DELETE", "/instances/nope", status=404)


async def test_a_wrong_method_is_told_the_right_ones(house: House) -> None:
    async with house.http.put("/instances") as response:
        assert response.status == 405
        assert {"GET", "POST"} <= set(response.headers["Allow"].split(","))
    async with house.http.head("/healthz") as response:
        assert response.status == 200


@pytest.mark.parametrize("query", ["after=-1", "after=99999999999999999999", "after=x", "follow=perhaps", "colour=red"])
async def test_a_wrong_question_for_events_is_refused(house: House, query: str) -> None:
    problem = await house.ask("GET", f"/events?{query}", status=400)
    assert problem["field"] == query.partition("=")[0]


@pytest.mark.parametrize("seen", ["x", "-1", "1.5", "9" * 19, "9" * 5000, "\u0663", "1 or 1"])
async def test_an_event_that_nobody_can_have_seen_is_refused(house: House, seen: str) -> None:
    problem = await house.ask("GET", "/events?follow=false", status=400, headers={"Last-Event-ID": seen})
    assert problem["field"] == "Last-Event-ID"


@pytest.mark.parametrize("port", ["0", "65536", "-1", "ssh", "\u0662\u0662", "9" * 5000, "22%0a", "1e3"])
async def test_a_port_that_is_none_is_refused(house: House, port: str) -> None:
    made = await house.launch(name="web")
    await house.until(made["id"], "ACTIVE")
    problem = await house.ask("GET", f"/instances/web/tcp/{port}", status=400)
    assert problem["field"] == "port"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_is_not_packed_as_it_says(house: House, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    async with house.http.post("/instances", data=b"\x1f\x8bno such thing", headers=headers) as response:
        assert response.status == 400, await response.text()


async def raw(house: House, request: bytes) -> bytes:
    """The status line of the answer to bytes that no client library would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(house.url.rsplit(":", 1)[1]))
    writer.write(request)
    try:
        async with asyncio.timeout(10):
            return await reader.readline()
    finally:
        writer.close()


@pytest.mark.parametrize("token", [b"\xff\xfe", b"\xed\xa0\x80", b"\xc3\xa9", b"lt_" + b"x" * 7000])
async def test_a_token_of_any_bytes_is_only_unknown(house: House, token: bytes) -> None:
    answer = await raw(house, b"GET /instances HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + b"\r\n\r\n")
    assert b" 401 " in answer


@pytest.mark.parametrize(
    "target", [b"/instances/%ff", b"/instances/%00", b"/instances/%ed%a0%80", b"/instances/%0a%0d"]
)
async def test_a_name_of_any_bytes_is_only_not_found(house: House, target: bytes) -> None:
    head = f" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    assert b" 404 " in await raw(house, b"GET " + target + head)
    assert b" 404 " in await raw(house, b"DELETE " + target.replace(b"/instances", b"/keypairs") + head)


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer lt_wrong", "Basic YTpi", "Bearer \u00e9"])
async def test_without_a_known_token_nothing_is_told(house: House, authorization: str) -> None:
    headers = {"Authorization": authorization}
    async with house.http.get("/instances", headers=headers) as response:
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert "lt_" not in await response.text()


async def test_key_pairs_are_made_once_imported_and_refused(house: House) -> None:
    made = await house.ask("POST", "/keypairs", {"name": "test"}, status=201)
    assert made["private_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert made["public_key"].startswith("ssh-ed25519 ")
    await house.ask("POST", "/keypairs", {"name": "test"}, status=409)
    line = made["public_key"] + "\n"
    imported = await house.ask("POST", "/keypairs", {"name": "mine", "public_key": line}, status=201)
    assert imported["public_key"] == made["public_key"]
    assert imported["fingerprint"] == made["fingerprint"]
    assert "private_key" not in imported or imported["private_key"] is None
    listed = (await house.ask("GET", "/keypairs", status=200))["keypairs"]
    assert [pair["name"] for pair in listed] == ["mine", "test"]
    assert "PRIVATE" not in str(listed)
    empty = base64.b64encode(b"\0\0\0\x0bssh-ed25519").decode()
    for bad in (
        "",
        " ",
        f"ssh-ed25519 {empty}",
        "ssh-rsa",
        "ssh-ed25519 !!!!",
        "ssh-rsa " + made["public_key"].split()[1],
        "a\nb",
        "-----BEGIN",
    ):
        await house.ask("POST", "/keypairs", {"name": "bad", "public_key": bad}, status=400)
    await house.ask("DELETE", "/keypairs/test", status=204)
    await house.ask("DELETE", "/keypairs/test", status=404)


async def test_the_description_of_the_api_is_valid_and_complete(house: House) -> None:
    from openapi_spec_validator import validate

    document = await house.ask("GET", "/openapi.json", status=200)
    assert document["openapi"] == "3.1.0"
    validate(document)
    served = {resource.canonical for resource in house.api.application().router.resources()}
    others = tuple(f"{service.prefix}{end}" for service in house.api.openstack.services for end in ("/", "{"))
    prefixes = {service.prefix for service in house.api.openstack.services}
    native = {path for path in served if not path.startswith(others)} - prefixes - set(EC2_PATHS)
    assert set(document["paths"]) == native


async def test_health_and_metrics_say_what_is(house: House) -> None:
    health = await house.ask("GET", "/healthz", status=200)
    assert health["status"] == "ok"
    assert health["bus_ms"] > 0
    made = await house.launch()
    await house.until(made["id"], "ACTIVE")
    async with house.http.get("/metrics") as response:
        text = await response.text()
    assert 'launcher_instances_total{state="active"} 1.0' in text
    assert 'launcher_step_seconds_count{step="spawning"} 1.0' in text
    assert 'launcher_http_requests_total{endpoint="/instances",method="POST",status="202"} 1.0' in text


async def test_lists_are_paged_and_filtered(house: House) -> None:
    made = [await house.launch(name=f"vm-{number}") for number in range(5)]
    for instance in made:
        await house.until(instance["id"], "ACTIVE")
    first = await house.ask("GET", "/instances?limit=2", status=200)
    assert [instance["name"] for instance in first["instances"]] == ["vm-0", "vm-1"]
    second = await house.ask("GET", f"/instances?limit=2&marker={first['next_marker']}", status=200)
    assert [instance["name"] for instance in second["instances"]] == ["vm-2", "vm-3"]
    named = await house.ask("GET", "/instances?name=vm-4&status=ACTIVE", status=200)
    assert [instance["id"] for instance in named["instances"]] == [made[4]["id"]]
    by_name = await house.ask("GET", "/instances/vm-3", status=200)
    assert by_name["id"] == made[3]["id"]
