"""How answers are shown: aligned tables and fields for people, JSON for programs, colour only on a terminal."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

from launcher.cli.client import Failure, Json

COLOURS = {"ACTIVE": "32", "ok": "32", "BUILD": "33", "DELETING": "33", "without": "33", "ERROR": "31", "broken": "31"}

_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_json_line(value: object) -> None:
    """One of many, as they come."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_failure(failure: Failure) -> None:
    """To stderr: the title, the details, and what to try."""
    print(f"launcher: {harmless(failure.title)}", file=sys.stderr)
    for label, text in (("", failure.detail), ("try: ", failure.hint)):
        for line in text.splitlines():
            print(f"  {label}{harmless(line)}", file=sys.stderr)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    for line in table([header, *rows]):
        print(painted(harmless(line)))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Every column as wide as its widest cell, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def print_exports(variables: Mapping[str, str]) -> None:
    """For a shell's `eval`."""
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """One `name  value` a line; what has no value is left out."""
    known = [(name, value) for name, value in fields if value]
    for line in table(known) if known else ():
        print(painted(harmless(line)))


def painted(line: str) -> str:
    """The words for a state in their colour, on a terminal that wants it (NO_COLOR is honoured)."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return line
    words = "|".join(COLOURS)
    return re.sub(rf"\b({words})\b", lambda found: f"\x1b[{COLOURS[found[1]]}m{found[1]}\x1b[0m", line)


def harmless(text: str) -> str:
    """A guest or another user wrote it: no control sequence of it may reach the terminal."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def duration(ms: float) -> str:
    """412 ms, 3.1 s, 5m 12s, 3h 20m, 4d 2h."""
    if ms < 1000:
        return f"{max(0, ms):.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(int(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {seconds}s"


def age(since_ms: float | None) -> str:
    return "" if since_ms is None else duration(time.time() * 1000 - since_ms)


def moment(at_ms: float | None) -> str:
    """Local time to the millisecond."""
    if at_ms is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000)) + f".{int(at_ms) % 1000:03d}"


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def status(instance: Json) -> str:
    """The status, with the step that is under way and for how long it has been."""
    if not instance["task_state"]:
        return str(instance["status"])
    return f"{instance['status']} {instance['task_state']} {age(instance['state_since_ms'])}"
