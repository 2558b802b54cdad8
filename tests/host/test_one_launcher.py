"""Two launchers of one host: not at once, and in turns neither ends the other's guests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.host.conftest import leave_nothing
from tests.host.libvirtd import Daemon
from tests.host.test_story import qemus
from tests.serving import Server
from tests.waiting import until

pytestmark = pytest.mark.host


async def test_a_second_one_does_not_start_beside_the_first(server: Server, tmp_path: Path) -> None:
    second = Server(tmp_path / "second")
    async with server.running():
        await second.spawn()
        await until(lambda: second.ended)
        assert second.process is not None
        assert second.process.returncode == 1
        assert "another launcher uses /run/launcher" in second.said
        assert "--sandbox" in second.said
    async with second.running():
        assert json.loads(await second.cli("--json", "list"))["instances"] == []


async def test_the_second_of_two_in_turns_leaves_the_firsts_guests_alone(
    server: Server, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Both through one libvirtd. `launcher gc` of the second used to end them, and its first launch took their tap."""
    daemon = Daemon(tmp_path_factory.mktemp("d"))
    second = Server(tmp_path / "second")
    for each in (server, second):
        each.settings = [f"virt.uri={daemon.uri}"]
    async with daemon.running:
        await daemon.start()
        async with server.running():
            await server.cli("run", "ami-tiny", "--name", "firsts")
        guests = qemus(server)
        assert len(guests) == 1
        second.settings = [*second.settings, "network.bridge=br-second", "network.cidr=10.93.0.0/24"]
        async with second.running():
            assert "differences: 0" in await second.cli("audit")
            assert (await second.cli("gc")).strip() == "nothing removed"
            await second.cli("run", "ami-tiny", "--name", "seconds")
            assert (await second.get("/instances/seconds"))["number"] == 2
            await second.cli("delete", "seconds", "--wait")
            assert qemus(server) == guests
        async with server.running():
            assert "differences: 0" in await server.cli("audit")
            await server.cli("delete", "firsts", "--wait")
            assert qemus(server) == []
    leave_nothing(second)
