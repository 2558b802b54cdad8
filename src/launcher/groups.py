"""Security groups as their project sees them; what of them a host must know is in `policy.py`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from launcher.addresses import AnyAddressText
from launcher.explaining import Kind
from launcher.models import Model, Name
from launcher.policy import Direction, Rule

GroupRef = str | int
"""How a group is named: by its name or, a number, by its id. Text that is no name may be an id, too."""


class GroupRule(Rule):
    """A rule and how to name it; `group` is the name of the group at its other end, if that is one."""

    id: int
    group: Name | None = None


class Group(Model):
    """A named set of rules; what none of an instance's groups lets in is dropped."""

    id: int
    project_id: str
    name: Name
    description: str = ""
    rules: tuple[GroupRule, ...] = Field(default=(), description="in the order in which they were added")


class Traffic(Model):
    """The first packet of something that a user wonders about, to an instance or from one of its NICs.

    `address` is the other end's. Of icmp, no type is an echo request.
    """

    direction: Literal[Direction.INGRESS, Direction.EGRESS] = Direction.INGRESS
    address: AnyAddressText
    protocol: Literal[Kind.TCP, Kind.UDP, Kind.ICMP, Kind.OTHER] = Kind.TCP
    port: int | None = Field(default=None, ge=0, le=65535)
    icmp_type: int | None = Field(default=None, ge=0, le=255)
    icmp_code: int = Field(default=0, ge=0, le=255)
    nic: int = Field(default=0, ge=0, le=255)
