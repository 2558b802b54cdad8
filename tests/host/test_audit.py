"""The audit of a real host: what is broken by hand is named, what is ours and nobody's goes, strangers stay."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import libvirt
import pytest

from tests.contract.virt_rigs import LibvirtRig
from tests.host.libvirtd import Daemon
from tests.host.test_story import leftovers, qemus
from tests.rabbitmq import Broker
from tests.serving import Json, Server
from tests.waiting import eventually, until

pytestmark = pytest.mark.host

STRANGE_CHAIN = "nova-inst-mine"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def iptables(*words: str) -> str:
    return subprocess.run(["iptables", *words], check=True, capture_output=True, text=True).stdout


def remove_chain(number: int) -> None:
    """The instance's filters, as a person would clear them away."""
    for line in iptables("-S").splitlines():
        if line.startswith("-A") and line.endswith(f"-j nova-inst-{number}"):
            iptables("-D", *line.split()[1:])
    iptables("-F", f"nova-inst-{number}")
    iptables("-X", f"nova-inst-{number}")


def plant_strangers(server: Server) -> None:
    """Other people's things, as like ours as they can be."""
    ip("link", "add", "br-mine", "type", "bridge")
    ip("tuntap", "add", "dev", "tap00000063", "mode", "tap")
    iptables("-N", STRANGE_CHAIN)
    iptables("-A", "FORWARD", "-s", "192.0.2.0/24", "-j", STRANGE_CHAIN)
    (server.state / "instances" / "instance-00000063").mkdir()


def strangers(server: Server) -> list[bool]:
    devices = Path("/sys/class/net")
    return [
        (devices / "br-mine").exists(),
        (devices / "tap00000063").exists(),
        f"-A FORWARD -s 192.0.2.0/24 -j {STRANGE_CHAIN}" in iptables("-S"),
        (server.state / "instances" / "instance-00000063").exists(),
    ]


async def audit(server: Server) -> set[tuple[str, str, str]]:
    """Trouble, kind and name; the exit code agrees."""
    said = json.loads(await server.cli("--json", "audit", code=1))
    return {(each["trouble"], each["kind"], each["name"]) for each in said["findings"]}


async def launch(server: Server, name: str) -> Json:
    await server.cli("run", "ami-tiny", "--name", name, "--wait=active")
    return await server.get(f"/instances/{name}")


async def test_what_is_broken_by_hand_is_named_and_strangers_are_not(server: Server) -> None:
    async with server.running():
        victim = await launch(server, "victim")
        plant_strangers(server)
        assert "differences: 0" in await server.cli("audit")

        missing = {("missing", "tap", "tap00000001")}
        ip("link", "del", "tap00000001")
        assert await audit(server) == missing
        missing |= {("missing", "chain", "nova-inst-1")}
        remove_chain(1)
        assert await audit(server) == missing
        missing |= {("missing", "directory", "instance-00000001")}
        shutil.rmtree(server.state / "instances" / "instance-00000001")
        assert await audit(server) == missing

        async def unknown_to_dhcp() -> bool:
            """The network role writes the file anew now and then."""
            (server.state / "networks" / "br100" / "hosts").write_text("")
            return await audit(server) == missing | {("missing", "dhcp", victim["nics"][0]["mac"])}

        await eventually(unknown_to_dhcp, what="the missing line")
        assert (await server.cli("gc")).strip() == "nothing removed"
        await server.cli("delete", "victim", "--wait")
        assert "differences: 0" in await server.cli("audit")
        assert strangers(server) == [True] * 4


class Dead:
    """A deleted instance, number 1, whose artefacts can be put back as a late or lost step would leave them."""

    def __init__(self, server: Server, rig: LibvirtRig) -> None:
        self.server, self.rig, self.xml = server, rig, ""
        self.directory, self.kept = server.state / "instances" / "instance-00000001", server.state / "kept"

    async def die(self) -> None:
        await launch(self.server, "dead")
        self.xml = await self.rig.beside(
            lambda connection: connection.lookupByName("instance-00000001").XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        )
        shutil.copytree(self.directory, self.kept)
        await self.server.cli("delete", "dead", "--wait")

    async def haunt(self) -> set[tuple[str, str, str]]:
        """What the audit is to find."""
        ip("tuntap", "add", "dev", "tap00000001", "mode", "tap")
        ip("link", "set", "dev", "tap00000001", "alias", "launcher")
        iptables("-N", "nova-inst-1")
        shutil.copytree(self.kept, self.directory)
        (self.server.state / "inject" / "disk-90").touch()
        await self.rig.beside(lambda connection: connection.createXML(self.xml, 0))
        return {
            ("ownerless", "domain", "instance-00000001"),
            ("ownerless", "chain", "nova-inst-1"),
            ("ownerless", "directory", "instance-00000001"),
            ("ownerless", "tap", "tap00000001"),
            ("ownerless", "export", "disk-90"),
        }


