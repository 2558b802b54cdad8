"""A disk with partitions and its own boot loaders is started by a BIOS and by UEFI."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from launcher.drivers.images.library import add_image
from launcher.models import Firmware, Machine
from tests.host import partitioned
from tests.host.test_story import leftovers
from tests.serving import LIBRARY, Server

pytestmark = [pytest.mark.host]

FLAVOR = '[[flavors]]\nname = "m1.whole"\nvcpus = 1\nmemory_mb = 256\nroot_gb = 1\n'
LOOK = "ls -d /sys/firmware/efi; cat /proc/partitions; cat /root/.ssh/authorized_keys"


async def test_a_disk_with_partitions_is_started_by_bios_and_by_uefi_and_on_a_q35(
    server: Server, tmp_path: Path
) -> None:
    """UEFI's guests find their key in the second partition, the BIOS's asks the metadata service."""
    if lack := partitioned.missing():
        pytest.skip(f"HOST TEST NOT RUN: {', '.join(lack)} missing; run `make setup`")
    made, library = tmp_path / "made", tmp_path / "library"
    made.mkdir()
    disk = await asyncio.to_thread(partitioned.make_disk, LIBRARY, made)
    kinds = {
        "bios": (Firmware.BIOS, Machine.PC),
        "uefi": (Firmware.UEFI, Machine.PC),
        "q35": (Firmware.UEFI, Machine.Q35),
    }
    for name, (firmware, machine) in kinds.items():
        await asyncio.to_thread(add_image, library, name, disk=disk, firmware=firmware, machine=machine)
    (tmp_path / "config.toml").write_text(FLAVOR)
    server.options = ["--config", str(tmp_path / "config.toml")]
    for names, inject in ((["bios"], '["metadata"]'), (["uefi", "q35"], '["storage-daemon"]')):
        server.settings = [f"images.library={library}", f"images.inject={inject}", "images.inject_partition=2"]
        async with server.running():
            if names == ["bios"]:
                await server.cli("keypair", "create", "test", "--file", str(tmp_path / "test.pem"))
            await asyncio.gather(*(check(server, name, injection=inject[2:-2]) for name in names))
            assert leftovers(server) == []
            await server.cli("audit")


async def check(server: Server, name: str, *, injection: str) -> None:
    words = ["run", name, "--flavor", "m1.whole", "--key", "test", "--name", name]
    await server.cli(*words, "--wait=active,ssh", "--timeout", "150", within=200)
    seen = await server.cli("ssh", name, "--", LOOK)
    assert ("/sys/firmware/efi\n" in seen) is (name != "bios"), seen
    sizes = {words[3]: words[2] for line in seen.splitlines() if len(words := line.split()) == 4}
    assert (sizes["vda"], sizes["vda2"]) == (str(1 << 20), str(16 << 10))
    assert seen.count("ssh-ed25519") == 1
    assert (await server.get(f"/instances/{name}/readiness"))["injection"] == injection
    await server.cli("delete", name, "--wait")
