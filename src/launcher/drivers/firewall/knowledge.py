"""What a packet filter has been told of the instances here, carried on by what it is told of their groups."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from launcher.models import InstanceRef
from launcher.policy import Policy, SecurityGroup
from launcher.ports import Port

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Guest:
    """An instance, its NICs, and the policy of exactly its groups."""

    ref: InstanceRef
    ports: tuple[Port, ...]
    policy: Policy


class Knowledge:
    """In memory: after a restart it comes back with each instance that is verified."""

    def __init__(self) -> None:
        self.guests: dict[int, Guest] = {}
        self._users: dict[int, set[int]] = {}

    def tell(self, guest: Guest) -> None:
        """What is said of a group holds for all who are in it."""
        self.forget(guest.ref.number)
        self.guests[guest.ref.number] = guest
        for group in guest.policy.groups:
            self._users.setdefault(group.id, set()).add(guest.ref.number)

    def forget(self, number: int) -> Guest | None:
        """What was known."""
        if guest := self.guests.pop(number, None):
            for group in guest.policy.groups:
                self._users[group.id].discard(number)
        return guest

    def foresee(self, policy: Policy) -> list[tuple[Guest, Guest]]:
        """The instances in one of these groups, as they are and as they will be."""
        numbers = sorted({number for group in policy.groups for number in self._users.get(group.id, ())})
        return [(guest, _changed(guest, policy)) for guest in map(self.guests.__getitem__, numbers)]

    def learn(self, foreseen: Sequence[tuple[Guest, Guest]]) -> None:
        """It has come true."""
        self.guests.update((after.ref.number, after) for _, after in foreseen)


def report_nonsense(policy: Policy) -> None:
    """A rule that means nothing is left out, and holds up no other one."""
    for group in policy.groups:
        for rule in group.rules:
            if rule.nonsense:
                log.warning("security group %s: left out: %s: %s", group.name, rule, rule.nonsense)


def _changed(guest: Guest, policy: Policy) -> Guest:
    changed = {group.id: group for group in policy.groups}
    groups = tuple(changed.get(group.id, group) for group in guest.policy.groups)
    known = {**guest.policy.members, **policy.members}
    members = {number: known[number] for number in _named(groups) if number in known}
    # All of it has been checked before, and a thousand members of two hundred instances take a while.
    return Guest(guest.ref, guest.ports, Policy.model_construct(groups=groups, members=members))


def _named(groups: Iterable[SecurityGroup]) -> set[int]:
    return {rule.group_id for group in groups for rule in group.rules if rule.group_id is not None}
