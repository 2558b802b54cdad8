"""Lets AMQP messages in whose properties cannot be decoded, so that they become dead letters as any poison does.

pamqp 4.0 refuses such a frame and aiormq 7.2 gives the connection up for it; the broker then delivers the message
again, to the same end: one of them kept all roles of a process from hearing anything, for ever (tried).
"""

from __future__ import annotations

import struct

from pamqp.commands import Basic
from pamqp.header import ContentHeader

TYPE = "launcher.unreadable"
"""What such a message has for its type, and nothing else."""

_decode = ContentHeader.unmarshal


def let_in() -> None:
    """For the whole process; repeating it is success."""
    ContentHeader.unmarshal = _unmarshal  # type: ignore[assignment, method-assign]  # there is no hook


def _unmarshal(header: ContentHeader, data: bytes) -> None:
    try:
        _decode(header, data)
    except (struct.error, ValueError):
        if header.class_id is None:  # not even the size of the body is known
            raise
        header.properties = Basic.Properties(message_type=TYPE)
