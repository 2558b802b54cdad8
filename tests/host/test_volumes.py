"""Volumes with real guests: what one writes the next one reads, under load and over a restart of the server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.serving import Server
from tests.waiting import eventually

pytestmark = pytest.mark.host

GIB = 2**30
WRITER = """
cat > /tmp/writer << 'END'
exec 3<> /dev/vdb
n=0
while [ $n -lt 4000 ]; do
  yes "block $n" | head -c 4096 > /tmp/block
  dd if=/tmp/block bs=4096 conv=notrunc,fsync >&3 2> /dev/null || break
  echo $n > /tmp/acknowledged
  n=$((n + 1))
done
END
sh /tmp/writer < /dev/null > /dev/null 2>&1 &
"""
"""Each block says which it is; one that is acknowledged was on the disk when `dd` returned."""


async def in_guest(server: Server, name: str, script: str) -> str:
    return (await server.cli("ssh", name, "--", script)).strip()


async def acknowledged(server: Server, name: str) -> int:
    return int(await in_guest(server, name, "cat /tmp/acknowledged 2> /dev/null || echo 0"))


async def test_what_one_guest_writes_the_next_one_reads(server: Server, tmp_path: Path) -> None:
    async with server.running():
        await server.cli("keypair", "create", "test", "--file", str(tmp_path / "test.pem"))
        for name in ("one", "two"):
            await server.cli("run", "ami-tiny", "--key", "test", "--name", name, "--wait=active,ssh")
        for name in ("data", "more"):
            await server.cli("volume", "create", name, "--size", "1", "--near", "one")
        made = await server.cli_json("volume", "attach", "data", "one")
        seen = await in_guest(server, "one", "cat /sys/block/vdb/size /sys/block/vdb/serial")
        assert (made["attachment"]["device"], seen.split()) == ("vdb", [str(GIB // 512), made["id"][:20]])
        assert await in_guest(server, "one", "head -c 64k /dev/vdb | tr -d '\\0' | wc -c") == "0"
        await _write_while_another_comes_and_goes(server)
        await server.cli("volume", "detach", "data")  # under load: the writer ends with an error
        assert await in_guest(server, "one", "[ -e /sys/block/vdb ] || echo gone") == "gone"
        written = await acknowledged(server, "one")
        await server.kill()
        await server.start()
        assert "data" in await server.cli("volume", "list")
        await server.cli("volume", "create", "copy", "--snapshot", "old")
        for name in ("data", "copy"):
            await server.cli("volume", "attach", name, "two")
        await _check_blocks(server, "two", "vdb", written)
        assert (
            await in_guest(server, "two", "head -c 7 /dev/vdc; cat /sys/block/vdc/size") == f"block 0{2 * GIB // 512}"
        )
        await server.cli("audit")
        await server.cli("delete", "one", "two", "--wait")
        shown = await server.cli_json("volume", "list")
        assert {each["name"]: each["status"] for each in shown["volumes"]} == dict.fromkeys(
            ("data", "more", "copy"), "available"
        )
        await server.cli("volume", "delete", "data", "more", "copy")
        await server.cli("snapshot", "delete", "old")
        await eventually(lambda: _gone(server), what="an empty directory of volumes")


async def _write_while_another_comes_and_goes(server: Server) -> None:
    """The other is plugged and pulled, and this one grows and is copied, while the guest writes and goes on writing."""
    await in_guest(server, "one", WRITER)
    for _ in range(2):
        await server.cli("volume", "attach", "more", "one")
        await server.cli("volume", "detach", "more")
    before = await acknowledged(server, "one")
    await server.cli("volume", "extend", "data", "2")
    assert await in_guest(server, "one", "cat /sys/block/vdb/size") == str(2 * GIB // 512)
    await server.cli("volume", "snapshot", "data", "--name", "old", "--force")

    async def goes_on() -> bool:
        return await acknowledged(server, "one") > before

    await eventually(goes_on, within=30, what="the guest writing on")


async def _check_blocks(server: Server, name: str, device: str, last: int) -> None:
    """Every block that was acknowledged says which it is."""
    assert last > 0
    script = f"n=0; while [ $n -le {last} ]; do dd if=/dev/{device} bs=4096 skip=$n count=1 2>/dev/null | head -n 1"
    said = (await in_guest(server, name, f"{script}; n=$((n + 1)); done")).splitlines()
    assert said == [f"block {number}" for number in range(last + 1)]


async def _gone(server: Server) -> bool:
    return await asyncio.to_thread(lambda: not list((server.state / "volumes").glob("*-*")))
