"""The result of one check."""

from __future__ import annotations

from typing import NamedTuple

OK, WITHOUT, BROKEN = "ok", "without", "broken"


class Finding(NamedTuple):
    """What was looked at, the verdict, what was found (and what launcher does instead), the next thing to try."""

    name: str
    verdict: str
    found: str
    advice: str = ""
