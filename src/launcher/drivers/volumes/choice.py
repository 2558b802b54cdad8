"""Which storage keeps the volumes, by the settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.drivers.volumes.driver import VolumeDriver
from launcher.drivers.volumes.local import LocalVolumes
from launcher.drivers.volumes.lvm import LvmVolumes
from launcher.models import ImageFormat


def choose_volumes(
    path: Path, *, sources: Sequence[Path], driver: str, format: ImageFormat, group: str, thin_pool: str
) -> VolumeDriver:
    """`path` is for files and for what is on its way, `sources` are the directories that images are taken from."""
    if driver == "lvm":
        return LvmVolumes(group, pool=thin_pool, sources=sources, work=path / "_work")
    return LocalVolumes(path, sources=sources, format=format)
