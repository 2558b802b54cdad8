"""The commands `floating-ip` and `expose` against a whole launcher and a server that echoes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from launcher.cli import expose
from launcher.cli.client import Exit, Failure
from tests.flow.conftest import Run
from tests.flow.house import TOKEN, House
from tests.flow.test_floating_ips import FIRST, POOLS, leading
from tests.unit.stub_api import StubApi, make_instance


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    async with House(tmp_path, pools=POOLS).open() as house:
        monkeypatch.setenv("LAUNCHER_URL", house.url)
        monkeypatch.setenv("LAUNCHER_TOKEN", TOKEN)
        yield house


async def test_floating_ips_by_the_command_line(house: House, launcher: Run) -> None:
    for name in ("web", "db"):
        await launcher(f"run ami-tiny --name {name} --wait=active")
    web = await house.ask("GET", "/instances/web")
    assert (await launcher("floating-ip create"))[1].split()[-4:] == [FIRST, "public", "-", "-"]
    assert (await launcher("floating-ip create --pool other --address 198.51.100.5 --json"))[0] == Exit.OK
    table = (await launcher(f"floating-ip associate {FIRST} web"))[1]
    assert table.split()[-4:] == [FIRST, "public", web["addresses"][0], web["id"]]
    assert leading(house) == {FIRST: web["addresses"][0]}
    assert (await launcher("metadata web latest/meta-data/public-ipv4"))[1].strip() == FIRST
    assert (await launcher("metadata db latest/meta-data/public-ipv4"))[1].strip() == ""

    code, _, said = await launcher(f"floating-ip associate {FIRST} db")
    assert code == Exit.REFUSED
    assert "--reassociate" in said
    assert (await launcher(f"floating-ip associate {FIRST} db --reassociate"))[0] == Exit.OK
    listed = json.loads((await launcher("floating-ip list --json"))[1])["floating_ips"]
    assert [each["address"] for each in listed] == ["198.51.100.5", FIRST]

    code, _, said = await launcher(f"floating-ip delete {FIRST} 198.51.100.5")
    assert code == Exit.REFUSED
    assert "floating-ip disassociate" in said
    assert await launcher(f"floating-ip disassociate {FIRST}") == (Exit.OK, "", "")
    assert await launcher(f"floating-ip delete {FIRST}") == (Exit.OK, "", "")
    assert (await launcher(f"floating-ip delete {FIRST}"))[0] == Exit.NOT_FOUND
    assert (await launcher("floating-ip list"))[1].split() == ["ADDRESS", "POOL", "FIXED", "INSTANCE"]


@contextlib.asynccontextmanager
async def exposing(*words: str, **environment: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The command and its first line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "launcher", "expose", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        yield process, (await process.stdout.readline()).decode()
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def talk(port: int, words: bytes) -> bytes:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(words)
        said = await reader.read(len(b"hello ") + len(words))
        while words and not said.endswith(words):
            said += await reader.read(100)
        writer.close()
        return said


async def test_a_port_here_leads_to_the_guest_for_many_at_once(tmp_path: Path) -> None:
    stub = StubApi({"GET /instances/web": make_instance()}, greeting=b"hello ")
    async with TestServer(stub.application()) as server:
        environment = {"LAUNCHER_URL": str(server.make_url("/")), "LAUNCHER_TOKEN": "lt_secret"}
        async with exposing("web", "8080", **environment) as (process, line):
            found = re.fullmatch(r"127\.0\.0\.1:(\d+) is port 8080 of web; interrupt to end it\n", line)
            assert found is not None
            port = int(found[1])
            said = await asyncio.gather(*(talk(port, f"n{each}".encode()) for each in range(5)))
            assert said == [f"hello n{each}".encode() for each in range(5)]
            stub.greeting = b""
            assert await talk(port, b"") == b""
            stub.greeting = b"again "
            assert (await talk(port, b"x")).startswith(b"again ")
            process.send_signal(signal.SIGINT)
            _, complaint = await process.communicate()
            assert process.returncode == 130
            assert b"Connection refused" in complaint


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with expose.listen(port, None) as other:
            assert other.getsockname()[1] != port
        with pytest.raises(Failure, match=f"127.0.0.1:{port}"):
            expose.listen(22, port)


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
async def test_what_is_no_port_is_refused(launcher: Run, port: str) -> None:
    with pytest.raises(SystemExit) as leaving:
        await launcher(f"expose web {port}")
    assert leaving.value.code == Exit.USAGE
