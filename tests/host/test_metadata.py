"""The metadata service from inside guests, over the real bridge, filters and redirection, by 169.254.169.254.

The guests are network namespaces, as in `test_packets.py`; the launcher behind the service is whole, with fake drivers.
"""

from __future__ import annotations

import asyncio
import base64
import json
import select
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from launcher.services.api.metadata.service import MetadataRules
from tests.flow.house import House, Json
from tests.host.lan import LAN, METADATA_PORT, Guest, Lan
from tests.serving import ROOT, Server
from tests.waiting import eventually

pytestmark = [pytest.mark.host, pytest.mark.usefixtures("sandboxed")]

CLOUD_INIT = ROOT / ".cache" / "cloud-init" / "usr" / "lib" / "python3" / "dist-packages"
SERVICE = ("169.254.169.254", 80)
BINARY = bytes(range(256))


class Neighbours:
    """A bridge with real filters, and instances whose guests are on it."""

    def __init__(self, house: House, lan: Lan) -> None:
        self.house, self.lan = house, lan

    async def boot(self, **changes: object) -> tuple[Json, Guest]:
        made = await self.house.launch(**changes)
        instance = await self.house.until(made["id"], "ACTIVE")
        order, nics, policy = self.house.firewall.applied[instance["number"]]
        guest = Guest(order, nics[0])
        self.lan.guests.append(guest)
        await self.lan.firewall.apply(order, nics, policy)
        guest.configure()
        return instance, guest


@pytest.fixture
async def rules() -> MetadataRules:
    return MetadataRules()


@pytest.fixture
async def neighbours(tmp_path: Path, rules: MetadataRules) -> AsyncIterator[Neighbours]:
    async with AsyncExitStack() as stack:
        lan = Lan(tmp_path)
        await lan.start()
        stack.push_async_callback(lan.stop)
        house = House(
            tmp_path,
            cidr=LAN.cidr,
            bridge=LAN.bridge,
            metadata_at=("0.0.0.0", METADATA_PORT),
            metadata_rules=rules,
        )
        yield Neighbours(await stack.enter_async_context(house.open()), lan)


async def ask(guest: Guest, head: str, *, at: tuple[str, int] = SERVICE, source: str = "") -> tuple[int, str]:
    """The status and the body of one request from inside."""
    loop, client = asyncio.get_running_loop(), guest.open(socket.SOCK_STREAM)
    client.bind((source, 0))
    answer = b""
    async with asyncio.timeout(10):
        await loop.sock_connect(client, at)
        await loop.sock_sendall(client, f"{head}\r\n\r\n".replace("\n", "\r\n").replace("\r\r", "\r").encode())
        while piece := await loop.sock_recv(client, 65536):
            answer += piece
    if not answer:
        raise ConnectionResetError("closed without an answer")
    top, _, body = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), body.decode(errors="replace")


async def test_a_guest_reads_its_own_data_and_cannot_have_anothers(neighbours: Neighbours) -> None:
    victim, silent = await neighbours.boot(user_data=base64.b64encode(b"the victim's").decode())
    mine, guest = await neighbours.boot()
    own = (200, f"i-{mine['number']:08x}")
    get = "GET /latest/meta-data/instance-id HTTP/1.0"
    assert await ask(guest, get) == own
    assert await ask(guest, get, at=(str(LAN.gateway), METADATA_PORT)) == own
    assert await ask(guest, f"{get}\nX-Forwarded-For: {victim['addresses'][0]}\nX-Instance-ID: {victim['id']}") == own
    assert (await ask(guest, "GET /latest/user-data HTTP/1.0"))[0] == 404

    silent.run("ip", "link", "set", "eth0", "down")  # so that nobody else answers for its address
    guest.run("ip", "address", "add", f"{victim['addresses'][0]}/24", "dev", "eth0")
    spoofing = guest.open(socket.SOCK_STREAM)
    spoofing.bind((victim["addresses"][0], 0))
    assert spoofing.connect_ex(SERVICE) == 115  # EINPROGRESS
    assert await ask(guest, get, source=str(guest.lease.address)) == own
    assert select.select([], [spoofing], [], 0)[1] == []


async def test_who_comes_by_no_bridge_is_not_let_in(neighbours: Neighbours) -> None:
    _, outsider = await neighbours.boot()
    get = "GET /latest/meta-data/instance-id HTTP/1.0"
    gateway = (str(LAN.gateway), METADATA_PORT)
    assert (await ask(outsider, get, at=gateway))[0] == 200
    subprocess.run(["ip", "link", "set", outsider.order.tap, "nomaster"], check=True)
    subprocess.run(["ip", "address", "add", "10.91.0.1/24", "dev", outsider.order.tap], check=True)
    outsider.run("ip", "address", "flush", "dev", "eth0")
    outsider.run("ip", "address", "add", "10.91.0.2/24", "dev", "eth0")
    outsider.run("ip", "route", "add", "default", "via", "10.91.0.1")
    for address in ("10.91.0.1", str(LAN.gateway)):
        with pytest.raises(ConnectionError):
            await ask(outsider, get, at=(address, METADATA_PORT))


