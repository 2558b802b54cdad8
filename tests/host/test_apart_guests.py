"""Two projects, the same address, real guests: each is itself to its gateway, its metadata, the internet, its owner."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.drivers.nat.nftables import ROUTING
from launcher.outside import INNER
from tests.host.test_nat import HOST, INTERNET, Machine, run
from tests.host.test_outside import PORT, exposing, greeting, telling
from tests.serving import Server

pytestmark = pytest.mark.host

POOL = "network.pools=[{name='public', cidr='192.0.2.32/28', interface='outside'}]"
FLOATING = {"blue": "192.0.2.33", "red": "192.0.2.34"}
ADDRESS, GATEWAY, LISTENING = "10.0.0.2", "10.0.0.1", 7001
LOOKS = (
    f"ping -c 1 -W 2 {GATEWAY} > /dev/null && echo gateway",
    "wget -q -O - http://169.254.169.254/latest/meta-data/hostname; echo",
    f"nslookup $(hostname) {GATEWAY} 2> /dev/null | grep -c 'Address: {ADDRESS}'",
    f"nc {INTERNET} {PORT}",
)


@pytest.fixture
def internet(sandboxed: None) -> Iterator[Machine]:
    """Beyond the device on which a server in a sandbox, such as the tests', has its floating IPs."""
    was = ROUTING.read_text()
    made = Machine(INNER, "02:00:00:00:00:01", f"{INTERNET}/24", None)
    run("ip", "address", "add", f"{HOST}/24", "dev", INNER)
    yield made
    made.close()
    ROUTING.write_text(was)


def let_in(server: Server) -> str:
    """A token of the administrator's for a second project."""
    token, digest = "lt_red", hashlib.sha256(b"lt_red").hexdigest()
    with contextlib.closing(sqlite3.connect(server.state / "controller.db", timeout=10)) as db, db:
        user, role = db.execute("SELECT user_id, role FROM credentials WHERE kind = 'token'").fetchone()
        db.execute("INSERT INTO projects VALUES ('red', 'red', '', 1, 0)")
        db.execute("INSERT INTO grants VALUES (?, 'red', ?)", (user, role))
        db.execute(
            "INSERT INTO credentials VALUES ('c-red', 'token', '', ?, 'red', ?, ?, '', NULL, 0, NULL)",
            (user, role, digest),
        )
    return token


class Projects:
    """The command line, as one project or the other."""

    def __init__(self, server: Server, environment: pytest.MonkeyPatch) -> None:
        self.server, self.environment = server, environment
        self.tokens = {"blue": server.admin["token"], "red": let_in(server)}

    def be(self, project: str) -> None:
        self.environment.setenv("LAUNCHER_URL", self.server.admin["url"])
        self.environment.setenv("LAUNCHER_TOKEN", self.tokens[project])

    async def launch(self, project: str, directory: Path) -> None:
        owner = {"blue": "admin", "red": "red"}[project]
        await self.server.cli("network", "create", "lan", "10.0.0.0/24", "--project", owner)
        self.be(project)
        await self.server.cli("keypair", "create", project, "--file", str(directory / project))
        await self.server.cli("group", "create", "web", "--rule", "tcp:22", "--rule", f"tcp:{LISTENING}")
        launch = ("run", "ami-tiny", "--key", project, "--group", "web", "--name", project, "--wait=active,ssh")
        await self.server.cli(*launch)

    async def look(self, project: str, seen_as: str) -> None:
        """All that the guest sees is its own."""
        self.be(project)
        said = await self.server.cli("ssh", project, "--", "; ".join(LOOKS))
        assert said.split("\n")[:4] == ["gateway", f"{project}.novalocal", "1", f"you are {seen_as}"]


async def test_two_projects_have_the_same_address(
    server: Server, internet: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.settings = ["network.mode=vlan", "network.overlay=none", POOL]
    async with telling(internet), server.running():
        projects = Projects(server, monkeypatch)
        for project in FLOATING:
            projects.be("blue")
            await projects.launch(project, tmp_path)
            (instance,) = (await server.cli_json("list"))["instances"]
            assert instance["addresses"] == [ADDRESS]
        for project, floating in FLOATING.items():
            await projects.look(project, HOST)
            serve = f"(nc -ll -p {LISTENING} -e hostname > /dev/null 2>&1 &)"
            await server.cli("ssh", project, "--", serve)
            assert (await server.cli_json("floating-ip", "create"))["address"] == floating
            await server.cli("floating-ip", "associate", floating, project)
        for project, floating in FLOATING.items():
            await projects.look(project, floating)
            assert await greeting(floating, LISTENING) == f"{project}.novalocal\n".encode()
            async with exposing(server, project, str(LISTENING)) as port:
                assert await greeting("127.0.0.1", port) == f"{project}.novalocal\n".encode()
            assert await server.cli("network", "explain", project, "--from", "10.0.0.9", "--port", "22")
        assert await server.stop() == 0
        await server.start()
        projects.tokens["blue"] = server.admin["token"]
        for project, floating in FLOATING.items():
            await projects.look(project, floating)
            await server.cli("delete", project, "--wait")
            await server.cli("floating-ip", "delete", floating)
        projects.be("blue")
        assert (await server.cli_json("audit"))["findings"] == []
        for network in (await server.cli_json("network", "list"))["networks"]:
            await server.cli("network", "delete", str(network["id"]))
    assert not list((server.state / "namespaces").iterdir())
    assert "nova-apart" not in run("nft", "list", "tables")
