"""Block Storage v3, put together: versions, types, limits, quotas, zones; and its other parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from launcher.bus import Bus
from launcher.errors import Forbidden, LauncherError, NotFound
from launcher.messages.accounts import GetQuotas, SetQuotas
from launcher.messages.catalogue import ListHosts
from launcher.messages.volumes import ListSnapshots, ListVolumes
from launcher.models import Model, Quotas
from launcher.services.api.openstack import cinder, ids, nova
from launcher.services.api.openstack.cinder import KIND, V3
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, Settled, refused
from launcher.services.api.openstack.versions import Refused
from launcher.services.api.openstack.volume_snapshots import Snapshots
from launcher.services.api.openstack.volumes import Volumes

UPDATED = "2021-01-01T00:00:00Z"
OWN = ("volumes", "snapshots", "gigabytes")
NONE = ("backups", "backup_gigabytes", "groups")
ONE_TYPE = "there is one type of volumes: what [volumes] says"
NO_BACKUPS = "there are no backups; a snapshot keeps what is in a volume"
Limit = Annotated[int, Field(ge=0, le=2**31 - 1)]


class QuotaFields(Model):
    volumes: Limit | None = None
    snapshots: Limit | None = None
    gigabytes: Limit | None = None
    backups: Annotated[Any, Refused("there are none")] = None
    backup_gigabytes: Annotated[Any, Refused("there are none")] = None
    groups: Annotated[Any, Refused("there are none")] = None
    per_volume_gigabytes: Annotated[Any, Refused("this is no quota here")] = None
    tenant_id: str | None = None


class QuotaRequest(Model):
    """PUT /os-quota-sets/{project}."""

    quota_set: QuotaFields


class BlockStorage:
    """Cinder's part."""

    type, name, prefix, endpoint, unscoped = "block-storage", "cinder", cinder.PREFIX, cinder.ENDPOINT, False

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus
        self.parts = (Volumes(bus=bus), Snapshots(bus=bus))

    @property
    def operations(self) -> Sequence[Operation]:
        return [
            Operation("GET", "", self.list_versions, status=300, public=True),
            Operation("GET", V3, self.list_versions, public=True),
            *(each for part in self.parts for each in part.operations),
            *self._types(),
            *self._quotas(),
            *self._about(),
        ]

    def settle(self, request: web.Request) -> Settled:
        return cinder.settle(request)

    def refusal(self, error: LauncherError) -> tuple[int, Json]:
        return cinder.refusal(error)

    def _types(self) -> Sequence[Operation]:
        every, one = f"{V3}/types", f"{V3}/types/{{id}}"
        return [
            Operation("GET", every, self.list_types, queries=("is_public", "limit", "marker", "sort", "name")),
            Operation("GET", one, self.get_type),
            Operation("GET", f"{one}/extra_specs", self.get_extra_specs),
            refused("POST", every, ONE_TYPE, status=403),
            refused("PUT", one, ONE_TYPE, status=403),
            refused("DELETE", one, ONE_TYPE, status=403),
        ]

    def _quotas(self) -> Sequence[Operation]:
        one = f"{V3}/os-quota-sets/{{project}}"
        return [
            Operation("GET", f"{V3}/limits", self.get_limits, queries=("project_id",)),
            Operation("GET", one, self.get_quotas, queries=("usage",)),
            Operation("GET", f"{one}/defaults", self.get_defaults),
            Operation("PUT", one, self.set_quotas, body=QuotaRequest),
            refused("DELETE", one, "Compute's DELETE /os-quota-sets puts back all of them"),
        ]

    def _about(self) -> Sequence[Operation]:
        return [
            Operation("GET", f"{V3}/os-availability-zone", self.list_zones),
            Operation("GET", f"{V3}/os-services", self.list_services, queries=("host", "binary")),
            Operation("GET", f"{V3}/extensions", _empty("extensions")),
            Operation("GET", f"{V3}/backups", _empty("backups"), queries=("*",)),
            Operation("GET", f"{V3}/backups/detail", _empty("backups"), queries=("*",)),
            refused("POST", f"{V3}/backups", NO_BACKUPS),
            refused("POST", f"{V3}/attachments", "volumes are attached by Compute"),
            refused("POST", f"{V3}/os-volume-transfer", "a volume stays its project's"),
        ]

    # --- versions, types ---------------------------------------------------------------------------------------

    async def list_versions(self, ask: Ask) -> Reply:
        version = {
            "id": "v3.0",
            "status": "CURRENT",
            "version": str(cinder.NEWEST),
            "min_version": str(cinder.OLDEST),
            "updated": UPDATED,
            "links": [{"rel": "self", "href": f"{ask.base}{cinder.ENDPOINT}/"}],
        }
        return Reply({"versions": [version]})

    async def list_types(self, ask: Ask) -> Reply:
        return Reply({"volume_types": [_type()] if ask.query.get("name", KIND) == KIND else []})

    async def get_type(self, ask: Ask) -> Reply:
        _check_type(ask)
        return Reply({"volume_type": _type()})

    async def get_extra_specs(self, ask: Ask) -> Reply:
        _check_type(ask)
        return Reply({"extra_specs": {}})

    # --- limits and quotas ----------------------------------------------------------------------------------------

    async def get_limits(self, ask: Ask) -> Reply:
        quotas = await self.bus.call(ask.ctx, GetQuotas(project=ask.ctx.project_id))
        used = await self._used(ask)
        absolute = {
            "maxTotalVolumes": quotas.volumes,
            "maxTotalSnapshots": quotas.snapshots,
            "maxTotalVolumeGigabytes": quotas.gigabytes,
            "maxTotalBackups": 0,
            "maxTotalBackupGigabytes": 0,
            "totalVolumesUsed": used["volumes"],
            "totalSnapshotsUsed": used["snapshots"],
            "totalGigabytesUsed": used["gigabytes"],
            "totalBackupsUsed": 0,
            "totalBackupGigabytesUsed": 0,
        }
        return Reply({"limits": {"rate": [], "absolute": absolute}})

    async def get_quotas(self, ask: Ask) -> Reply:
        """What is in use is told of the project that is asked in."""
        limits = _set(await self.bus.call(ask.ctx, GetQuotas(project=ask.path["project"])))
        told: Json = dict(limits)
        if nova.truth(ask.query, "usage"):
            used = await self._used(ask) if ask.path["project"] == ask.ctx.project_id else {}
            told = {
                name: {"limit": limit, "in_use": used.get(name, 0), "reserved": 0} for name, limit in limits.items()
            }
        return Reply({"quota_set": {"id": ask.path["project"], **told}})

    async def get_defaults(self, ask: Ask) -> Reply:
        found = await self.bus.call(ask.ctx, GetQuotas(project=ask.path["project"], usual=True))
        return Reply({"quota_set": {"id": ask.path["project"], **_set(found)}})

    async def set_quotas(self, ask: Ask) -> Reply:
        wanted = ask.body.quota_set.model_dump(exclude_none=True, exclude={"tenant_id"})
        found = await self.bus.call(ask.ctx, SetQuotas(project=ask.path["project"], quotas=wanted))
        return Reply({"quota_set": _set(found)})

    async def _used(self, ask: Ask) -> dict[str, int]:
        volumes = await self.bus.call(ask.ctx, ListVolumes())
        snapshots = await self.bus.call(ask.ctx, ListSnapshots())
        gigabytes = sum(each.size_gb for each in volumes) + sum(each.size_gb for each in snapshots)
        return {"volumes": len(volumes), "snapshots": len(snapshots), "gigabytes": gigabytes}

    # --- zones and services ------------------------------------------------------------------------------------

    async def list_zones(self, ask: Ask) -> Reply:
        names = sorted({each.availability_zone for each in await self.bus.call(ask.ctx, ListHosts())})
        told = [{"zoneName": name, "zoneState": {"available": True}} for name in names]
        return Reply({"availabilityZoneInfo": told})

    async def list_services(self, ask: Ask) -> Reply:
        if not ask.ctx.is_admin:
            raise Forbidden("Policy doesn't allow volume_extension:services:index to be performed.")
        told = [
            {
                "binary": "cinder-volume",
                "host": host.name,
                "zone": host.availability_zone,
                "status": "enabled",
                "state": "up",
                "updated_at": cinder.moment(host.seen_ms),
                "disabled_reason": None,
            }
            for host in await self.bus.call(ask.ctx, ListHosts())
        ]
        return Reply({"services": told})


def _empty(kind: str) -> Callable[[Ask], Awaitable[Reply]]:
    async def nothing(ask: Ask) -> Reply:
        return Reply({kind: []})

    return nothing


def _type() -> Json:
    return {
        "id": ids.uuid_of("volume-type", KIND),
        "name": KIND,
        "description": "what the hosts' driver makes",
        "is_public": True,
        "os-volume-type-access:is_public": True,
        "extra_specs": {},
        "qos_specs_id": None,
    }


def _check_type(ask: Ask) -> None:
    if ask.path["id"] not in (KIND, _type()["id"]):
        raise NotFound(f"Volume type {ask.path['id']} could not be found.")


def _set(quotas: Quotas) -> dict[str, int]:
    own = {name: int(getattr(quotas, name)) for name in OWN}
    return {**own, **dict.fromkeys(NONE, 0), "per_volume_gigabytes": -1}