@pytest.fixture
async def dead(server: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Dead]:
    """Under a daemon, beside which others can start domains, too."""
    daemon = Daemon(tmp_path_factory.mktemp("d"))
    server.settings = [f"virt.uri={daemon.uri}"]
    async with daemon.running:
        await daemon.start()
        rig = LibvirtRig(daemon.uri, pids=daemon.directory / "run" / "qemu", directory=tmp_path_factory.mktemp("r"))
        yield Dead(server, rig)
        await rig.clear()


async def test_what_nobody_owns_goes_and_the_others_stay(server: Server, dead: Dead) -> None:
    async with server.running():
        await dead.die()
        await launch(server, "alive")
        plant_strangers(server)
        await dead.rig.add_foreign("99999999-0000-4000-8000-000000000001", "somebodys")
        before = len(leftovers(server))

        haunted = await dead.haunt()
        assert await audit(server) == haunted
        assert (await server.cli("gc", "--dry-run")).splitlines()[-1] == "5 to remove"
        assert await audit(server) == haunted
        assert (await server.cli("gc")).splitlines()[-1] == "5 removed"
        assert "differences: 0" in await server.cli("audit")
        assert len(leftovers(server)) == before
        assert await dead.rig.list_foreign() == ["somebodys"]
        assert strangers(server) == [True] * 4
        await server.cli("delete", "alive", "--wait")
        assert "differences: 0" in await server.cli("audit")


async def test_it_goes_by_itself_too(server: Server, dead: Dead) -> None:
    async with server.running():
        await dead.die()
        await launch(server, "alive")
        plant_strangers(server)
        await dead.rig.add_foreign("99999999-0000-4000-8000-000000000001", "somebodys")
        before = len(leftovers(server))
        await dead.haunt()
        assert len(leftovers(server)) > before
    server.settings = [*server.settings, "controller.sweep_s=0.5"]
    async with server.running():

        async def swept() -> bool:
            return not (await server.get("/audit"))["findings"]

        await eventually(swept, within=30, what="the sweep")
        assert len(leftovers(server)) == before
        await until(lambda: server.said.count("removed: ownerless") == 5)
        assert 'launcher_artefacts_removed_total{kind="domain"} 1.0' in await metrics(server)
        assert await dead.rig.list_foreign() == ["somebodys"]
        assert strangers(server) == [True] * 4


async def metrics(server: Server) -> str:
    async with server.http() as http, http.get("/metrics") as answer:
        return await answer.text()


async def test_a_lost_state_directory_is_no_order_to_end_the_guests(server: Server, tmp_path: Path) -> None:
    async with server.running():
        await launch(server, "survivor")
    guests = qemus(server)
    for lost in server.state.glob("controller.db*"):
        lost.unlink()
    server.settings = ["controller.sweep_s=0.2"]
    async with server.running():
        found = await audit(server)
        assert {trouble for trouble, _, _ in found} == {"unknown"}
        assert {kind for _, kind, _ in found} == {"domain", "chain", "directory", "tap", "lease", "dhcp"}
        await server.cli("gc", code=1)
        await server.cli("run", "ami-tiny", "--name", "first")
        assert (await server.get("/instances/first"))["number"] == 2
        await server.cli("delete", "first", "--wait")

        async def told() -> bool:
            return "sweep: unknown domain instance-00000001" in server.said

        await eventually(told, what="the sweep's warning")
        assert qemus(server) == guests
        assert "removed:" not in server.said
        for _ in range(3):
            assert ("unknown", "domain", "instance-00000001") in await audit(server)
        assert qemus(server) == guests


async def test_a_killed_guest_is_missing_or_stopped(server: Server) -> None:
    async with server.running():
        await launch(server, "victim")
        (process,) = qemus(server)
        os.kill(int(process.name), signal.SIGKILL)
        await server.until_instance("victim", status="STOPPED")
        assert "differences: 0" in await server.cli("audit")
        await server.cli("delete", "victim", "--wait")
        assert leftovers(server) == []


@pytest.mark.rabbitmq
async def test_over_rabbitmq_a_host_that_went_away_is_named(server: Server, tmp_path: Path) -> None:
    if not Broker.installed():
        pytest.skip("RABBITMQ TEST NOT RUN: install the package rabbitmq-server")
    (tmp_path / "broker").mkdir()
    broker = Broker(tmp_path / "broker")
    await asyncio.to_thread(broker.start)
    try:
        server.settings = [f"bus.url={broker.url}", "virt.driver=fake", "host.name=first"]
        async with server.running():
            await launch(server, "alive")
            assert "artefacts: 9, differences: 0" in await server.cli("audit")
        server.settings = [*server.settings[:2], "host.name=second"]
        async with server.running():
            said = json.loads(await server.cli("--json", "audit", code=1, within=90))
            assert said["silent"] == ["first"]
    finally:
        await asyncio.to_thread(broker.kill)
