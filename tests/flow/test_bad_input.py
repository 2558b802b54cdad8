"""Whatever is refused gets a problem document with the reason, and changes nothing."""

from __future__ import annotations

import pytest

from tests.flow.house import House

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
    imported = await house.ask("POST", "/keypairs", {"name": "mine", "public_key": made["public_key"]}, status=201)
    assert imported["fingerprint"] == made["fingerprint"]
    assert "private_key" not in imported or imported["private_key"] is None
    listed = (await house.ask("GET", "/keypairs", status=200))["keypairs"]
    assert [pair["name"] for pair in listed] == ["mine", "test"]
    assert "PRIVATE" not in str(listed)
    for bad in ("ssh-rsa", "ssh-ed25519 !!!!", "ssh-rsa " + made["public_key"].split()[1], "a\nb", "-----BEGIN"):
        await house.ask("POST", "/keypairs", {"name": "bad", "public_key": bad}, status=400)
    await house.ask("DELETE", "/keypairs/test", status=204)
    await house.ask("DELETE", "/keypairs/test", status=404)


async def test_the_description_of_the_api_is_valid_and_complete(house: House) -> None:
    from openapi_spec_validator import validate

    document = await house.ask("GET", "/openapi.json", status=200)
    assert document["openapi"] == "3.1.0"
    validate(document)
    assert {"/instances", "/instances/{id}", "/keypairs", "/images", "/flavors", "/hosts"} <= set(document["paths"])


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