async def test_a_token_is_no_good_in_another_guest(neighbours: Neighbours) -> None:
    (_, first), (_, second) = await neighbours.boot(), await neighbours.boot()
    put = "PUT /latest/api/token HTTP/1.0\nX-aws-ec2-metadata-token-ttl-seconds: 60"
    status, token = await ask(first, put)
    assert status == 200
    with_token = f"GET /latest/meta-data/mac HTTP/1.0\nX-aws-ec2-metadata-token: {token}"
    assert await ask(first, with_token) == (200, first.lease.mac)
    assert (await ask(second, with_token))[0] == 401
    assert (await ask(first, f"{put}\nX-Forwarded-For: 10.0.0.1"))[0] == 403


async def crawl(guest: Guest, cloud: str) -> Any:
    """What cloud-init itself makes of the service, without a warning."""
    if not CLOUD_INIT.exists():
        pytest.skip("CLOUD-INIT TEST NOT RUN: it is not unpacked; run `make setup`")
    script = [str(ROOT / "tests" / "host" / "crawl.py"), str(CLOUD_INIT), cloud, guest.lease.mac]
    argv = ["nsenter", f"--net={guest.path}", "/usr/bin/python3", *script]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


async def boot_for_cloud_init(neighbours: Neighbours) -> tuple[Json, Guest]:
    await neighbours.house.ask("POST", "/keypairs", {"name": "me"}, status=201)
    return await neighbours.boot(
        name="web", key_name="me", user_data=base64.b64encode(BINARY).decode(), metadata={"role": "db"}
    )


async def by_ec2(neighbours: Neighbours, cloud: str) -> None:
    instance, guest = await boot_for_cloud_init(neighbours)
    found = await crawl(guest, cloud)
    meta = found["meta-data"]
    assert found["version"] == "2021-03-23"
    assert bytes.fromhex(found["user-data"]["hex"]) == BINARY
    assert meta["instance-id"] == f"i-{instance['number']:08x}"
    assert meta["local-hostname"] == f"{instance['hostname']}.novalocal"
    assert meta["public-keys"]["me"].startswith("ssh-")
    assert meta["tags"] == {"instance": {"role": "db"}}
    assert meta["security-groups"] == "default"
    assert meta["network"]["interfaces"]["macs"][guest.lease.mac]["subnet-ipv4-cidr-block"] == str(LAN.cidr)
    assert found["network-config"]["ethernets"]["eth0"]["dhcp4"] is True
    if cloud == "aws":
        assert found["dynamic"]["instance-identity"]["document"]["instanceId"] == meta["instance-id"]


async def test_cloud_inits_ec2_source_reads_it(neighbours: Neighbours) -> None:
    await by_ec2(neighbours, "unknown")


@pytest.mark.parametrize("rules", [MetadataRules(token_required=True)])
async def test_cloud_inits_ec2_source_reads_it_by_tokens(neighbours: Neighbours) -> None:
    await by_ec2(neighbours, "aws")


async def test_cloud_inits_openstack_source_reads_it(neighbours: Neighbours) -> None:
    instance, guest = await boot_for_cloud_init(neighbours)
    found = await crawl(guest, "openstack")
    assert found["metadata"]["uuid"] == instance["id"]
    assert found["metadata"]["instance-id"] == instance["id"]
    assert found["metadata"]["local-hostname"] == f"{instance['hostname']}.novalocal"
    assert found["metadata"]["public_keys"]["me"].startswith("ssh-")
    assert found["metadata"]["meta"] == {"role": "db"}
    assert len(bytes.fromhex(found["metadata"]["random_seed"]["hex"])) == 512
    assert bytes.fromhex(found["userdata"]["hex"]) == BINARY
    assert (found["vendordata"], found["vendordata2"]) == ({}, {})
    physical, name_servers = found["network-config"]["config"]
    assert physical["mac_address"] == guest.lease.mac
    assert physical["subnets"] == [{"type": "dhcp4"}]
    assert name_servers == {"type": "nameserver", "address": str(LAN.gateway)}


async def test_a_real_guest_of_a_network_made_later_reads_it_by_token(server: Server, tmp_path: Path) -> None:
    server.settings = ["metadata.token=required", 'images.inject=["metadata"]']
    (tmp_path / "user-data").write_text("hello by token\n")
    async with server.running():
        await server.cli("network", "create", "later", "10.7.0.0/24")
        await server.cli("keypair", "create", "test", "--file", str(tmp_path / "test.pem"))
        words = ["run", "ami-tiny", "--flavor", "m1.tiny", "--key", "test", "--name", "careful", "--network", "later"]
        await server.cli(*words, "--user-data", str(tmp_path / "user-data"), "--wait=active,ssh")

        async def look() -> bool:
            return "ami-tiny: metadata id=i-" in await server.cli("console", "careful")

        await eventually(look, within=60, what="the guest's word of its metadata")
        said = await server.cli("ssh", "careful", "--", "cat /run/user-data")
        assert said == "hello by token\n"
        assert await server.cli("metadata", "careful", "latest/user-data") == "hello by token\n"
        assert "10.7.0.2" in await server.cli("metadata", "careful", "latest/meta-data/local-ipv4")
        await server.cli("delete", "careful", "--wait")
