"""Where libvirt's embedded driver keeps its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.drivers.virt import embed
from launcher.errors import HostResourceMissing


def test_a_state_directory_with_a_long_path_is_reached_by_a_short_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU refused the path of its monitor socket, and every launch below such a directory failed."""
    monkeypatch.setattr(embed, "LINKS", tmp_path)
    long = tmp_path / ("x" * 90)
    link = embed.reachable(long)
    assert link.readlink() == long
    assert embed.reachable(long) == link
    short = Path("/s")
    assert embed.reachable(short) == short


def test_a_link_that_leads_elsewhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "LINKS", tmp_path)
    long = tmp_path / ("x" * 90)
    link = embed.reachable(long)
    link.unlink()
    link.symlink_to("/elsewhere")
    with pytest.raises(HostResourceMissing, match="leads to /elsewhere"):
        embed.reachable(long)
