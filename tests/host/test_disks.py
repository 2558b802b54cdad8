"""What a guest sees of its disks: sizes, contents, and what was put into them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host.test_story import leftovers
from tests.serving import Server

pytestmark = [pytest.mark.host]

FLAVOR = """
[images]
disk_format = "{format}"

[[flavors]]
name = "m1.disks"
vcpus = 1
memory_mb = 256
root_gb = 3
ephemeral_gb = 2
swap_mb = 64
"""
HASH = "$6$salt$0123456789abcdef./"
LOOK = """
cat /proc/partitions
mount /dev/vdb /mnt && df -k /mnt | tail -n 1 && echo writable > /mnt/try && cat /mnt/try; umount /mnt
swapon /dev/vdc && tail -n 1 /proc/swaps
echo drive; dd if=/dev/vdd bs=8 skip=4101 count=1 2>/dev/null; echo x | dd of=/dev/vdd 2>&1
grep -a -o -m 1 '"uuid": "[^"]*"' /dev/vdd
echo files; cat /etc/greeting; ls -l /etc/greeting; grep ^root: /etc/shadow
"""


@pytest.mark.parametrize("format", ["qcow2", "raw"])
async def test_a_guest_has_the_disks_of_its_flavor_and_finds_what_it_was_given(
    server: Server, tmp_path: Path, format: str
) -> None:
    (tmp_path / "config.toml").write_text(FLAVOR.format(format=format))
    (tmp_path / "greeting").write_text("hello from a file\n")
    server.options = ["--config", str(tmp_path / "config.toml")]
    async with server.running():
        await server.cli("keypair", "create", "test", "--file", str(tmp_path / "test.pem"))
        words = ["run", "ami-tiny", "--flavor", "m1.disks", "--key", "test", "--name", "disks", "--config-drive"]
        words += ["--file", f"/etc/greeting={tmp_path / 'greeting'}", "--password-hash", HASH]
        await server.cli(*words, "--wait=active,ssh", within=90)
        seen = await server.cli("ssh", "disks", "--", LOOK)
        sizes = {
            words[3]: int(words[2]) for line in seen.splitlines() if "vd" in line and len(words := line.split()) == 4
        }
        assert [sizes[f"vd{letter}"] for letter in "abc"] == [3 << 20, 2 << 20, 64 << 10]
        assert "writable" in seen
        assert "/dev/vdc" in seen.partition("writable")[2].partition("drive")[0]
        assert "config-2" in seen
        assert "write error" in seen or "Operation not permitted" in seen or "Read-only" in seen
        shown = await server.get("/instances/disks/readiness")
        assert f'"uuid": "{shown["instance"]["id"]}"' in seen
        assert shown["injection"] == "storage-daemon, config-drive"
        files = seen.split("files\n")[1]
        assert files.startswith("hello from a file\n-rw-------")
        assert f"root:{HASH}:" in files
        await server.cli("delete", "disks", "--wait")
        assert leftovers(server) == []
        await server.cli("audit")
