"""The sandbox's ways out and in, with a real guest: the test's own network is the host, the internet is a namespace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from launcher.drivers.nat.nftables import ROUTING
from tests.host.lan import namespace
from tests.host.test_nat import HOST, INTERNET, UPLINK, Machine, run
from tests.serving import Server
from tests.waiting import until

pytestmark = pytest.mark.host

POOL = "network.pools=[{name='public', cidr='203.0.113.0/29', interface='eth0'}]"
FLOATING, PORT = "203.0.113.1", 7000


@pytest.fixture
def internet(sandboxed: None) -> Iterator[Machine]:
    made = Machine(UPLINK, "02:00:00:00:00:01", f"{INTERNET}/24", None)
    run("ip", "address", "add", f"{HOST}/24", "dev", UPLINK)
    yield made
    made.close()


def of_the_host() -> list[str]:
    """Everything a sandbox could have changed."""
    shown = [("ip", "-br", "link"), ("ip", "-br", "address"), ("ip", "route"), ("nft", "list", "ruleset")]
    return [ROUTING.read_text(), *(run(*each) for each in shown)]


async def greeting(address: str, port: int) -> bytes:
    """What a server says first; nothing while it cannot be reached."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(address, port)
            said = await reader.readline()
            writer.close()
            return said
    return b""


@contextlib.asynccontextmanager
async def telling(internet: Machine) -> AsyncIterator[None]:
    """A server of the internet that tells each client its address."""

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"you are {writer.get_extra_info('peername')[0]}\n".encode())
        writer.close()

    with namespace(internet.descriptor):
        listener = socket.create_server((str(INTERNET), PORT))
    async with await asyncio.start_server(tell, sock=listener):
        yield


@contextlib.asynccontextmanager
async def exposing(server: Server, *words: str) -> AsyncIterator[int]:
    """The command `expose` and the port it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "launcher", "expose", *words),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "LAUNCHER_STATE": str(server.state)},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            said = await process.stdout.readline()
        yield int(said.split(b" ")[0].rpartition(b":")[2])
    finally:
        process.terminate()
        await process.wait()


async def test_a_guest_of_the_sandbox_reaches_out_and_is_reached(
    server: Server, internet: Machine, tmp_path: Path
) -> None:
    if shutil.which("slirp4netns") is None:
        pytest.skip("HOST TEST NOT RUN: slirp4netns is missing; run `make setup`")
    before = of_the_host()
    server.options, server.settings = ["--sandbox"], [POOL]
    async with telling(internet), server.running():
        await server.cli("keypair", "create", "test", "--file", str(tmp_path / "test.pem"))
        await server.cli("group", "create", "ssh", "--rule", "tcp:22")
        launch = ("run", "ami-tiny", "--key", "test", "--group", "ssh", "--name", "inside", "--wait=active,ssh")
        await server.cli(*launch)
        ask = ("ssh", "inside", "--", f"nc {INTERNET} {PORT}")
        assert await server.cli(*ask) == f"you are {HOST}\n"

        made = await server.cli_json("floating-ip", "create")
        assert made["address"] == FLOATING
        await server.cli("floating-ip", "associate", FLOATING, "inside")
        assert (await greeting(FLOATING, 22)).startswith(b"SSH-2.0-dropbear")
        assert await server.cli(*ask) == f"you are {HOST}\n"

        async with exposing(server, "inside", "22") as port:
            assert (await greeting("127.0.0.1", port)).startswith(b"SSH-2.0-dropbear")

        await server.cli("floating-ip", "disassociate", FLOATING)
        assert await greeting(FLOATING, 22) == b""
        await server.cli("floating-ip", "delete", FLOATING)
        await server.kill()
        await until(lambda: of_the_host() == before, within=10)
    assert of_the_host() == before
    assert subprocess.run(["pgrep", "-x", "slirp4netns"], stdout=subprocess.DEVNULL, check=False).returncode == 1


async def test_what_is_missing_is_said(server: Server, tmp_path: Path) -> None:
    """A machine without a program that carries packets out; the rest goes on."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in (path for directory in ("/usr/sbin", "/usr/bin") for path in Path(directory).iterdir()):
        if program.name != "slirp4netns" and not (programs / program.name).exists():
            (programs / program.name).symlink_to(program)
    server.options, server.environment = ["--sandbox"], {"PATH": str(programs)}
    async with server.running():
        assert "guests do not reach out of the sandbox: `apt install slirp4netns`" in server.said
