"""Whom it is all about."""

from __future__ import annotations

from dataclasses import dataclass

from launcher.models import GuestMetadata
from launcher.networks import FixedIp


@dataclass(frozen=True)
class Guest:
    """An instance and its NICs, the first one in front."""

    told: GuestMetadata
    nics: tuple[FixedIp, ...]
