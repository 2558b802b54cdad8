"""QEMU's control protocol over a program's standard input and output: one JSON object per line.

Source: QEMU's docs/interop/qmp-spec. A private pipe needs no socket file, and nobody else can speak on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from typing import Any

from launcher.errors import DriverError, InjectionFailed

LONGEST_LINE = 2**20


class ConnectionLost(Exception):  # internal: never crosses the bus
    """The other end is gone; what it was doing is unknown."""


class Qmp:
    """A conversation with one program. Commands may overlap; each has a time limit of `timeout` seconds."""
