"""What becomes of files that are there already; pure."""

from __future__ import annotations

from launcher.errors import InjectionFailed

LARGEST_FILE = 2**20
"""Bytes; an image could hold a file that fills the host's disk when it is read."""
SHADOW = "/etc/shadow"


def with_key(found: bytes, public_key: str) -> bytes:
    """The file of keys as it should be: the same when the key is in it already."""
    lines, key = found.splitlines(), public_key.strip().encode()
    return found if key in lines else b"".join(line + b"\n" for line in (*lines, key))


def with_password(found: bytes, password_hash: str) -> bytes:
    """The shadow file with root's password changed; raises InjectionFailed when root is not in it."""
    lines = found.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.startswith(b"root:"):
            lines[number] = b":".join((b"root", password_hash.encode(), *line.split(b":")[2:]))
            return b"".join(lines)
    raise InjectionFailed(f"{SHADOW} in the disk has no line for root")
