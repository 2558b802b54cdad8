"""The main job, as its user does it: real guests, real network, the real command line."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.rabbitmq import Broker
from tests.serving import Json, Server
from tests.waiting import eventually

pytestmark = pytest.mark.host


def leftovers(server: Server) -> list[str]:
    """What this host still has of instances."""
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    found = [f"filter of {tap}" for tap in sorted(set(re.findall('comment "(tap[^"]*)"', rules)))]
    found += [str(tap) for tap in Path("/sys/class/net").glob("tap*")]
    found += [str(path) for path in (server.state / "instances").glob("instance-*")]
    found += [str(path) for path in (server.state / "libvirt" / "run" / "qemu").glob("instance-*.pid")]
    hosts = (server.state / "networks").glob("*/hosts")
    return found + [line for path in hosts for line in path.read_text().splitlines()]


async def spans_of(server: Server, name: str) -> list[Json]:
    async def look() -> list[Json] | None:
        spans: list[Json] = (await server.get(f"/instances/{name}/trace"))["spans"]
        return spans if any(span["name"] == "spawning" for span in spans) else None

    return await eventually(look, what="the trace")


async def test_a_machine_boots_lets_its_key_in_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    (tmp_path / "user-data").write_text("hello from user data\n")
    async with server.running():
        await server.cli("keypair", "create", "test", "--file", str(tmp_path / "test.pem"))
        words = ["run", "ami-tiny", "--flavor", "m1.tiny", "--key", "test", "--name", "story"]
        said = await server.cli(*words, "--user-data", str(tmp_path / "user-data"), "--wait=active,ssh")
        assert said.splitlines()[-1] == "launcher ssh story"
        guest = await server.cli(
            "ssh", "story", "--", "uname -sn; id -u; cat /run/user-data; cat /root/.ssh/authorized_keys"
        )
        assert guest.splitlines()[:3] == ["Linux story.novalocal", "0", "hello from user data"]
        assert guest.count("ssh-ed25519") == 1
        assert "ami-tiny: sshd" in await server.cli("console", "story")
        shown = await server.get("/instances/story/readiness")
        assert shown["injection"] == "storage-daemon"
        assert shown["dhcp"]["answered_ms"] >= shown["dhcp"]["requested_ms"]
        assert shown["domain"]["cpu_time_ms"] > 0
        assert len(leftovers(server)) == 5
        await server.cli("delete", "story", "--wait")
        assert leftovers(server) == []
        assert (await server.cli_json("list"))["instances"] == []


async def test_a_port_that_no_rule_opens_is_closed_and_one_that_a_rule_opens_is_open(server: Server) -> None:
    """With the host's own traffic not let through, it reaches a guest by its groups' rules only."""
    server.settings = ["firewall.allow_host_traffic=false"]
    async with server.running():
        async with server.http() as http:
            rules = [{"protocol": "tcp", "from_port": 22}]
            async with http.post("/security-groups", json={"name": "ssh", "rules": rules}) as answer:
                assert answer.status == 201
        await server.cli("run", "ami-tiny", "--name", "shut", "--wait=active")
        await server.cli("run", "ami-tiny", "--name", "open", "--group", "ssh", "--wait=active,ssh")

        async def booted() -> bool:
            return "ami-tiny: sshd" in await server.cli("console", "shut")

        await eventually(booted, within=60, what="the closed guest's boot")
        assert [await reaches(server, name) for name in ("open", "shut")] == [True, False]


async def reaches(server: Server, name: str) -> bool:
    address = (await server.get(f"/instances/{name}"))["addresses"][0]
    try:
        async with asyncio.timeout(3):
            _, writer = await asyncio.open_connection(address, 22)
    except (OSError, TimeoutError):
        return False
    writer.close()
    await writer.wait_closed()
    return True


@pytest.mark.rabbitmq
async def test_the_same_launch_over_rabbitmq(server: Server, tmp_path: Path) -> None:
    if not Broker.installed():
        pytest.skip("RABBITMQ TEST NOT RUN: install the package rabbitmq-server")
    (tmp_path / "broker").mkdir()
    broker = Broker(tmp_path / "broker")
    await asyncio.to_thread(broker.start)
    try:
        server.settings = [f"bus.url={broker.url}"]
        async with server.running():
            await server.cli("keypair", "create", "test", "--file", str(tmp_path / "test.pem"))
            await server.cli("run", "ami-tiny", "--key", "test", "--name", "rabbit", "--wait=active,ssh")
            assert (await server.cli("ssh", "rabbit", "--", "echo in")).strip() == "in"
            hops = [span["role"] for span in await spans_of(server, "rabbit") if span["kind"] != "step"]
            assert hops == ["api", "controller", "scheduler", "compute", "network"]
            assert (await server.get("/healthz"))["bus_ms"] > 0
            await server.cli("delete", "rabbit", "--wait")
            assert leftovers(server) == []
    finally:
        await asyncio.to_thread(broker.kill)


@pytest.mark.parametrize("step", ["networking", "imaging", "filtering", "spawning"])
async def test_kill_9_in_the_middle_of_a_launch_and_a_restart_end_in_a_running_machine(
    server: Server, step: str
) -> None:
    await server.start()
    async with server.http() as http:
        async with http.post("/instances", json={"image": "ami-tiny", "flavor": "m1.tiny", "name": "cut"}) as answer:
            assert answer.status == 202
        async with http.get("/events") as stream:
            async for line in stream.content:
                if line.startswith(b"data:") and json.loads(line[5:])["task_state"] == step:
                    break
            await server.kill()
    async with server.running():
        found = await server.until_instance("cut", status="ACTIVE")
        assert found["addresses"] == ["10.0.0.2"]

        async def booted() -> bool:
            return "ami-tiny: sshd" in await server.cli("console", "cut")

        await eventually(booted, within=60, what="the guest's boot")
        assert len(await asyncio.to_thread(qemus, server)) == 1
        await server.cli("delete", "cut", "--wait")
        assert leftovers(server) == []


async def test_a_flat_network_without_dhcp_writes_the_address_into_the_guest(server: Server) -> None:
    server.settings = ["network.mode=flat", "metadata.port=0"]
    async with server.running():
        await server.cli("keypair", "create", "test")
        words = ["run", "ami-tiny", "--key", "test", "--name", "flat", "--network", "default=10.0.0.77"]
        await server.cli(*words, "--wait=active,ssh")
        seen = await server.cli("ssh", "flat", "--", "ifconfig eth0; route -n; ps; cat /etc/network/interfaces")
        assert "inet addr:10.0.0.77  Bcast:10.0.0.255  Mask:255.255.255.0" in seen
        assert re.search(r"^0\.0\.0\.0 +10\.0\.0\.1 ", seen, re.MULTILINE)
        assert "address 10.0.0.77" in seen
        assert "udhcpc" not in seen
        assert not (server.state / "networks").exists(), "there is no DHCP server"
        await server.cli("delete", "flat", "--wait")
        assert leftovers(server) == []


async def test_a_projects_first_machine_takes_its_network(server: Server) -> None:
    """Overlay none: a bridge and a DHCP server of the project's own, and nothing towards other hosts."""
    server.settings = ["network.mode=vlan", "network.overlay=none", "network.cidr=10.40.0.0/16"]
    async with server.running():
        assert not Path("/sys/class/net/br100").exists()
        await server.cli("keypair", "create", "test")
        await server.cli("run", "ami-tiny", "--key", "test", "--name", "first", "--wait=active,ssh")
        (network,) = (await server.get("/networks"))["networks"]
        assert (network["segment"], network["bridge"], network["cidr"]) == (100, "br100", "10.40.0.0/28")
        assert (await server.get("/instances/first"))["addresses"] == ["10.40.0.2"]
        assert "first.novalocal" in await server.cli("ssh", "first", "--", "uname -n")
    async with server.running():
        await server.until_instance("first", status="ACTIVE")
        assert await reaches(server, "first")
        await server.cli("delete", "first", "--wait")
        assert leftovers(server) == []
        await server.cli("network", "delete", str(network["id"]))
        assert not Path("/sys/class/net/br100").exists()


