"""Secrets of a real launch: not in the log at its wordiest, not in `ps`, not in files that other users can read."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.rabbitmq import Broker
from tests.serving import Server

pytestmark = [pytest.mark.host, pytest.mark.rabbitmq]

USER_DATA = b"canary-in-user-data\n"


class Onlooker:
    """Notes the command line of every process that comes by."""

    def __init__(self) -> None:
        self.lines: set[str] = set()

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._look())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _look(self) -> None:
        while True:
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.lines.add(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            await asyncio.sleep(0.002)


def readable_by_others(directory: Path) -> Iterator[Path]:
    """Files that a user who is neither owner nor in the group can open, knowing their names."""
    for path in directory.iterdir():
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) and mode & stat.S_IXOTH:
            yield from readable_by_others(path)
        elif stat.S_ISREG(mode) and mode & stat.S_IROTH:
            yield path


async def test_nothing_that_people_can_read_has_them(server: Server, broker: Broker, tmp_path: Path) -> None:
    server.settings = [f"bus.url={broker.url}", "host.log_level=debug", "virt.virt_type=qemu"]
    key, user_data = tmp_path / "mine.pem", tmp_path / "user-data"
    user_data.write_bytes(USER_DATA)
    onlooker = Onlooker()
    async with onlooker.looking(), server.running():
        await server.cli("keypair", "create", "mine", "--file", str(key))
        words = ["run", "ami-tiny", "--key", "mine", "--name", "canary", "--user-data", str(user_data)]
        await server.cli(*words, "--wait=active,ssh")
        assert await server.cli("ssh", "canary", "--", "cat /run/user-data") == USER_DATA.decode()
        await server.cli("delete", "canary", "--wait")
    secrets = [line for line in key.read_text().splitlines() if "-----" not in line]
    secrets += [server.admin[name] for name in ("token", "password", "secret_key")] + ["guest:guest"]
    secrets += [USER_DATA.decode().strip(), base64.b64encode(USER_DATA).decode()]
    log = server.log.read_text()
    assert "DEBUG" in log
    assert [secret for secret in secrets if secret in log] == []
    assert any("qemu-system" in line for line in onlooker.lines)
    ours = [line for line in onlooker.lines if f"bus.url={broker.url}" not in line]  # this test's own words
    assert [(secret, line) for secret in secrets for line in ours if secret in line] == []
    for path in readable_by_others(server.state):
        content = path.read_bytes()
        assert [secret for secret in secrets if secret.encode() in content] == [], path
