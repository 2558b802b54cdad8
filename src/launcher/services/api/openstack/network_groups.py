"""Network v2.0's security groups and their rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from launcher.accounts import UserRole
from launcher.bus import Bus
from launcher.errors import BadRequest, NotFound
from launcher.groups import Group, GroupRule
from launcher.messages.security_groups import (
    AddRules,
    CreateSecurityGroup,
    DeleteSecurityGroup,
    ListSecurityGroups,
    RemoveRules,
    RuleSpec,
)
from launcher.models import Model, Name
from launcher.policy import Protocol
from launcher.services.api.openstack import ids
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, misfit, refused
from launcher.services.api.openstack.network_shapes import PLAIN
from launcher.services.api.openstack.neutron import V2, listed, shown, the_one
from launcher.services.api.openstack.versions import Refused

PROTOCOLS = {"": "any", "any": "any", "0": "any", "-1": "any", "6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6"}
"""By numbers and by Neutron's words, where ours are others."""
EVERYBODY = {"IPv4": "0.0.0.0/0", "IPv6": "::/0"}
GROUP_FILTERS = ("id", "name", "description", "tenant_id", "project_id")
RULE_FILTERS = ("id", "security_group_id", "direction", "ethertype", "protocol", "remote_ip_prefix", "remote_group_id")
RULE_FILTERS_TOO = ("port_range_min", "port_range_max", "tenant_id", "project_id")


class GroupFields(Model):
    name: Name
    description: str = Field(default="", max_length=255)
    stateful: Literal[True] = True
    tenant_id: str | None = None
    project_id: str | None = None


class GroupRequest(Model):
    """POST /security-groups."""

    security_group: GroupFields


class RuleFields(Model):
    security_group_id: str
    direction: Literal["ingress", "egress"]
    ethertype: Literal["IPv4", "IPv6", "ipv4", "ipv6"] = "IPv4"
    protocol: str | int | None = None
    port_range_min: int | None = Field(default=None, ge=0, le=65535)
    port_range_max: int | None = Field(default=None, ge=0, le=65535)
    remote_ip_prefix: str | None = Field(default=None, max_length=64)
    remote_group_id: str | None = None
    description: Annotated[Any, Refused("rules have none")] = None
    remote_address_group_id: Annotated[Any, Refused("there are no address groups")] = None
    tenant_id: str | None = None
    project_id: str | None = None

    @property
    def family(self) -> str:
        return f"IP{self.ethertype[2:].lower()}"

    @property
    def words(self) -> Json:
        """As a rule is said here, without its other end."""
        protocol = str("" if self.protocol is None else self.protocol).lower()
        protocol = PROTOCOLS.get(protocol, protocol)
        if protocol == "icmp" and self.family == "IPv6":
            protocol = "icmpv6"
        ports = {"from_port": self.port_range_min, "to_port": self.port_range_max}
        return {"direction": self.direction, "protocol": protocol, **ports}


class RuleRequest(Model):
    """POST /security-group-rules."""

    security_group_rule: RuleFields


