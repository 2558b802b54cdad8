"""What a benchmark prints: the machine, a table of samples, and one last line for programs to read."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence

Samples = Sequence[float]

_ROW = "{:<44}{:>10}{:>10}{:>10}{:>6}"


def show(title: str, rows: Mapping[str, Samples], *, digits: int = 1) -> None:
    """A line per series: median, least, greatest, how many. The load tells how far to trust them."""
    print(f"\n{title} ({os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f})")
    print(_ROW.format("", "median", "min", "max", "n"))
    for name, samples in rows.items():
        numbers = (f"{value:.{digits}f}" for value in (statistics.median(samples), min(samples), max(samples)))
        print(_ROW.format(name, *numbers, len(samples)), flush=True)


def finish(name: str, **figures: float) -> None:
    """The last line: `NAME key=value key=value …`."""
    print()
    print(name, *(f"{key}={value:.4g}" for key, value in figures.items()))
