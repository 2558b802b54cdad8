"""What libvirt's logs tell of ends that nobody saw; the lines are libvirt 9.0's."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.drivers.virt.ends import last_end, read_end

START = b"2026-11-29 16:10:20.203+0000: starting up libvirt version: 9.0.0, package: 9.0.0-4\n-name guest=x \\\n"
NOISE = b"char device redirected to /dev/pts/0\n2026-11-29T16:10:23.3Z qemu-system-x86_64: terminating on signal 15\n"
SHUTDOWN = b"2026-11-29 16:10:23.606+0000: shutting down, reason=shutdown\n"
CRASHED = b"2026-11-29 16:10:23.606+0000: shutting down, reason=crashed\n"


@pytest.mark.parametrize(
    ("log", "end"),
    [
        (b"", None),
        (START + NOISE, None),
        (START + NOISE + SHUTDOWN, "shutdown"),
        (START + SHUTDOWN + NOISE, "shutdown"),
        (START + SHUTDOWN + START + CRASHED, "crashed"),
        (START + SHUTDOWN + START, None),
        (START + b"guest said: " + SHUTDOWN, None),
    ],
)
def test_the_last_note_counts(log: bytes, end: str | None) -> None:
    assert last_end(log) == end


def test_a_log_is_found_where_libvirt_is_in_the_process(tmp_path: Path) -> None:
    uri = f"qemu:///embed?root={tmp_path}"
    assert read_end(uri, "instance-00000001") is None
    (tmp_path / "log" / "qemu").mkdir(parents=True)
    (tmp_path / "log" / "qemu" / "instance-00000001.log").write_bytes(START * 2000 + SHUTDOWN)
    assert read_end(uri, "instance-00000001") == "shutdown"
    assert read_end("qemu+unix:///system?socket=/elsewhere", "instance-00000001") is None
