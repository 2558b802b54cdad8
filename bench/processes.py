"""What /proc tells of a process: CPU time, memory, children (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def cpu_ms(pid: int) -> float:
    """Milliseconds of CPU that the process has used, its ended children not counted. Ticks are 10 ms long."""
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / _TICKS


def memory_mb(pid: int) -> tuple[float, float]:
    """RSS, and PSS: RSS with each shared page divided by the number of those who share it. MiB."""
    lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return kib["Rss"] / 1024, kib["Pss"] / 1024


def command(pid: int) -> list[str]:
    return (_PROC / str(pid) / "cmdline").read_text().split("\0")[:-1]


def children(pid: int) -> list[int]:
    return [int(word) for word in (_PROC / str(pid) / "task" / str(pid) / "children").read_text().split()]


def descendants(pid: int) -> list[int]:
    return [deeper for child in children(pid) for deeper in (child, *descendants(child))]


def lineage(pid: int) -> list[int]:
    """The process, its fork, that one's fork …: those that run the same command line."""
    forks = [child for child in children(pid) if command(child) == command(pid)]
    return [pid, *(lineage(forks[0]) if forks else [])]
