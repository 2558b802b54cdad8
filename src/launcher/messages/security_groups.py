"""To the controller: security groups, from the API server, and what of them a host needs, from the hosts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from launcher.accounts import UserRole
from launcher.addresses import AnyCidrText
from launcher.explaining import Decision
from launcher.groups import Group, GroupRef, GroupRule, Traffic
from launcher.messaging import Call
from launcher.models import LARGEST, Instance, InstanceId, Model, Name
from launcher.policy import Direction, GroupId, Policy, PolicyChanges, Protocol

_ICMPV6 = ("icmpv6", "icmp6", "ipv6-icmp")


def _lower(word: object) -> object:
    return word.lower() if isinstance(word, str) else word


class RuleSpec(Model):
    """A rule as a user writes it. Its other end is a `cidr` or a `group` of the project, not both; neither means
    everybody who speaks IPv4. Ports of icmp are type and code. Words are taken in any case.
    """

    direction: Direction = Direction.INGRESS
    protocol: Annotated[Protocol, BeforeValidator(_lower)]
    from_port: int | None = Field(default=None, ge=0, le=65535)
    to_port: int | None = Field(default=None, ge=0, le=65535)
    cidr: AnyCidrText | None = None
    group: GroupRef | None = None

    @model_validator(mode="before")
    @classmethod
    def _icmpv6(cls, values: Any) -> Any:
        """ICMPv6 is icmp with a range of IPv6, or with a group."""
        if not isinstance(values, dict) or _lower(values.get("protocol")) not in _ICMPV6:
            return values
        if values.get("group") is not None:
            return {**values, "protocol": Protocol.ICMP}
        cidr = values.get("cidr") or "::/0"
        if ":" not in str(cidr):
            raise ValueError("icmpv6 goes with a cidr of IPv6")
        return {**values, "protocol": Protocol.ICMP, "cidr": cidr}

    @model_validator(mode="after")
    def _one_end(self) -> RuleSpec:
        if self.cidr is not None and self.group is not None:
            raise ValueError("a rule names a cidr or a group, not both")
        return self


class CreateSecurityGroup(Call[Group]):
    """Raises Conflict when the name is taken, QuotaExceeded."""

    topic = "controller"
    name: Name
    description: str = Field(default="", max_length=255)
    rules: tuple[RuleSpec, ...] = Field(default=(), max_length=1000)


class ListSecurityGroups(Call[list[Group]]):
    topic = "controller"
    needs = UserRole.READER


class GetSecurityGroup(Call[Group]):
    topic = "controller"
    needs = UserRole.READER
    group: GroupRef


class DeleteSecurityGroup(Call[None]):
    """Raises Conflict while an instance is in it or another group's rule names it, and for `default`."""

    topic = "controller"
    group: GroupRef


class AddRules(Call[list[GroupRule]]):
    """All of them or, with Conflict where one is there already, or QuotaExceeded, none."""

    topic = "controller"
    group: GroupRef
    rules: tuple[RuleSpec, ...] = Field(min_length=1, max_length=1000)


class RemoveRules(Call[None]):
    """By value and by id. All of them or, with NotFound where one is not there, none.

    Without a group the ids may be of any group of the project.
    """

    topic = "controller"
    group: GroupRef | None = None
    rules: tuple[RuleSpec, ...] = Field(default=(), max_length=1000)
    ids: tuple[GroupId, ...] = Field(default=(), max_length=1000)


class SetInstanceGroups(Call[Instance]):
    """These are an instance's groups from now on; none means `default`. Raises Conflict when it is being deleted."""

    topic = "controller"
    instance_id: str = Field(description="its id, or a unique name in the project")
    groups: tuple[GroupRef, ...] = Field(default=(), max_length=1000)


class ExplainTraffic(Call[Decision]):
    """Would this pass an instance's filters, and by which rule? Raises Conflict when it is on no host."""

    topic = "controller"
    needs = UserRole.READER
    instance_id: str = Field(description="its id, or a unique name in the project")
    traffic: Traffic


class GetPolicy(Call[Policy]):
    """What a host needs to filter one instance: its groups, as they are now.

    Asked anew for every use, by one host one at a time: an answer is then never older than the one before it.
    Raises StaleGeneration for an instance that is on its way out, or gone.
    """

    topic = "controller"
    needs = UserRole.READER
    instance_id: InstanceId


class GetPolicyChanges(Call[PolicyChanges]):
    """What changed for a host since a version; since 0 it is all."""

    topic = "controller"
    host: str
    since: int = Field(ge=0, le=LARGEST)
