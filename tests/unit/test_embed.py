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


def test_of_a_domain_that_never_had_a_process_no_sign_of_life_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "_check_account", lambda: None)
    (tmp_path / "run" / "qemu").mkdir(parents=True)
    unborn, born = (tmp_path / "run" / "qemu" / name for name in ("unborn.xml", "born.xml"))
    unborn.write_text("<!-- pid='0' -->\n<domstatus state='paused' reason='starting up' pid='0'>\n<x pid='0'/>")
    born.write_text("<domstatus state='running' reason='booted' pid='17'>\n<x pid='0'/>")
    before = born.read_text()
    for _ in range(2):
        embed.prepare(tmp_path)
        assert unborn.read_text().count(f"pid='{embed.NOBODY}'") == 1
        assert unborn.read_text().endswith("<x pid='0'/>")
        assert born.read_text() == before
