"""The nouns of packet filtering: rules, the groups they are in, and what a host must know of them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated

from pydantic import Field, model_validator

from launcher.models import LARGEST, Model, Name

GroupId = Annotated[int, Field(ge=1, le=LARGEST)]


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"
    ANY = "any"


class Direction(StrEnum):
    """As the instance sees it."""

    INGRESS = "ingress"
    EGRESS = "egress"


class Rule(Model):
    """Lets traffic in, or out. Its other end is a range of addresses or the members of a group, exactly one of them.

    For icmp the ports mean type and code; None is any. A range of IPv6 makes it a rule for IPv6 (and icmp mean ICMPv6),
    a group one for both.
    """

    direction: Direction = Direction.INGRESS
    protocol: Protocol
    from_port: int | None = Field(default=None, ge=0, le=65535)
    to_port: int | None = Field(default=None, ge=0, le=65535)
    cidr: IPv4Network | IPv6Network | None = None
    group_id: GroupId | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Rule:
        if (self.cidr is None) == (self.group_id is None):
            raise ValueError("a rule names a cidr or a group_id, and not both")
        return self


class SecurityGroup(Model):
    """A named set of rules; what no rule lets in is dropped."""

    id: GroupId
    name: Name
    description: str = ""
    rules: tuple[Rule, ...] = ()


class Policy(Model):
    """What a host must know to filter: groups with their rules, and the addresses of those that a rule names.

    Of an instance: exactly its own groups. Of a change: the groups that changed, or whose rules name one that did.
    """

    groups: tuple[SecurityGroup, ...] = ()
    members: dict[GroupId, tuple[IPv4Address | IPv6Address, ...]] = Field(default_factory=dict)

    def members_of(self, rule: Rule) -> Sequence[IPv4Address | IPv6Address]:
        return self.members.get(rule.group_id, ()) if rule.group_id is not None else ()
