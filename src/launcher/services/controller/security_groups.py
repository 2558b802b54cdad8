"""Security groups, their rules, and who is in them; and what of all that a host asks for."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network
from typing import TypeVar

from launcher.bus import Bus
from launcher.db import attributes, instances, limits, members, policies, security_groups, versions
from launcher.db.database import Database
from launcher.errors import BadRequest, Conflict, QuotaExceeded
from launcher.explaining import Decision
from launcher.groups import Group, GroupRule
from launcher.messages.compute import ExplainFilters
from launcher.messages.security_groups import (
    AddRules,
    CreateSecurityGroup,
    DeleteSecurityGroup,
    ExplainTraffic,
    GetPolicy,
    GetPolicyChanges,
    GetSecurityGroup,
    ListSecurityGroups,
    RemoveRules,
    RuleSpec,
    SetInstanceGroups,
)
from launcher.messaging import Context, Encoded, Route
from launcher.models import Instance, Quotas, VmState
from launcher.policy import Policy, PolicyChanges, Protocol, Rule
from launcher.services.controller.inventory import resolve
from launcher.services.controller.journal import Journal

T = TypeVar("T")
EXPLAIN_TIMEOUT = 15.0
EVERYBODY = IPv4Network("0.0.0.0/0")


class SecurityGroups:
    """Of the asking project. A change of any is on its way to the hosts that it concerns when it is answered."""

    def __init__(self, *, db: Database, bus: Bus, quotas: Quotas, journal: Journal) -> None:
        self.db, self.bus, self.quotas, self.journal = db, bus, quotas, journal

    @property
    def routes(self) -> Sequence[Route]:
        return [
            CreateSecurityGroup.to(self.create_security_group),
            ListSecurityGroups.to(self.list_security_groups),
            GetSecurityGroup.to(self.get_security_group),
            DeleteSecurityGroup.to(self.delete_security_group),
            AddRules.to(self.add_rules),
            RemoveRules.to(self.remove_rules),
            SetInstanceGroups.to(self.set_instance_groups),
            ExplainTraffic.to(self.explain_traffic),
            GetPolicy.to(self.get_policy),
            GetPolicyChanges.to(self.get_policy_changes),
        ]

    async def create_security_group(self, ctx: Context, message: CreateSecurityGroup) -> Group:
        def work(db: sqlite3.Connection) -> Group:
            most = limits.get(db, ctx.project_id, self.quotas).security_groups
            if security_groups.count(db, ctx.project_id) >= most:
                raise QuotaExceeded(f"quota of security groups exceeded: {most} are allowed")
            made = security_groups.create(db, ctx.project_id, message.name, message.description)
            self._add(db, made, message.rules)
            return security_groups.get(db, ctx.project_id, made.id)

        return await self._change(work)

    async def list_security_groups(self, ctx: Context, message: ListSecurityGroups) -> list[Group]:
        await self.db.write(lambda db: security_groups.ensure_default(db, ctx.project_id))
        return await self.db.read(lambda db: security_groups.list_all(db, ctx.project_id))

    async def get_security_group(self, ctx: Context, message: GetSecurityGroup) -> Group:
        return await self.db.write(lambda db: security_groups.get(db, ctx.project_id, message.group))

    async def delete_security_group(self, ctx: Context, message: DeleteSecurityGroup) -> None:
        def work(db: sqlite3.Connection) -> None:
            security_groups.delete(db, security_groups.get(db, ctx.project_id, message.group))

        await self.db.write(work)

    async def add_rules(self, ctx: Context, message: AddRules) -> list[GroupRule]:
        def work(db: sqlite3.Connection) -> list[GroupRule]:
            return self._add(db, security_groups.get(db, ctx.project_id, message.group), message.rules)

        return await self._change(work)

    async def remove_rules(self, ctx: Context, message: RemoveRules) -> None:
        if message.group is None and message.rules:
            raise BadRequest("rules by value are of one group", field="group")

        def work(db: sqlite3.Connection) -> None:
            group = None if message.group is None else security_groups.get(db, ctx.project_id, message.group)
            for spec in message.rules:
                assert group
                security_groups.remove_rule(db, group, _resolved(db, ctx.project_id, spec))
            for rule_id in message.ids:
                security_groups.remove_rule_by_id(db, ctx.project_id, group, rule_id)

        await self._change(work)

    async def set_instance_groups(self, ctx: Context, message: SetInstanceGroups) -> Instance:
        found = await resolve(self.db, ctx, message.instance_id)

        def move(db: sqlite3.Connection) -> Instance:
            instance = instances.get(db, found.id)
            attributes.refuse_ended(instance)
            attributes.refuse_locked(instance, by_admin=ctx.is_admin)
            quota = limits.get(db, instance.project_id, self.quotas).groups_per_instance
            members.replace(db, instance.number, security_groups.choose(db, instance.project_id, message.groups, quota))
            return instances.get(db, instance.id)

        return await self.journal.record(ctx, move, message="its security groups were set")

    async def explain_traffic(self, ctx: Context, message: ExplainTraffic) -> Decision:
        instance = await resolve(self.db, ctx, message.instance_id)
        if instance.host is None or instance.vm_state in (VmState.DELETED, VmState.ERROR):
            raise Conflict(f"instance {instance.name!r} is on no host", field="instance_id")
        order = await self.db.read(lambda db: instances.get_order(db, instance.id))
        request = ExplainFilters(order=order, traffic=message.traffic)
        return await self.bus.call(ctx, request, host=instance.host, timeout=EXPLAIN_TIMEOUT)

    async def get_policy(self, ctx: Context, message: GetPolicy) -> Encoded[Policy]:
        return Encoded(await self.db.read(lambda db: policies.get_of_instance(db, message.instance_id)))

    async def get_policy_changes(self, ctx: Context, message: GetPolicyChanges) -> Encoded[PolicyChanges]:
        return Encoded(await self.db.read(lambda db: policies.get_changes(db, message.host, message.since)))

    async def _change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """A transaction that may change what hosts filter by."""
        result, version = await self.db.write(lambda db: (work(db), versions.get(db)))
        self.journal.refresh.hear_of(version)
        return result

    def _add(self, db: sqlite3.Connection, group: Group, specs: Sequence[RuleSpec]) -> list[GroupRule]:
        quota = limits.get(db, group.project_id, self.quotas).security_group_rules
        if len(group.rules) + len(specs) > quota:
            raise QuotaExceeded(
                f"quota of rules exceeded: {group.name!r} has {len(group.rules)} of {quota}", field="rules"
            )
        return [security_groups.add_rule(db, group, _resolved(db, group.project_id, spec)) for spec in specs]


def _resolved(db: sqlite3.Connection, project_id: str, spec: RuleSpec) -> Rule:
    """Raises NotFound when there is no group that it names."""
    return checked(spec, None if spec.group is None else security_groups.get(db, project_id, spec.group).id)


def checked(spec: RuleSpec, source: int | None = None) -> Rule:
    """The rule, with the id of the group at its other end. Raises BadRequest when ports do not fit the protocol."""
    first, last = spec.from_port, spec.to_port
    if first is None and last is not None:
        raise BadRequest("to_port needs from_port, an icmp code its type", field="rules")
    if spec.protocol is Protocol.ANY and first is not None:
        raise BadRequest("a rule for any protocol has no ports", field="rules")
    rule = Rule(
        direction=spec.direction,
        protocol=spec.protocol,
        from_port=first,
        to_port=first if last is None and spec.protocol is not Protocol.ICMP else last,
        cidr=spec.cidr or (EVERYBODY if source is None else None),
        group_id=source,
    )
    if rule.nonsense:
        raise BadRequest(rule.nonsense, field="rules")
    return rule
