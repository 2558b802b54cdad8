"""Rules of security groups: EC2's permissions, one of which may stand for several rules here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError

from launcher.groups import Group, GroupRule
from launcher.messages.security_groups import RuleSpec
from launcher.policy import Direction, Protocol
from launcher.services.api.ec2 import finding, ids
from launcher.services.api.ec2.query import Ignored, Parameters, Refused
from launcher.services.api.ec2.refusals import Refusal
from launcher.services.api.ec2.shapes import GROUP_IDS
from launcher.services.api.ec2.xml import Since

PROTOCOLS = {
    **{name: name for name in ("tcp", "udp", "icmp", "icmpv6")},
    **{"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6", "-1": "any", "all": "any"},
}
"""By name or number."""
MOST_PORT = 65535


class CidrRange(Parameters):
    cidr_ip: str
    description: Annotated[str | None, Ignored("rules have no descriptions")] = None


class Cidr6Range(Parameters):
    cidr_ipv6: str
    description: Annotated[str | None, Ignored("rules have no descriptions")] = None


class PairAsked(Parameters):
    group_id: str | None = None
    group_name: str | None = None
    user_id: str | None = None
    description: Annotated[str | None, Ignored("rules have no descriptions")] = None
    vpc_id: Annotated[str | None, Ignored("a group's id is enough")] = None


class PermissionAsked(Parameters):
    ip_protocol: str
    from_port: int | None = None
    to_port: int | None = None
    ip_ranges: tuple[CidrRange, ...] = ()
    ipv6_ranges: Annotated[tuple[Cidr6Range, ...], Field(alias="Ipv6Ranges")] = ()
    groups: tuple[PairAsked, ...] = ()
    prefix_list_ids: Annotated[tuple[str, ...], Refused("there are no prefix lists")] = ()


class OneRule(Parameters):
    """The older form, of one rule."""

    ip_protocol: str | None = None
    from_port: int | None = None
    to_port: int | None = None
    cidr_ip: str | None = None
    source_security_group_name: str | None = None
    source_security_group_owner_id: str | None = None


class IpRange(NamedTuple):
    cidr_ip: str


class Ipv6Range(NamedTuple):
    cidr_ipv6: str


class Pair(NamedTuple):
    user_id: str
    group_id: Annotated[str | None, Since(GROUP_IDS)]
    group_name: str | None


class Permission(NamedTuple):
    ip_protocol: str
    from_port: int | None
    to_port: int | None
    groups: tuple[Pair, ...]
    ip_ranges: tuple[IpRange, ...]
    ipv6_ranges: Annotated[tuple[Ipv6Range, ...], Since("2016-11-15")]
    prefix_list_ids: Annotated[tuple[str, ...], Since("2015-03-01")]


class ReferencedGroup(NamedTuple):
    group_id: str
    user_id: str


class RuleOf(NamedTuple):
    security_group_rule_id: str
    group_id: str
    group_owner_id: str
    is_egress: bool
    ip_protocol: str
    from_port: int
    to_port: int
    cidr_ipv4: str | None
    cidr_ipv6: str | None
    referenced_group_info: ReferencedGroup | None


# --- asked for ----------------------------------------------------------------------------------------


def specs(
    one: OneRule, asked: Sequence[PermissionAsked], direction: Direction, known: Sequence[Group], project_id: str
) -> tuple[RuleSpec, ...]:
    """The rules that are meant. Raises Refusal for what is none."""
    permissions = [*([_permission(one)] if one.model_fields_set & OneRule.model_fields.keys() else []), *asked]
    return tuple(_spec(each, direction, end) for each in permissions for end in _ends(each, known, project_id))


def _permission(one: OneRule) -> PermissionAsked:
    """The older form as the newer one. With a group alone it means all traffic."""
    if one.source_security_group_name is None and (one.ip_protocol is None or one.cidr_ip is None):
        raise Refusal("MissingParameter", "A rule has IpProtocol and CidrIp, or SourceSecurityGroupName")
    pair = PairAsked(group_name=one.source_security_group_name, user_id=one.source_security_group_owner_id)
    return PermissionAsked(
        ip_protocol=one.ip_protocol or "-1",
        from_port=one.from_port,
        to_port=one.to_port,
        ip_ranges=(CidrRange(cidr_ip=one.cidr_ip),) if one.cidr_ip is not None else (),
        groups=(pair,) if one.source_security_group_name is not None else (),
    )


def _ends(asked: PermissionAsked, known: Sequence[Group], project_id: str) -> Iterator[Mapping[str, Any]]:
    if not (asked.ip_ranges or asked.ipv6_ranges or asked.groups):
        raise Refusal("MissingParameter", "A permission has IpRanges, Ipv6Ranges or Groups")
    for each in asked.ip_ranges:
        if ":" in each.cidr_ip:
            raise Refusal("InvalidParameterValue", f"CIDR block {each.cidr_ip} is malformed")
        yield {"cidr": each.cidr_ip}
    for six in asked.ipv6_ranges:
        yield {"cidr": six.cidr_ipv6}
    for pair in asked.groups:
        yield {"group": _group(pair, known, project_id)}


def _group(pair: PairAsked, known: Iterable[Group], project_id: str) -> int:
    if pair.user_id not in (None, "", project_id):
        raise Refusal("InvalidGroup.NotFound", "Groups of other projects cannot be named")
    if pair.group_id is not None:
        return finding.by_id(known, pair.group_id).id
    return finding.by_name(known, pair.group_name or "").id


def _spec(asked: PermissionAsked, direction: Direction, end: Mapping[str, Any]) -> RuleSpec:
    protocol = PROTOCOLS.get(asked.ip_protocol.lower())
    if protocol is None:
        raise Refusal("InvalidPermission.Malformed", f"Unsupported IP protocol '{asked.ip_protocol}'.")
    first, last = _ports(asked, protocol)
    try:
        return RuleSpec(direction=direction, protocol=protocol, from_port=first, to_port=last, **end)
    except ValidationError as error:
        first_error = error.errors(include_url=False)[0]
        where = ".".join(map(str, first_error["loc"]))
        raise Refusal("InvalidParameterValue", f"{where} {first_error['input']}: {first_error['msg']}") from None


def _ports(asked: PermissionAsked, protocol: str) -> tuple[int | None, int | None]:
    """-1 is any; of a rule for all protocols ports mean nothing, as in EC2."""
    if protocol == "any":
        return None, None
    first, last = (None if port == -1 else port for port in (asked.from_port, asked.to_port))
    if protocol in ("tcp", "udp") and (first is None or last is None):
        raise Refusal("InvalidPermission.Malformed", f"A rule of {protocol} has FromPort and ToPort, 0 to {MOST_PORT}.")
    return first, last


# --- told ---------------------------------------------------------------------------------------------


def permissions(group: Group, direction: Direction) -> tuple[Permission, ...]:
    """Rules with the same protocol and ports are one permission."""
    gathered: dict[tuple[str, int | None, int | None], list[GroupRule]] = {}
    for rule in group.rules:
        if rule.direction is direction:
            gathered.setdefault(_numbers(rule), []).append(rule)
    return tuple(
        Permission(
            *numbers,
            groups=tuple(_pair(rule, group) for rule in rules if rule.group_id is not None),
            ip_ranges=tuple(IpRange(str(rule.cidr)) for rule in rules if rule.cidr and rule.cidr.version == 4),
            ipv6_ranges=tuple(Ipv6Range(str(rule.cidr)) for rule in rules if rule.cidr and rule.cidr.version == 6),
            prefix_list_ids=(),
        )
        for numbers, rules in gathered.items()
    )


def described(rule: GroupRule, group: Group) -> RuleOf:
    protocol, first, last = _numbers(rule)
    return RuleOf(
        security_group_rule_id=ids.RULE.id(rule.id),
        group_id=ids.GROUP.id(group.id),
        group_owner_id=group.project_id,
        is_egress=rule.direction is Direction.EGRESS,
        ip_protocol=protocol,
        from_port=-1 if first is None else first,
        to_port=-1 if last is None else last,
        cidr_ipv4=str(rule.cidr) if rule.cidr and rule.cidr.version == 4 else None,
        cidr_ipv6=str(rule.cidr) if rule.cidr and rule.cidr.version == 6 else None,
        referenced_group_info=(
            ReferencedGroup(ids.GROUP.id(rule.group_id), group.project_id) if rule.group_id is not None else None
        ),
    )


def _pair(rule: GroupRule, group: Group) -> Pair:
    return Pair(group.project_id, ids.GROUP.id(rule.group_id or 0), rule.group)


def _numbers(rule: GroupRule) -> tuple[str, int | None, int | None]:
    """Protocol and ports, or type and code, as EC2 writes them: a rule for all traffic has no ports."""
    match rule.protocol:
        case Protocol.ANY:
            return "-1", None, None
        case Protocol.ICMP:
            six = rule.cidr is not None and rule.cidr.version == 6
            return "icmpv6" if six else "icmp", _or_any(rule.from_port), _or_any(rule.to_port)
    first, last = rule.ports or (0, MOST_PORT)
    return rule.protocol, first, last


def _or_any(number: int | None) -> int:
    return -1 if number is None else number
