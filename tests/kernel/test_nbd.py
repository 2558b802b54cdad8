"""Injection by qemu-nbd and a mount, in a kernel that has nbd."""

from __future__ import annotations

from tests.kernel.other_kernel import run_in_kernel


async def test_disks_are_written_to_through_nbd_and_nothing_leaves_them_or_stays() -> None:
    found = await run_in_kernel("tests.kernel.mounting")
    key = "ssh-ed25519 AAAA me@here\n"
    assert found["whole"] == {
        "keys": key,
        "mode": True,
        "interfaces": "auto eth0\n",
        "file": "hello\n",
        "shadow": "root:$6$salt$0123456789abcdef:19000:0:99999:7:::\n",
        "base": "untouched",
    }
    assert found["partition"] == key
    assert found["absent"].endswith("the disk has no partition 3, but 1, 2")
    for attack in ("root", "relative", "ssh", "keys", "proc", "unreadable", "device"):
        assert found["attacks"][attack]["victim"] == "untouched", found["attacks"]
    assert found["attacks"]["inside"] == {"said": "", "victim": "untouched", "inside": key}
    assert "no directory /root" in found["attacks"]["root"]["said"]
    assert "is no regular file" in found["attacks"]["device"]["said"]
    assert "no file system that is one of" in found["no_file_system"]
    assert "all nbd devices are in use" in found["busy"]
    assert found["killed"] == {"connected": [[], []], "mounted": [[], []]}
    assert found["after"] == key
    assert found["left"] == [[], []]
