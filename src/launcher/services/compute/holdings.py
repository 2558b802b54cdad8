"""What a host has in hand: in memory, and told anew by the controller after a restart."""

from __future__ import annotations

from dataclasses import dataclass, field

from launcher.models import InstanceId, LaunchOrder
from launcher.services.numbers import Numbers
from launcher.services.turns import Turns


@dataclass
class Holdings:
    """`held` are the instances that count against this host's resources; `turns` says who is at work for which."""

    held: dict[InstanceId, LaunchOrder] = field(default_factory=dict)
    numbers: Numbers = field(default_factory=Numbers)
    turns: Turns = field(default_factory=Turns)
