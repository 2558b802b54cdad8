"""Security groups and their rules."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from launcher.db import security_groups
from launcher.db.database import Database
from launcher.errors import BadRequest, QuotaExceeded
from launcher.messages.security_groups import (
    CreateSecurityGroup,
    DeleteSecurityGroup,
    GetPolicy,
    ListSecurityGroups,
    RuleSpec,
)
from launcher.messaging import Context, Route
from launcher.models import Quotas
from launcher.policy import Policy, Protocol, Rule, SecurityGroup


class SecurityGroups:
    """Of the asking project; what an instance was launched with is what its host filters by."""

    def __init__(self, *, db: Database, quotas: Quotas) -> None:
        self.db, self.quotas = db, quotas

    @property
    def routes(self) -> Sequence[Route]:
        return [
            CreateSecurityGroup.to(self.create_security_group),
            ListSecurityGroups.to(self.list_security_groups),
            DeleteSecurityGroup.to(self.delete_security_group),
            GetPolicy.to(self.get_policy),
        ]

    async def create_security_group(self, ctx: Context, message: CreateSecurityGroup) -> SecurityGroup:
        rules = [checked(spec) for spec in message.rules]

        def work(db: sqlite3.Connection) -> SecurityGroup:
            if len(security_groups.list_all(db, ctx.project_id)) >= self.quotas.security_groups:
                raise QuotaExceeded(f"quota of security groups exceeded: {self.quotas.security_groups} in use")
            return security_groups.create(db, ctx.project_id, message.name, message.description, rules)

        return await self.db.write(work)

    async def list_security_groups(self, ctx: Context, message: ListSecurityGroups) -> list[SecurityGroup]:
        await self.db.write(lambda db: security_groups.ensure_default(db, ctx.project_id))
        return await self.db.read(lambda db: security_groups.list_all(db, ctx.project_id))

    async def delete_security_group(self, ctx: Context, message: DeleteSecurityGroup) -> None:
        await self.db.write(lambda db: security_groups.delete(db, ctx.project_id, message.name))

    async def get_policy(self, ctx: Context, message: GetPolicy) -> Policy:
        def read(db: sqlite3.Connection) -> Policy:
            of_instance = security_groups.list_ids_of(db, message.instance_id) if message.instance_id else []
            return security_groups.get_policy(db, [*of_instance, *message.group_ids])

        return await self.db.read(read)


def checked(spec: RuleSpec) -> Rule:
    """Ports fit the protocol: a range for tcp and udp, type and code up to 255 for icmp, none for any."""
    first, last = spec.from_port, spec.to_port
    if spec.protocol is Protocol.ANY and (first is not None or last is not None):
        raise BadRequest("a rule for any protocol has no ports", field="rules")
    if spec.protocol is Protocol.ICMP:
        if first is None and last is not None:
            raise BadRequest("an icmp code (to_port) needs a type (from_port)", field="rules")
        if max(first or 0, last or 0) > 255:
            raise BadRequest("icmp types and codes are at most 255", field="rules")
    elif first is not None:
        last = first if last is None else last
        if last < first:
            raise BadRequest(f"the port range {first}-{last} is empty", field="rules")
    elif last is not None:
        raise BadRequest("to_port needs from_port", field="rules")
    return Rule(protocol=spec.protocol, from_port=first, to_port=last, cidr=spec.cidr)
