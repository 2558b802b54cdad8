"""VLANs with 802.1Q tags, in a kernel that has them."""

from __future__ import annotations

from tests.kernel.other_kernel import run_in_kernel


async def test_each_projects_frames_bear_its_tag_on_the_wire_and_only_they_come_back() -> None:
    found = await run_in_kernel("tests.kernel.tagged")
    assert found["sent"] == [[100, "from 100"], [101, "from 101"]]
    assert found["heard"] == [[100, "to 100"], [101, "to 101"]]