async def test_a_machine_with_two_nics_reaches_both_networks(server: Server) -> None:
    async with server.running():
        await server.cli("keypair", "create", "test")
        await server.cli("network", "create", "back", "10.7.0.0/24")
        nics = ["--network", "default", "--network", "back=10.7.0.9"]
        await server.cli("run", "ami-tiny", "--key", "test", "--name", "two", *nics, "--wait=active,ssh")
        found = await server.get("/instances/two")
        assert found["addresses"] == ["10.0.0.2", "10.7.0.9"]
        seen = await server.cli("ssh", "two", "--", "cat /sys/class/net/eth0/address /sys/class/net/eth1/address")
        assert seen.split() == [nic["mac"] for nic in found["nics"]]
        await server.cli("ssh", "two", "--", "ifconfig eth1 10.7.0.9 netmask 255.255.255.0; ping -c 1 -W 5 10.7.0.1")
        await server.cli("network", "delete", "back", code=1)
        await server.cli("delete", "two", "--wait")
        assert leftovers(server) == []
        await server.cli("network", "delete", "back")
        assert not Path("/sys/class/net/br101").exists()


def qemus(server: Server) -> list[Path]:
    """The QEMU processes of this state directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"qemu-system" in words[0] and any(str(server.state).encode() in word for word in words):
            found.append(process)
    return found


async def test_a_guest_survives_a_kill_of_the_server_and_is_adopted(server: Server) -> None:
    await server.start()
    await server.cli("run", "ami-tiny", "--name", "survivor", "--wait=active,ssh")
    before = qemus(server)
    await server.kill()
    assert qemus(server) == before
    async with server.running():
        await server.until_instance("survivor", status="ACTIVE")
        assert qemus(server) == before
        assert await reaches(server, "survivor")
        await server.cli("delete", "survivor", "--wait")
        assert leftovers(server) == []


async def test_the_sandbox_takes_everything_with_it(server: Server) -> None:
    """Even when it is killed."""
    links = sorted(path.name for path in Path("/sys/class/net").iterdir())
    server.options = ["--sandbox"]
    await server.start()
    await server.cli("run", "ami-tiny", "--name", "inside", "--wait=active,ssh")
    assert sorted(path.name for path in Path("/sys/class/net").iterdir()) == links
    assert len(qemus(server)) == 1
    await server.kill()

    async def gone() -> bool:
        return qemus(server) == []

    await eventually(gone, what="the end of the guest")
    assert sorted(path.name for path in Path("/sys/class/net").iterdir()) == links
    async with server.running():
        await server.until_instance("inside", status="ACTIVE")
        await server.cli("delete", "inside", "--wait")
