"""What `launcher doctor` says about routing."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.cli.checks import routing
from launcher.drivers.nat.nftables import NOTE


@pytest.mark.parametrize(
    ("setting", "note", "words"),
    [
        ("0\n", None, "off; `launcher serve` without --sandbox turns it on"),
        ("1\n", None, "was so before launcher"),
        ("1\n", '{"was": "0"}', "launcher set it, it was 0"),
        ("1\n", "half a no", "was so before launcher"),
        ("0\n", '{"was": "0"}', "off"),
    ],
)
def test_what_launcher_changed_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, note: str | None, words: str
) -> None:
    (tmp_path / "ip_forward").write_text(setting)
    monkeypatch.setattr(routing, "ROUTING", tmp_path / "ip_forward")
    if note is not None:
        (tmp_path / NOTE).write_text(note)
    found = routing.routing(tmp_path)
    assert found.verdict == "ok"
    assert words in found.found


def test_a_kernel_without_ipv4_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "ROUTING", tmp_path / "nothing")
    assert routing.routing(tmp_path).verdict == "without"
