"""An image's content on its way into a volume; blocks, call it in a thread."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from launcher.drivers.images import gate
from launcher.drivers.images.library import sha256_of
from launcher.errors import BadImage
from launcher.models import Image


def take_in(image: Image, target: Path, sources: Sequence[Path]) -> None:
    """A copy of our own, looked at before any program is: what is checked is what is used.

    Raises BadImage for what lies outside of `sources`, does not pass the gate, or is not what was registered.
    """
    if not any(image.path.resolve().is_relative_to(source.resolve()) for source in sources):
        raise BadImage(f"{image.name}: {image.path} is outside of the image library")
    shutil.copyfile(image.path, target)
    gate.inspect(target, declared=image.format, name=image.name)
    if sha256_of(target) != image.sha256:
        raise BadImage(f"{image.name} is not what was registered", hint="register it again")
