"""The nouns of tagging: what a project notes of the things that it sees."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

from launcher.models import Model

TagKey = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Label = Annotated[str, StringConstraints(pattern=r"^[^/,\x00-\x1f\x7f]{1,60}$")]
"""A word without a value, of an instance."""
MOST_LABELS = 50
TagValue = Annotated[str, StringConstraints(max_length=256)]


class Tagged(StrEnum):
    """What can have tags."""

    INSTANCE = "instance"
    IMAGE = "image"
    VOLUME = "volume"
    SNAPSHOT = "snapshot"
    KEY_PAIR = "key-pair"
    SECURITY_GROUP = "security-group"
    FLOATING_IP = "floating-ip"
    NETWORK = "network"


class Target(Model):
    """A thing, by its id here."""

    kind: Tagged
    id: str


class Tag(Target):
    """One word about a thing."""

    key: str
    value: str
