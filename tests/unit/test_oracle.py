"""OpenStack's own inspector beside the gate: what that does not take, the gate does not, with one exception."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from oslo_utils.imageutils import format_inspector

from launcher.drivers import process
from launcher.drivers.images import gate
from launcher.errors import BadImage


def oracle(path: Path) -> str | None:
    """The format as which OpenStack would take it; None when it would not."""
    try:
        found = format_inspector.detect_file_format(str(path))
        if found is None:
            return None
        found.safety_check()
    except Exception:  # noqa: BLE001 - whatever it says, it does not take it
        return None
    return str(found)


def ours(path: Path) -> str | None:
    try:
        return str(gate.inspect(path).format)
    except BadImage:
        return None


async def make(path: Path, *words: str) -> None:
    await process.run(["qemu-img", "create", "-q", *words[:-1], path, words[-1]])


def patch(path: Path, offset: int, value: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(value)


def data_file(path: Path) -> None:
    patch(path, 72, struct.pack(">Q", 4))


def unknown_feature(path: Path) -> None:
    patch(path, 72, struct.pack(">Q", 1 << 40))


def as_raw(path: Path) -> None:
    path.write_bytes(b"\0" * 2**20)


def vmdk_in_front(path: Path) -> None:
    patch(path, 0, b"KDMV" + b"\1\0\0\0")


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (("-f", "qcow2", "1M"), None),
        (("-f", "qcow2", "-o", "compat=0.10", "1M"), None),
        (("-f", "qcow2", "1M"), data_file),
        (("-f", "qcow2", "1M"), unknown_feature),
        (("-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", "-u", "1M"), None),
        (("-f", "qcow2", "1M"), as_raw),
        (("-f", "qcow2", "1M"), vmdk_in_front),
    ],
)
async def test_the_gate_is_no_wider_than_openstacks(
    tmp_path: Path, words: tuple[str, ...], change: Callable[[Path], None] | None
) -> None:
    await make(tmp_path / "image", *words)
    if change:
        change(tmp_path / "image")
    assert ours(tmp_path / "image") == (oracle(tmp_path / "image") if change is not vmdk_in_front else None)


@pytest.mark.parametrize("format", ["vmdk", "vdi", "vpc", "vhdx", "qed"])
async def test_what_only_openstack_takes_is_called_by_its_name(tmp_path: Path, format: str) -> None:
    await make(tmp_path / "image", "-f", format, "4M")
    assert ours(tmp_path / "image") is None
    assert oracle(tmp_path / "image") != "raw"


async def test_extended_entries_are_known_here_and_not_to_openstack(tmp_path: Path) -> None:
    """They change how a table is read, and lead nowhere."""
    await make(tmp_path / "image", "-f", "qcow2", "-o", "extended_l2=on", "1M")
    assert (ours(tmp_path / "image"), oracle(tmp_path / "image")) == ("qcow2", None)
