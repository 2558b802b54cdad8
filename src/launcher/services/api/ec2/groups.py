"""Security groups and their rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from launcher.errors import BadRequest, Conflict, NotFound, QuotaExceeded
from launcher.groups import Group
from launcher.messages import security_groups as messages
from launcher.messages.network import ListNetworks
from launcher.messages.tags import RemoveTags, SetTags
from launcher.policy import Direction
from launcher.services.api.ec2 import finding, ids, rules, tags
from launcher.services.api.ec2.operation import TAG_FILTERS, Ask, Listing, Operation, Paged, plain
from launcher.services.api.ec2.query import Ignored, Request
from launcher.services.api.ec2.refusals import Names, Refusal, bad_value
from launcher.services.api.ec2.rules import OneRule, Permission, PermissionAsked, RuleOf
from launcher.services.api.ec2.shapes import GROUP_IDS, VPC, TagSet, tag_set
from launcher.services.api.ec2.tags import TagSpecification
from launcher.services.api.ec2.xml import Done, Since
from launcher.tagging import Tagged, Target


class CreateSecurityGroup(Request):
    """Make a security group, which lets nobody in."""

    group_name: Annotated[str, Field(min_length=1, max_length=255)]
    group_description: Annotated[str, Field(max_length=255)]
    vpc_id: str | None = None
    tag_specification: tuple[TagSpecification, ...] = ()


class DeleteSecurityGroup(Request):
    """Delete a group that nobody is in and no other names."""

    group_name: str | None = None
    group_id: str | None = None


class DescribeSecurityGroups(Paged):
    """Groups with their rules."""

    group_name: tuple[str, ...] = ()
    group_id: tuple[str, ...] = ()


class DescribeSecurityGroupRules(Paged):
    """Single rules."""

    security_group_rule_id: tuple[str, ...] = ()


class _Authorized(Request, OneRule):
    group_id: str | None = None
    ip_permissions: tuple[PermissionAsked, ...] = ()


class AuthorizeSecurityGroupIngress(_Authorized):
    """Let traffic in. All of it or none."""

    group_name: str | None = None
    tag_specification: Annotated[tuple[TagSpecification, ...], Ignored("rules have no tags")] = ()


class AuthorizeSecurityGroupEgress(_Authorized):
    """Let traffic out. A group without such rules lets all out."""

    tag_specification: Annotated[tuple[TagSpecification, ...], Ignored("rules have no tags")] = ()


class RevokeSecurityGroupIngress(_Authorized):
    """Take back, by value or by id."""

    group_name: str | None = None
    security_group_rule_id: tuple[str, ...] = ()


class RevokeSecurityGroupEgress(_Authorized):
    """Take back, by value or by id."""

    security_group_rule_id: tuple[str, ...] = ()


class Created(NamedTuple):
    return_: bool
    group_id: Annotated[str, Since(GROUP_IDS)]
    tag_set: TagSet


class GroupItem(NamedTuple):
    owner_id: str
    group_id: Annotated[str, Since(GROUP_IDS)]
    group_name: str
    group_description: str
    vpc_id: Annotated[str | None, Since(VPC)]
    ip_permissions: tuple[Permission, ...]
    ip_permissions_egress: Annotated[tuple[Permission, ...], Since(GROUP_IDS)]
    tag_set: TagSet


class Groups(NamedTuple):
    security_group_info: tuple[GroupItem, ...]
    next_token: str | None = None


class Authorized(NamedTuple):
    return_: bool
    security_group_rule_set: Annotated[tuple[RuleOf, ...], Since("2016-11-15")]


class Rules(NamedTuple):
    security_group_rule_set: tuple[RuleOf, ...]
    next_token: str | None = None


async def create_security_group(ask: Ask, request: CreateSecurityGroup) -> Created:
    if not finding.is_name(request.group_name):
        raise bad_value("GroupName", request.group_name, "Letters, digits, spaces and ._:@- are understood.")
    if request.group_name.startswith("sg-"):
        raise bad_value("GroupName", request.group_name, "Group names may not be in the format sg-*.")
    if request.vpc_id is not None:
        number = ids.VPC.number(request.vpc_id)
        if number not in {each.id for each in await ask.look(ListNetworks())}:
            raise ids.VPC.not_found(request.vpc_id)
    noted = tags.specified(request.tag_specification, "security-group")
    made = await ask.change(
        messages.CreateSecurityGroup(name=request.group_name, description=request.group_description)
    )
    if noted:
        await ask.change(SetTags(targets=(_target(made),), tags=noted))
    return Created(True, ids.GROUP.id(made.id), tag_set(noted))


async def delete_security_group(ask: Ask, request: DeleteSecurityGroup) -> Done:
    group = await _one(ask, request.group_id, request.group_name)
    if group.name == "default":
        raise Refusal("CannotDelete", 'the specified group: "default" name: "default" cannot be deleted by a user')
    await ask.change(messages.DeleteSecurityGroup(group=group.id))
    await ask.change(RemoveTags(targets=(_target(group),)))
    return Done()


async def find_groups(ask: Ask, request: Any) -> Sequence[GroupItem]:
    known = await ask.look(messages.ListSecurityGroups())
    if request.group_id or request.group_name:
        chosen = finding.groups(known, request.group_name, request.group_id)
        known = [group for group in known if group.id in chosen]
    noted = await tags.of(ask, Tagged.SECURITY_GROUP)
    return [
        GroupItem(
            owner_id=group.project_id,
            group_id=ids.GROUP.id(group.id),
            group_name=group.name,
            group_description=group.description,
            vpc_id=None,
            ip_permissions=rules.permissions(group, Direction.INGRESS),
            ip_permissions_egress=rules.permissions(group, Direction.EGRESS),
            tag_set=tag_set(noted.get(str(group.id), {})),
        )
        for group in known
    ]


async def find_rules(ask: Ask, request: Any) -> Sequence[RuleOf]:
    wanted = {ids.RULE.number(each): each for each in request.security_group_rule_id}
    found = [
        (rule.id, rules.described(rule, group))
        for group in await ask.look(messages.ListSecurityGroups())
        for rule in group.rules
    ]
    if unknown := [name for number, name in wanted.items() if number not in {number for number, _ in found}]:
        raise ids.RULE.not_found(*unknown)
    return [rule for number, rule in found if not wanted or number in wanted]


async def authorize_ingress(ask: Ask, request: AuthorizeSecurityGroupIngress) -> Authorized:
    return await _authorize(ask, request, request.group_name, Direction.INGRESS)


async def authorize_egress(ask: Ask, request: AuthorizeSecurityGroupEgress) -> Authorized:
    return await _authorize(ask, request, None, Direction.EGRESS)


async def _authorize(ask: Ask, request: _Authorized, name: str | None, direction: Direction) -> Authorized:
    known = await ask.look(messages.ListSecurityGroups())
    group = _chosen(known, request.group_id, name)
    specs = rules.specs(request, request.ip_permissions, direction, known, ask.ctx.project_id)
    if not specs:
        raise Refusal("MissingParameter", "The request must contain a rule: IpPermissions, or IpProtocol and the rest")
    made = await ask.change(messages.AddRules(group=group.id, rules=specs))
    return Authorized(True, tuple(rules.described(rule, group) for rule in made))


async def revoke_ingress(ask: Ask, request: RevokeSecurityGroupIngress) -> Done:
    return await _revoke(ask, request, request.group_name, request.security_group_rule_id, Direction.INGRESS)


async def revoke_egress(ask: Ask, request: RevokeSecurityGroupEgress) -> Done:
    return await _revoke(ask, request, None, request.security_group_rule_id, Direction.EGRESS)


async def _revoke(
    ask: Ask, request: _Authorized, name: str | None, rule_ids: Sequence[str], direction: Direction
) -> Done:
    known = await ask.look(messages.ListSecurityGroups())
    group = _chosen(known, request.group_id, name)
    numbers = tuple(dict.fromkeys(ids.RULE.number(each) for each in rule_ids))
    there = {rule.id for rule in group.rules if rule.direction is direction}
    if unknown := [each for each in numbers if each not in there]:
        raise ids.RULE.not_found(*map(ids.RULE.id, unknown))
    specs = rules.specs(request, request.ip_permissions, direction, known, ask.ctx.project_id)
    if not specs and not numbers:
        raise Refusal("MissingParameter", "The request must contain a rule: IpPermissions, or IpProtocol and the rest")
    await ask.change(messages.RemoveRules(group=group.id, rules=specs, ids=numbers))
    return Done()


async def _one(ask: Ask, group_id: str | None, name: str | None) -> Group:
    known = await ask.look(messages.ListSecurityGroups())
    return _chosen(known, group_id, name)


def _chosen(known: Sequence[Group], group_id: str | None, name: str | None) -> Group:
    if group_id is not None:
        return finding.by_id(known, group_id)
    if name is not None:
        return finding.by_name(known, name)
    raise Refusal("MissingParameter", "The request must contain the parameter GroupName or GroupId")


def _target(group: Group) -> Target:
    return Target(kind=Tagged.SECURITY_GROUP, id=str(group.id))


ADDED: Names = {
    Conflict: "InvalidPermission.Duplicate",
    QuotaExceeded: "RulesPerSecurityGroupLimitExceeded",
    NotFound: "InvalidGroup.NotFound",
    BadRequest: "InvalidPermission.Malformed",
}
REMOVED: Names = {NotFound: "InvalidPermission.NotFound", BadRequest: "InvalidPermission.Malformed"}
GROUP_FILTERS = {
    **plain(["group_id", "group_name", "owner_id", "vpc_id"]),
    "description": "group_description",
    "ip-permission.protocol": "ip_permissions.ip_protocol",
    "ip-permission.from-port": "ip_permissions.from_port",
    "ip-permission.to-port": "ip_permissions.to_port",
    "ip-permission.cidr": "ip_permissions.ip_ranges.cidr_ip",
    "ip-permission.ipv6-cidr": "ip_permissions.ipv6_ranges.cidr_ipv6",
    "ip-permission.group-id": "ip_permissions.groups.group_id",
    "ip-permission.group-name": "ip_permissions.groups.group_name",
    "egress.ip-permission.protocol": "ip_permissions_egress.ip_protocol",
    "egress.ip-permission.cidr": "ip_permissions_egress.ip_ranges.cidr_ip",
    **TAG_FILTERS,
}
OPERATIONS = (
    Operation(
        CreateSecurityGroup,
        Created,
        create_security_group,
        {Conflict: "InvalidGroup.Duplicate", QuotaExceeded: "SecurityGroupLimitExceeded"},
    ),
    Operation(
        DeleteSecurityGroup,
        Done,
        delete_security_group,
        {Conflict: "DependencyViolation", NotFound: "InvalidGroup.NotFound"},
    ),
    Listing(
        DescribeSecurityGroups, Groups, find_groups, GROUP_FILTERS, ("group_name",), named=("group_id", "group_name")
    ).operation(),
    Listing(
        DescribeSecurityGroupRules,
        Rules,
        find_rules,
        {**plain(["group_id", "security_group_rule_id"])},
        ("security_group_rule_id",),
        named=("security_group_rule_id",),
    ).operation(),
    Operation(AuthorizeSecurityGroupIngress, Authorized, authorize_ingress, ADDED),
    Operation(AuthorizeSecurityGroupEgress, Authorized, authorize_egress, ADDED),
    Operation(RevokeSecurityGroupIngress, Done, revoke_ingress, REMOVED),
    Operation(RevokeSecurityGroupEgress, Done, revoke_egress, REMOVED),
)
