"""Compute v2.1's limits and quota sets: how much a project may have, and has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from launcher.bus import Bus
from launcher.messages.accounts import GetQuotas, ResetQuotas, SetQuotas
from launcher.messages.floating_ips import ListFloatingIps
from launcher.messages.instances import ListInstances
from launcher.messages.key_pairs import ListKeyPairs
from launcher.messages.security_groups import ListSecurityGroups
from launcher.models import Instance, Model, Quotas
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply
from launcher.services.api.openstack.versions import Refused, shaped, until

LIMITS = {
    "maxImageMeta": until(38),
    "maxPersonality": until(56),
    "maxPersonalitySize": until(56),
    "maxSecurityGroups": until(35),
    "maxSecurityGroupRules": until(35),
    "maxTotalFloatingIps": until(35),
    "totalFloatingIpsUsed": until(35),
    "totalSecurityGroupsUsed": until(35),
}
SETS = {
    "fixed_ips": until(35),
    "floating_ips": until(35),
    "security_groups": until(35),
    "security_group_rules": until(35),
    "injected_files": until(56),
    "injected_file_content_bytes": until(56),
    "injected_file_path_bytes": until(56),
}
FILES, FILE_BYTES, PATH_BYTES = 5, 10240, 255
NAMES = {"ram": "memory_mb"}
"""Ours, where Nova has another."""
Limit = Annotated[int, Field(ge=0, le=2**31 - 1)]
FIXED = Refused("this is no quota here")


class QuotaFields(Model):
    instances: Limit | None = None
    cores: Limit | None = None
    ram: Limit | None = None
    key_pairs: Limit | None = None
    metadata_items: Limit | None = None
    floating_ips: Annotated[Limit | None, until(35)] = None
    security_groups: Annotated[Limit | None, until(35)] = None
    security_group_rules: Annotated[Limit | None, until(35)] = None
    force: bool = Field(default=True, description="a quota below what is in use is set all the same")
    tenant_id: str | None = None
    fixed_ips: Annotated[Any, until(35), FIXED] = None
    injected_files: Annotated[Any, until(56), FIXED] = None
    injected_file_content_bytes: Annotated[Any, until(56), FIXED] = None
    injected_file_path_bytes: Annotated[Any, until(56), FIXED] = None
    server_groups: Annotated[Any, FIXED] = None
    server_group_members: Annotated[Any, FIXED] = None


class QuotaRequest(Model):
    """PUT /os-quota-sets/{project}."""

    quota_set: QuotaFields


class ProjectQuotas:
    """A part of Compute."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        one = "/v2.1/os-quota-sets/{project}"
        return [
            Operation("GET", "/v2.1/limits", self.get_limits, queries=("reserved",)),
            Operation("GET", one, self.get_quotas, queries=("user_id",)),
            Operation("GET", f"{one}/detail", self.get_detail, queries=("user_id",)),
            Operation("GET", f"{one}/defaults", self.get_defaults),
            Operation("PUT", one, self.set_quotas, body=QuotaRequest),
            Operation("DELETE", one, self.reset_quotas, status=202),
        ]

    async def get_limits(self, ask: Ask) -> Reply:
        quotas = await self.bus.call(ask.ctx, GetQuotas(project=ask.ctx.project_id))
        held = await self._instances(ask)
        whole = {
            "maxTotalInstances": quotas.instances,
            "maxTotalCores": quotas.cores,
            "maxTotalRAMSize": quotas.memory_mb,
            "maxTotalKeypairs": quotas.key_pairs,
            "maxServerMeta": quotas.metadata_items,
            "maxImageMeta": quotas.metadata_items,
            "maxPersonality": FILES,
            "maxPersonalitySize": FILE_BYTES,
            "maxServerGroups": 0,
            "maxServerGroupMembers": 0,
            "maxSecurityGroups": quotas.security_groups,
            "maxSecurityGroupRules": quotas.security_group_rules,
            "maxTotalFloatingIps": quotas.floating_ips,
            "totalInstancesUsed": len(held),
            "totalCoresUsed": sum(each.flavor.vcpus for each in held),
            "totalRAMUsed": sum(each.flavor.memory_mb for each in held),
            "totalServerGroupsUsed": 0,
            "totalFloatingIpsUsed": len(await self._floating(ask)),
            "totalSecurityGroupsUsed": await self._groups(ask),
        }
        return Reply({"limits": {"rate": [], "absolute": shaped(LIMITS, ask.version, whole)}})

    async def get_quotas(self, ask: Ask) -> Reply:
        found = await self.bus.call(ask.ctx, GetQuotas(project=ask.path["project"]))
        return Reply({"quota_set": {"id": ask.path["project"], **_set(ask, found)}})

    async def get_defaults(self, ask: Ask) -> Reply:
        found = await self.bus.call(ask.ctx, GetQuotas(project=ask.path["project"], usual=True))
        return Reply({"quota_set": {"id": ask.path["project"], **_set(ask, found)}})

    async def get_detail(self, ask: Ask) -> Reply:
        """What is in use is told of the project that is asked in."""
        limits = _set(ask, await self.bus.call(ask.ctx, GetQuotas(project=ask.path["project"])))
        used = await self._used(ask) if ask.path["project"] == ask.ctx.project_id else {}
        told = {name: {"limit": limit, "in_use": used.get(name, 0), "reserved": 0} for name, limit in limits.items()}
        return Reply({"quota_set": {"id": ask.path["project"], **told}})

    async def set_quotas(self, ask: Ask) -> Reply:
        given = ask.body.quota_set.model_dump(exclude_none=True, exclude={"force", "tenant_id"})
        wanted = {NAMES.get(name, name): value for name, value in given.items()}
        found = await self.bus.call(ask.ctx, SetQuotas(project=ask.path["project"], quotas=wanted))
        return Reply({"quota_set": _set(ask, found)})

    async def reset_quotas(self, ask: Ask) -> Reply:
        await self.bus.call(ask.ctx, ResetQuotas(project=ask.path["project"]))
        return Reply()

    async def _used(self, ask: Ask) -> Json:
        held = await self._instances(ask)
        return {
            "instances": len(held),
            "cores": sum(each.flavor.vcpus for each in held),
            "ram": sum(each.flavor.memory_mb for each in held),
            "key_pairs": await self._keys(ask),
            "floating_ips": len(await self._floating(ask)),
            "security_groups": await self._groups(ask),
        }

    async def _groups(self, ask: Ask) -> int:
        found = await self.bus.call(ask.ctx, ListSecurityGroups())
        return len(found)

    async def _keys(self, ask: Ask) -> int:
        found = await self.bus.call(ask.ctx, ListKeyPairs())
        return len(found)

    async def _floating(self, ask: Ask) -> list[str]:
        found = await self.bus.call(ask.ctx, ListFloatingIps())
        return [str(each.address) for each in found if each.project_id == ask.ctx.project_id]

    async def _instances(self, ask: Ask) -> list[Instance]:
        found: list[Instance] = []
        while True:
            some = await self.bus.call(ask.ctx, ListInstances(marker=found[-1].id if found else None))
            found += some
            if len(some) < 1000:
                return found


def _set(ask: Ask, quotas: Quotas) -> Json:
    whole = {
        "instances": quotas.instances,
        "cores": quotas.cores,
        "ram": quotas.memory_mb,
        "key_pairs": quotas.key_pairs,
        "metadata_items": quotas.metadata_items,
        "floating_ips": quotas.floating_ips,
        "fixed_ips": -1,
        "security_groups": quotas.security_groups,
        "security_group_rules": quotas.security_group_rules,
        "injected_files": FILES,
        "injected_file_content_bytes": FILE_BYTES,
        "injected_file_path_bytes": PATH_BYTES,
        "server_groups": 0,
        "server_group_members": 0,
    }
    return shaped(SETS, ask.version, whole)
