"""How machines ended while nobody watched: libvirt notes each start and each end in the log of the domain.

Domains are transient, so libvirt itself has forgotten those that ended. What was powered off inside while its libvirt
was away stands still until that is back, which then notes a shutdown.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from launcher.drivers.virt import embed

DAEMONS_LOGS = {"qemu:///system": Path("/var/log/libvirt/qemu")}
TAIL = 65_536
"""Bytes of a log that are read; what QEMU itself says is short."""
_NOTE = re.compile(rb"^[-\d]+ [\d:.+]+: (?:starting up\b|shutting down, reason=(\w+)$)", re.MULTILINE)


def read_end(uri: str, name: str) -> str | None:
    """libvirt's word for the end of the domain's last machine; None where it wrote none or cannot be read. Blocks."""
    root = embed.embed_root(uri)
    logs = root / "log" / "qemu" if root else DAEMONS_LOGS.get(uri)
    if logs is None:
        return None
    with contextlib.suppress(OSError), (logs / f"{name}.log").open("rb") as log:
        log.seek(max(0, log.seek(0, 2) - TAIL))
        return last_end(log.read())
    return None


def last_end(log: bytes) -> str | None:
    """None when a start came after it, or nothing did: a host that lost its power writes nothing."""
    notes = _NOTE.findall(log)
    return notes[-1].decode() or None if notes else None
