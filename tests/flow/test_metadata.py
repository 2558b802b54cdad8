"""The metadata service over HTTP: real roles, fake drivers; the guests are addresses of the loopback network."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from launcher.services.api.metadata.door import BURST
from launcher.services.api.metadata.service import TOKEN, TTL, MetadataRules
from tests.flow.house import House, Json, anybody

LAN = IPv4Network("127.0.1.0/24")
BINARY = bytes(range(256))


def a_house(state: Path, **changes: Any) -> House:
    return House(state, **{"cidr": LAN, "bridge": "lo", **changes})


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with a_house(tmp_path).open() as opened:
        yield opened


@contextlib.asynccontextmanager
async def inside(house: House, address: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client as the guest with this address."""
    connector = aiohttp.TCPConnector(local_addr=(address, 0))
    async with aiohttp.ClientSession(house.metadata_url, connector=connector) as session:
        yield session


async def fetch(session: aiohttp.ClientSession, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.request(method, path, headers=named) as response:
        return response.status, await response.text(errors="replace")


async def boot(house: House, **changes: object) -> Json:
    made = await house.launch(**changes)
    return await house.until(made["id"], "ACTIVE")


async def test_a_guest_reads_its_own_data_and_no_header_makes_it_another(house: House) -> None:
    first, second = await boot(house), await boot(house)
    forged = {
        "X-Forwarded-For": second["addresses"][0],
        "X-Real-IP": second["addresses"][0],
        "Forwarded": f"for={second['addresses'][0]}",
        "X-Instance-ID": second["id"],
        "Host": second["addresses"][0],
    }
    for mine in (first, second):
        async with inside(house, mine["addresses"][0]) as guest:
            said = await fetch(guest, "/2009-04-04/meta-data/instance-id", **forged)
            assert said == (200, f"i-{mine['number']:08x}")
            assert await fetch(guest, "/latest/meta-data/local-ipv4") == (200, mine["addresses"][0])
            _, meta = await fetch(guest, "/openstack/latest/meta_data.json", **forged)
            assert json.loads(meta)["uuid"] == mine["id"]
    async with inside(house, "127.0.1.99") as stranger:
        status, body = await fetch(stranger, "/latest/meta-data/", **forged)
        assert (status, "<h1>404 - Not Found</h1>" in body) == (404, True)


async def test_the_same_address_on_another_bridge_is_nobody(tmp_path: Path) -> None:
    async with a_house(tmp_path, bridge="br100").open() as house:
        mine = await boot(house)
        async with inside(house, mine["addresses"][0]) as guest:
            assert (await fetch(guest, "/latest/meta-data/instance-id"))[0] == 404


async def test_a_deleted_instance_is_told_nothing(house: House) -> None:
    mine = await boot(house)
    async with inside(house, mine["addresses"][0]) as guest:
        assert (await fetch(guest, "/latest/meta-data/"))[0] == 200
        await house.ask("DELETE", f"/instances/{mine['id']}", status=202)
        await house.until(mine["id"], "DELETED")
        assert (await fetch(guest, "/latest/meta-data/"))[0] == 404


async def test_listings_leaves_heads_and_binary_user_data(house: House) -> None:
    await house.ask("POST", "/keypairs", {"name": "me"}, status=201)
    mine = await boot(
        house, key_name="me", user_data=base64.b64encode(BINARY).decode(), metadata={"role": "db"}, name="web"
    )
    async with inside(house, mine["addresses"][0]) as guest:
        assert "2021-03-23\n" in (await fetch(guest, "/"))[1]
        assert (await fetch(guest, "/latest"))[1] == "dynamic\nmeta-data\nuser-data"
        assert "placement/\n" in (await fetch(guest, "/latest/meta-data"))[1]
        assert (await fetch(guest, "/latest/meta-data/public-keys/"))[1] == "0=me"
        assert (await fetch(guest, "/latest/meta-data/public-keys/0/openssh-key"))[1].startswith("ssh-")
        assert (await fetch(guest, "/latest/meta-data/tags/instance/role")) == (200, "db")
        assert (await fetch(guest, "/latest/meta-data/placement/availability-zone")) == (200, "nova")
        async with guest.get("/latest/user-data") as answer:
            assert await answer.read() == BINARY
        async with guest.get("/openstack/2018-08-27/user_data") as answer:
            assert await answer.read() == BINARY
        async with guest.head("/latest/user-data") as answer:
            assert (answer.status, answer.headers["Content-Length"]) == (200, "256")
            assert await answer.read() == b""
        assert await fetch(guest, "/openstack/latest/password") == (200, "")
        assert (await fetch(guest, "/openstack/latest/password", "POST"))[0] == 405
        assert (await fetch(guest, "/latest/meta-data/instance-id", "DELETE"))[0] == 405


async def test_a_session_token_is_for_its_own_guest(house: House) -> None:
    first, second = await boot(house), await boot(house)
    async with inside(house, first["addresses"][0]) as one, inside(house, second["addresses"][0]) as other:
        status, token = await fetch(one, "/latest/api/token", "PUT", **{TTL: "21600"})
        assert status == 200
        for path in ("/latest/meta-data/instance-id", "/openstack/latest/meta_data.json"):
            assert (await fetch(one, path, **{TOKEN: token}))[0] == 200
            assert (await fetch(other, path, **{TOKEN: token}))[0] == 401
            assert (await fetch(one, path, **{TOKEN: "forged"}))[0] == 401
            assert (await fetch(one, path))[0] == 200


@pytest.mark.parametrize("ttl", [None, "", "0", "21601", "-1", "1.5", "60s", "٣", "9" * 5000])
async def test_a_token_needs_a_time_to_live_that_ec2_would_take(house: House, ttl: str | None) -> None:
    mine = await boot(house)
    async with inside(house, mine["addresses"][0]) as guest:
        headers = {} if ttl is None else {TTL: ttl}
        assert (await fetch(guest, "/latest/api/token", "PUT", **headers))[0] == 400


async def test_no_token_for_who_comes_through_a_proxy(house: House) -> None:
    mine = await boot(house)
    async with inside(house, mine["addresses"][0]) as guest:
        proxied = {TTL: "60", "X-Forwarded-For": "127.0.0.1"}
        assert (await fetch(guest, "/latest/api/token", "PUT", **proxied))[0] == 403
        assert (await fetch(guest, "/latest/api/token"))[0] == 405


async def test_where_tokens_are_required_nothing_is_told_without(tmp_path: Path) -> None:
    async with a_house(tmp_path, metadata_rules=MetadataRules(token_required=True, admits=anybody)).open() as house:
        mine = await boot(house)
        async with inside(house, mine["addresses"][0]) as guest:
            _, token = await fetch(guest, "/latest/api/token", "PUT", **{TTL: "60"})
            for path in ("/", "/latest/meta-data/", "/openstack", "/openstack/latest/user_data", "/nothing"):
                assert (await fetch(guest, path))[0] == 401
            assert (await fetch(guest, "/latest/meta-data/instance-id", **{TOKEN: token}))[0] == 200
            async with guest.get("/", headers={TOKEN: token}) as answer:
                assert 0 < int(answer.headers[TTL]) <= 60


@pytest.mark.parametrize("away", ["controller", "network"])
async def test_without_one_of_the_roles_it_stays_up_and_says_when_to_come_again(tmp_path: Path, away: str) -> None:
    async with a_house(tmp_path).open() as house:
        mine = await boot(house)
    roles = tuple(name for name in house.roles if name in ("network", "controller", "api") and name != away)
    async with AsyncExitStack() as stack:
        alone = await stack.enter_async_context(a_house(tmp_path, roles=roles, network=house.network).open())
        guest = await stack.enter_async_context(inside(alone, mine["addresses"][0]))
        for _ in range(2):
            async with guest.get("/latest/meta-data/instance-id") as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "2")


