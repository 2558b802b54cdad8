"""To the controller: security groups, from the API server, and what of them a host needs, from the hosts."""

from __future__ import annotations

from ipaddress import IPv4Network

from pydantic import Field

from launcher.addresses import CidrText
from launcher.messaging import Call
from launcher.models import InstanceId, Model, Name
from launcher.policy import GroupId, Policy, Protocol, SecurityGroup


class RuleSpec(Model):
    """A rule as a user writes it."""

    protocol: Protocol
    from_port: int | None = Field(default=None, ge=0, le=65535)
    to_port: int | None = Field(default=None, ge=0, le=65535)
    cidr: CidrText = IPv4Network("0.0.0.0/0")


class CreateSecurityGroup(Call[SecurityGroup]):
    topic = "controller"
    name: Name
    description: str = Field(default="", max_length=255)
    rules: tuple[RuleSpec, ...] = Field(default=(), max_length=100)


class ListSecurityGroups(Call[list[SecurityGroup]]):
    topic = "controller"


class DeleteSecurityGroup(Call[None]):
    """Raises Conflict while an instance is in it, and for `default`."""

    topic = "controller"
    name: str


class GetPolicy(Call[Policy]):
    """What a host needs to filter: for one instance (its groups, as they are now), or these groups.

    Asked anew for every use, by one host one at a time: an answer is then never older than the one before it.
    Raises NotFound for an instance that is deleted; groups that are not there are left out.
    """

    topic = "controller"
    instance_id: InstanceId | None = None
    group_ids: tuple[GroupId, ...] = ()