class Groups:
    """A part of Networking."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        groups, rules, needs = f"{V2}/security-groups", f"{V2}/security-group-rules", UserRole.MEMBER
        return [
            Operation("GET", groups, self.list_groups, queries=("*",)),
            Operation("POST", groups, self.create_group, status=201, body=GroupRequest, needs=needs),
            Operation("GET", f"{groups}/{{id}}", self.get_group, queries=("fields",)),
            Operation("DELETE", f"{groups}/{{id}}", self.delete_group, status=204, needs=needs),
            refused("PUT", f"{groups}/{{id}}", "a group keeps its name and its description"),
            Operation("GET", rules, self.list_rules, queries=("*",)),
            Operation("POST", rules, self.create_rule, status=201, body=RuleRequest, needs=needs),
            Operation("GET", f"{rules}/{{id}}", self.get_rule, queries=("fields",)),
            Operation("DELETE", f"{rules}/{{id}}", self.delete_rule, status=204, needs=needs),
        ]

    async def list_groups(self, ask: Ask) -> Reply:
        return listed(ask, "security_groups", [_group(each) for each in await self._all(ask)], filters=GROUP_FILTERS)

    async def get_group(self, ask: Ask) -> Reply:
        told = [_group(each) for each in await self._all(ask)]
        return shown(ask, "security_group", the_one(ask, "Security group", told))

    async def create_group(self, ask: Ask) -> Reply:
        given: GroupFields = ask.body.security_group
        made = await self.bus.call(ask.ctx, CreateSecurityGroup(name=given.name, description=given.description))
        return Reply({"security_group": _group(made)})

    async def delete_group(self, ask: Ask) -> Reply:
        found = await self._the_group(ask, ask.path["id"])
        await self.bus.call(ask.ctx, DeleteSecurityGroup(group=found.id))
        return Reply()

    async def list_rules(self, ask: Ask) -> Reply:
        told = [rule for group in await self._all(ask) for rule in _group(group)["security_group_rules"]]
        return listed(ask, "security_group_rules", told, filters=(*RULE_FILTERS, *RULE_FILTERS_TOO))

    async def get_rule(self, ask: Ask) -> Reply:
        told = [rule for group in await self._all(ask) for rule in _group(group)["security_group_rules"]]
        return shown(ask, "security_group_rule", the_one(ask, "Security group rule", told))

    async def create_rule(self, ask: Ask) -> Reply:
        given: RuleFields = ask.body.security_group_rule
        group = await self._the_group(ask, given.security_group_id)
        (made,) = await self.bus.call(ask.ctx, AddRules(group=group.id, rules=(await self._spec(ask, given),)))
        return Reply({"security_group_rule": _rule(group, made)})

    async def delete_rule(self, ask: Ask) -> Reply:
        for group in await self._all(ask):
            for rule in group.rules:
                if ids.uuid_of("rule", rule.id) == ask.path["id"]:
                    await self.bus.call(ask.ctx, RemoveRules(group=group.id, ids=(rule.id,)))
                    return Reply()
        raise NotFound(f"Security group rule {ask.path['id']} does not exist")

    async def _spec(self, ask: Ask, given: RuleFields) -> RuleSpec:
        end: Json = {"cidr": given.remote_ip_prefix or EVERYBODY[given.family]}
        if given.remote_group_id is not None:
            if given.remote_ip_prefix is not None:
                raise BadRequest("Only remote_ip_prefix or remote_group_id may be provided.")
            end = {"group": (await self._the_group(ask, given.remote_group_id)).id}
        elif (":" in end["cidr"]) != (given.family == "IPv6"):
            raise BadRequest(f"Conflicting value ethertype {given.family} for CIDR {end['cidr']}")
        try:
            return RuleSpec.model_validate({**given.words, **end})
        except ValidationError as error:
            raise misfit(error) from None

    async def _all(self, ask: Ask) -> list[Group]:
        return await self.bus.call(ask.ctx, ListSecurityGroups())

    async def _the_group(self, ask: Ask, group_id: str) -> Group:
        for each in await self._all(ask):
            if ids.uuid_of("group", each.id) == group_id:
                return each
        raise NotFound(f"Security group {group_id} does not exist")


def _group(group: Group) -> Json:
    return {
        "id": ids.uuid_of("group", group.id),
        "name": group.name,
        "tenant_id": group.project_id,
        "project_id": group.project_id,
        "stateful": True,
        "shared": False,
        "security_group_rules": [_rule(group, each) for each in group.rules],
        **PLAIN,
        "description": group.description,
    }


def _rule(group: Group, rule: GroupRule) -> Json:
    """A rule that names a group is for both families; Neutron's words have one, so it is told as IPv4's."""
    six = rule.cidr is not None and rule.cidr.version == 6
    protocol = "ipv6-icmp" if six and rule.protocol is Protocol.ICMP else rule.protocol
    low, high = (rule.from_port, rule.to_port) if rule.protocol is Protocol.ICMP else rule.ports or (None, None)
    return {
        "id": ids.uuid_of("rule", rule.id),
        "security_group_id": ids.uuid_of("group", group.id),
        "tenant_id": group.project_id,
        "project_id": group.project_id,
        "direction": rule.direction,
        "ethertype": "IPv6" if six else "IPv4",
        "protocol": None if rule.protocol is Protocol.ANY else protocol,
        "port_range_min": low,
        "port_range_max": high,
        "remote_ip_prefix": None if rule.cidr is None else str(rule.cidr),
        "remote_group_id": None if rule.group_id is None else ids.uuid_of("group", rule.group_id),
        "remote_address_group_id": None,
        **PLAIN,
    }
