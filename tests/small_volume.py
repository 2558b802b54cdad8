"""A file system with little room."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def small_volume(path: Path, megabytes: int) -> Iterator[Path]:
    """A new directory of that size, in the sandbox's own mounts."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)
