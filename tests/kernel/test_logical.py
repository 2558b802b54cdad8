"""Volumes on LVM, in a kernel that has a device mapper."""

from __future__ import annotations

import shutil

import pytest

from tests.kernel.other_kernel import run_in_kernel

STORY = {
    "new": [8, []],
    "copies": ["second", "first", "first"],
    "larger copy": [16, [0]],
    "extended": [24, [0], "second"],
    "all": ["volume-00000001", "snapshot-00000002", "volume-00000003"],
    "full": "",
    "gone": True,
    "again": [],
}


async def test_no_volume_on_lvm_shows_what_lay_there_before() -> None:
    if shutil.which("lvcreate") is None:
        pytest.skip("LVM TEST NOT RUN: install the packages lvm2 and thin-provisioning-tools")
    found = await run_in_kernel("tests.kernel.logical")
    assert found["thick"] == {**STORY, "left": ""}
    assert found["cut off"] == ["volume-00000008"]
    assert found["thin"] == {**STORY, "left": "pool"}
