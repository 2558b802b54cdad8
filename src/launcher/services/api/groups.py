"""The native dialect of security groups."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from launcher.bus import Bus
from launcher.errors import Conflict, NotFound, QuotaExceeded
from launcher.explaining import Decision
from launcher.groups import Group, GroupRef, GroupRule, Traffic
from launcher.messages.security_groups import (
    AddRules,
    CreateSecurityGroup,
    DeleteSecurityGroup,
    ExplainTraffic,
    GetSecurityGroup,
    ListSecurityGroups,
    RemoveRules,
    RuleSpec,
    SetInstanceGroups,
)
from launcher.models import Instance, Model, Name
from launcher.services.api.endpoint import Answer, Ask, Endpoint


class GroupBody(Model):
    """POST /security-groups."""

    name: Name
    description: str = Field(default="", max_length=255)
    rules: tuple[RuleSpec, ...] = Field(default=(), max_length=1000)


class RulesBody(Model):
    """POST and DELETE …/rules: all of them, or none."""

    rules: tuple[RuleSpec, ...] = Field(min_length=1, max_length=1000)


class InstanceGroupsBody(Model):
    """PUT /instances/{id}/security-groups: these and no others; none means `default`."""

    security_groups: tuple[GroupRef, ...] = Field(max_length=1000)


class GroupList(Model):
    security_groups: list[Group]


class RuleList(Model):
    rules: list[GroupRule]


class NativeGroups:
    """The endpoints and what they call on the bus. In a path stands a group's name or its id."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        every, one = "/security-groups", "/security-groups/{group}"
        return [
            Endpoint(
                "POST",
                every,
                self.create_group,
                "Make a security group",
                status=201,
                body=GroupBody,
                response=Group,
                raises=(QuotaExceeded, Conflict, NotFound),
            ),
            Endpoint("GET", every, self.list_groups, "List security groups", response=GroupList),
            Endpoint("GET", one, self.get_group, "Show a security group", response=Group),
            Endpoint(
                "DELETE",
                one,
                self.delete_group,
                "Delete a security group that nobody uses",
                status=204,
                raises=(Conflict,),
            ),
            Endpoint(
                "POST",
                f"{one}/rules",
                self.add_rules,
                "Add rules; running instances have them at once",
                status=201,
                body=RulesBody,
                response=RuleList,
                raises=(QuotaExceeded, Conflict),
            ),
            Endpoint("DELETE", f"{one}/rules", self.remove_rules, "Remove rules by value", status=204, body=RulesBody),
            Endpoint("DELETE", f"{one}/rules/{{rule}}", self.remove_rule, "Remove a rule", status=204),
            Endpoint(
                "PUT",
                "/instances/{id}/security-groups",
                self.set_instance_groups,
                "Set an instance's security groups",
                body=InstanceGroupsBody,
                response=Instance,
                raises=(QuotaExceeded, Conflict),
            ),
            Endpoint(
                "GET",
                "/instances/{id}/explain",
                self.explain_traffic,
                "Would this traffic pass, and by which rule",
                query=Traffic,
                response=Decision,
                raises=(Conflict,),
            ),
        ]

    async def create_group(self, ask: Ask) -> Answer:
        body: GroupBody = ask.body
        message = CreateSecurityGroup(name=body.name, description=body.description, rules=body.rules)
        return Answer(await self.bus.call(ask.ctx, message))

    async def list_groups(self, ask: Ask) -> Answer:
        return Answer(GroupList(security_groups=await self.bus.call(ask.ctx, ListSecurityGroups())))

    async def get_group(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, GetSecurityGroup(group=ask.path["group"])))

    async def delete_group(self, ask: Ask) -> Answer:
        await self.bus.call(ask.ctx, DeleteSecurityGroup(group=ask.path["group"]))
        return Answer()

    async def add_rules(self, ask: Ask) -> Answer:
        message = AddRules(group=ask.path["group"], rules=ask.body.rules)
        return Answer(RuleList(rules=await self.bus.call(ask.ctx, message)))

    async def remove_rules(self, ask: Ask) -> Answer:
        await self.bus.call(ask.ctx, RemoveRules(group=ask.path["group"], rules=ask.body.rules))
        return Answer()

    async def remove_rule(self, ask: Ask) -> Answer:
        number = ask.path["rule"]
        if not (number.isascii() and number.isdecimal() and int(number[:19]) > 0 and len(number) < 19):
            raise NotFound(f"there is no rule {number!r}", hint="a rule is named by its id", field="rule")
        await self.bus.call(ask.ctx, RemoveRules(group=ask.path["group"], ids=(int(number),)))
        return Answer()

    async def set_instance_groups(self, ask: Ask) -> Answer:
        message = SetInstanceGroups(instance_id=ask.path["id"], groups=ask.body.security_groups)
        return Answer(await self.bus.call(ask.ctx, message))

    async def explain_traffic(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, ExplainTraffic(instance_id=ask.path["id"], traffic=ask.query)))
