"""Which storage keeps the volumes, by the settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.drivers.volumes.driver import VolumeDriver
from launcher.drivers.volumes.local import LocalVolumes
from launcher.models import ImageFormat


def choose_volumes(driver: str, path: Path, *, sources: Sequence[Path], format: ImageFormat) -> VolumeDriver:
    """`path` is for local files, `sources` are the directories that images are taken from."""
    return LocalVolumes(path, sources=sources, format=format)