async def test_a_greedy_guest_is_slowed_and_its_neighbour_is_not(house: House) -> None:
    greedy, other = await boot(house), await boot(house)
    async with inside(house, greedy["addresses"][0]) as one, inside(house, other["addresses"][0]) as two:
        answers = [await fetch(one, "/latest/meta-data/mac")]
        while answers[-1][0] == 200 and len(answers) < 50 * BURST:
            answers += sorted(await asyncio.gather(*(fetch(one, "/latest/meta-data/mac") for _ in range(12))))
        assert answers[-1][0] == 429
        assert (await fetch(two, "/latest/meta-data/mac"))[0] == 200
        await house.ask("GET", "/instances", status=200)


JUNK = (
    b"\0\1\2\r\n\r\n",
    b"GET /%ff%00/../latest HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\n",
    b"PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT other:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://other/latest/meta-data HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token: \xff\r\n\r\n",
)


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk[:16]))
async def test_junk_is_refused_and_fills_no_log(house: House, junk: bytes, caplog: pytest.LogCaptureFixture) -> None:
    mine = await boot(house)
    host, port = house.metadata_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), local_addr=(mine["addresses"][0], 0))
    writer.write(junk)
    async with asyncio.timeout(10):
        status = await reader.readline()
    writer.close()
    assert status.split()[1] in (b"400", b"401", b"404", b"405")
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
    async with inside(house, mine["addresses"][0]) as guest:
        assert (await fetch(guest, "/latest/meta-data/instance-id"))[0] == 200


async def test_each_port_has_its_own_paths_only(house: House) -> None:
    mine = await boot(house)
    await house.ask("GET", "/latest/meta-data/", status=404)
    async with inside(house, mine["addresses"][0]) as guest:
        for path in ("/instances", "/healthz", "/metrics", "/openapi.json"):
            assert (await fetch(guest, path, Authorization=house.http.headers["Authorization"]))[0] == 404


async def test_the_owner_sees_what_the_guest_sees(house: House) -> None:
    mine = await boot(house, user_data=base64.b64encode(BINARY).decode())
    at = f"/instances/{mine['id']}/metadata-service"
    page = await house.ask("GET", f"{at}/latest/user-data", status=200)
    assert base64.b64decode(page["body"]) == BINARY
    assert page["content_type"] == "application/octet-stream"
    page = await house.ask("GET", f"{at}/latest/meta-data/placement/", status=200)
    assert base64.b64decode(page["body"]) == b"availability-zone\nregion"
    assert page["leaves"] == {
        "latest/meta-data/placement/availability-zone": "nova",
        "latest/meta-data/placement/region": "RegionOne",
    }
    async with inside(house, mine["addresses"][0]) as guest:
        root = await house.ask("GET", f"{at}/", status=200)
        assert base64.b64decode(root["body"]).decode() == (await fetch(guest, "/"))[1]
    await house.ask("GET", f"{at}/latest/nothing", status=404)
    await house.ask("GET", "/instances/nobody/metadata-service/latest", status=404)
    async with aiohttp.ClientSession(house.url) as stranger, stranger.get(f"{at}/latest") as answer:
        assert answer.status == 401


async def test_the_api_describes_the_path_without_its_pattern(house: House) -> None:
    paths = (await house.ask("GET", "/openapi.json", status=200))["paths"]
    found = paths["/instances/{id}/metadata-service/{path}"]["get"]
    assert [each["name"] for each in found["parameters"]] == ["id", "path"]
