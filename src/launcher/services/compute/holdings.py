"""What a host has in hand: in memory, and told anew by the controller after a restart."""

from __future__ import annotations

from dataclasses import dataclass, field

from launcher.models import InstanceId, LaunchOrder
from launcher.services.numbers import Numbers
from launcher.services.turns import Turns


@dataclass
class Holdings:
    """`held` are the instances that count against this host's resources, `off` those of them that have no machine now.

    `turns` says who is at work for which.
    """

    held: dict[InstanceId, LaunchOrder] = field(default_factory=dict)
    off: set[InstanceId] = field(default_factory=set)
    numbers: Numbers = field(default_factory=Numbers)
    turns: Turns = field(default_factory=Turns)

    @property
    def running(self) -> int:
        return len(self.held.keys() - self.off)

    def hold(self, order: LaunchOrder, *, running: bool) -> None:
        """What is said of an older generation than the one that is known changes nothing."""
        known = self.held.get(order.instance_id)
        if known is not None and known.generation > order.generation:
            return
        self.held[order.instance_id] = order
        if running:
            self.off.discard(order.instance_id)
        else:
            self.off.add(order.instance_id)

    def let_go(self, order: LaunchOrder) -> None:
        """Nothing of it is left here."""
        self.held.pop(order.instance_id, None)
        self.off.discard(order.instance_id)
        self.numbers.release(order)
