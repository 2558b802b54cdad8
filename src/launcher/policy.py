"""The nouns of packet filtering: rules, the groups they are in, and what a host must know of them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from launcher.models import LARGEST, InstanceId, Model, Name

GroupId = Annotated[int, Field(ge=1, le=LARGEST)]
_read = functools.lru_cache(1 << 17)(ip_address)


def _address(value: Any) -> IPv4Address | IPv6Address:
    """The same members come again and again, by the thousand."""
    return _read(value) if isinstance(value, str) else ip_address(value)


Address = Annotated[
    IPv4Address | IPv6Address,
    PlainValidator(_address),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string"}),
]


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

    @property
    def ports(self) -> tuple[int, int] | None:
        """The lowest and the highest port of a rule for tcp or udp; None is any. One alone stands for both."""
        given = [port for port in (self.from_port, self.to_port) if port is not None]
        return (given[0], given[-1]) if given else None

    @property
    def nonsense(self) -> str | None:
        """Why this rule means nothing: it lets nothing through, and filters leave it out. None where it does."""
        if self.protocol is Protocol.ICMP:
            kind, code = self.from_port, self.to_port
            if (kind is None and code is not None) or (kind or 0) > 254 or (code or 0) > 255:
                # 255 is nobody's, and iptables takes it for any.
                return f"icmp type {kind} with code {code}; they end at 254 and 255, and a code needs a type"
        elif self.protocol is not Protocol.ANY and self.ports and self.ports[0] > self.ports[1]:
            return f"ports {self.ports[0]} to {self.ports[1]} run backwards"
        return None

    def __str__(self) -> str:
        """For a reader: `ingress tcp 22 from 0.0.0.0/0`."""
        numbers = "" if self.protocol is Protocol.ANY else "/".join(map(str, self._numbers()))
        end = f"group {self.group_id}" if self.cidr is None else str(self.cidr)
        way = "from" if self.direction is Direction.INGRESS else "to"
        return " ".join(filter(None, (self.direction, self.protocol, numbers, way, end)))

    def _numbers(self) -> list[int | str]:
        if self.protocol is Protocol.ICMP:
            return [number for number in (self.from_port, self.to_port) if number is not None]
        low, high = self.ports or (None, None)
        return [] if low is None else [low if low == high else f"{low}–{high}"]


class SecurityGroup(Model):
    """A named set of rules; what no rule lets in is dropped."""

    id: GroupId
    name: Name
    description: str = ""
    rules: tuple[Rule, ...] = ()

    def rules_for(self, direction: Direction) -> list[Rule]:
        """Those that mean something."""
        return [rule for rule in self.rules if rule.direction is direction and rule.nonsense is None]

    @property
    def limits_egress(self) -> bool:
        """Whether it has egress rules at all; one that means nothing is one still."""
        return any(rule.direction is Direction.EGRESS for rule in self.rules)


class Policy(Model):
    """What a host must know to filter: groups with their rules, and the addresses of those that a rule names.

    Of an instance: exactly its own groups. Of a change: the groups whose rules, or the members these name, changed.
    """

    groups: tuple[SecurityGroup, ...] = ()
    members: dict[GroupId, tuple[Address, ...]] = Field(default_factory=dict)

    @property
    def limits_egress(self) -> bool:
        """Whether only what an egress rule lets out goes out: each of the groups has some."""
        return bool(self.groups) and all(group.limits_egress for group in self.groups)

    @property
    def names(self) -> str:
        """Of its groups, for a reader."""
        return ", ".join(group.name for group in self.groups)

    def members_of(self, rule: Rule) -> Sequence[Address]:
        return self.members.get(rule.group_id, ()) if rule.group_id is not None else ()


class PolicyChanges(Model):
    """What changed for a host up to a version, a number that grows with every change of any policy.

    `policy` has the groups in use there that changed, `regrouped` are the instances whose own set of groups did.
    """

    version: int
    policy: Policy
    regrouped: tuple[InstanceId, ...] = ()
