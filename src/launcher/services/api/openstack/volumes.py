"""Block Storage v3's volumes: create, list, show, delete, their metadata, and actions."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from launcher.accounts import UserRole
from launcher.bus import Bus
from launcher.errors import BadRequest, NotFound
from launcher.messages.tags import RemoveTags, SetTags
from launcher.messages.volumes import CreateVolume, DeleteVolume, DetachVolume, ExtendVolume, GetVolume, ListVolumes
from launcher.models import Model, Name
from launcher.services.api import problems
from launcher.services.api.openstack import nova
from launcher.services.api.openstack.actions import ActionRequest
from launcher.services.api.openstack.cinder import PAGED, V3, arranged, more, volume
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, misfit, refused
from launcher.services.api.openstack.versions import Refused, Version, check, since
from launcher.tagging import Tagged, Target
from launcher.volumes import LARGEST_GB, Description, Metadata, Volume, VolumeStatus

FILTERS: dict[str, Callable[[Json], Any]] = {
    "name": lambda each: each["name"],
    "status": lambda each: each["status"],
    "bootable": lambda each: each["bootable"],
    "availability_zone": lambda each: each["availability_zone"],
    "project_id": lambda each: each["os-vol-tenant-attr:tenant_id"],
    "user_id": lambda each: each["user_id"],
}
EXTENDS_IN_USE = Version(3, 42)
NO_GROUPS = Refused("volumes have no groups")
ATTACHES = "volumes are attached by Compute: POST /servers/{id}/os-volume_attachments"
REFUSED = {
    **dict.fromkeys(("os-attach", "os-detach", "os-reserve", "os-unreserve", "os-begin_detaching"), ATTACHES),
    **dict.fromkeys(("os-initialize_connection", "os-terminate_connection", "os-roll_detaching"), ATTACHES),
    "os-reset_status": "a status is what its host reports",
    "os-force_delete": "a delete is tried until it is done",
    "os-set_bootable": "bootable is what is made of an image",
    "os-update_readonly_flag": "a volume can be written",
    "os-retype": "there is one type of volumes",
    "os-migrate_volume": "a volume stays on its host",
    "os-volume_upload_image": "images are not made of volumes",
    "os-set_image_metadata": "a volume tells the id of its image, no more",
    "os-unset_image_metadata": "a volume tells the id of its image, no more",
    "revert": "a volume is made of the snapshot: POST /volumes with snapshot_id",
}


class VolumeFields(Model):
    size: int | None = Field(default=None, ge=1, le=LARGEST_GB)
    name: Name | None = None
    description: Description | None = None
    metadata: Metadata | None = None
    snapshot_id: str | None = None
    imageRef: str | None = None  # noqa: N815 - Cinder's own
    availability_zone: str | None = Field(default=None, max_length=255)
    volume_type: Literal["default"] | None = None
    multiattach: Literal[False] | None = None
    source_volid: Annotated[Any, Refused("a volume is copied by a snapshot of it")] = None
    consistencygroup_id: Annotated[Any, NO_GROUPS] = None
    group_id: Annotated[Any, since(13, major=3), NO_GROUPS] = None
    backup_id: Annotated[Any, Refused("there are no backups")] = None
    source_replica: Annotated[Any, Refused("volumes have no replicas")] = None
    user_id: str | None = None
    project_id: str | None = None
    status: str | None = None
    attach_status: str | None = None


class HintFields(Model):
    local_to_instance: str | None = Field(default=None, description="make it where this server is")


class VolumeRequest(Model):
    """POST /volumes."""

    volume: VolumeFields
    hints: HintFields | None = Field(default=None, alias="OS-SCH-HNT:scheduler_hints")


class MetadataRequest(Model):
    metadata: Metadata


class ExtendFields(Model):
    new_size: int = Field(ge=1, le=LARGEST_GB)


class ForceFields(Model):
    attachment_id: str | None = None
    connector: Any = None


class Volumes:
    """A part of BlockStorage."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        every, one, needs = f"{V3}/volumes", f"{V3}/volumes/{{id}}", UserRole.MEMBER
        queries = (*PAGED, *FILTERS)
        actions = f"os-extend, os-force_detach; refused with the reason: {', '.join(REFUSED)}"
        return [
            Operation("GET", every, self.list_volumes, queries=queries),
            Operation("GET", f"{every}/detail", self.list_details, queries=queries),
            Operation("GET", f"{every}/summary", self.get_summary, queries=("all_tenants",), ages=since(12, major=3)),
            Operation("POST", every, self.create_volume, status=202, body=VolumeRequest, needs=needs),
            Operation("GET", one, self.get_volume),
            Operation("DELETE", one, self.delete_volume, status=202, queries=("cascade", "force"), needs=needs),
            refused("PUT", one, "a volume keeps its name and its description; its metadata can be changed"),
            Operation("POST", f"{one}/action", self.act, status=202, body=ActionRequest, needs=needs, why=actions),
            Operation("GET", f"{one}/metadata", self.get_metadata),
            Operation("POST", f"{one}/metadata", self.add_metadata, body=MetadataRequest, needs=needs),
            Operation("PUT", f"{one}/metadata", self.replace_metadata, body=MetadataRequest, needs=needs),
            Operation("DELETE", f"{one}/metadata/{{key}}", self.delete_meta, needs=needs),
        ]

    async def list_volumes(self, ask: Ask) -> Reply:
        page, rest = await self._page(ask)
        told = [{name: each[name] for name in ("id", "name", "links")} for each in page]
        return Reply({"volumes": told, **(more(ask, "volumes", page) if rest else {})})

    async def list_details(self, ask: Ask) -> Reply:
        page, rest = await self._page(ask)
        return Reply({"volumes": page, **(more(ask, "volumes", page) if rest else {})})

    async def get_summary(self, ask: Ask) -> Reply:
        found = await self._all(ask)
        total = {"total_size": sum(each.size_gb for each in found), "total_count": len(found)}
        return Reply({"volume-summary": total})

    async def get_volume(self, ask: Ask) -> Reply:
        return Reply({"volume": volume(ask, await self._the_volume(ask))})

    async def create_volume(self, ask: Ask) -> Reply:
        given: VolumeFields = ask.body.volume
        message = CreateVolume(
            name=given.name,
            description=given.description or "",
            metadata=given.metadata or {},
            size_gb=given.size,
            snapshot=given.snapshot_id,
            image=given.imageRef,
            availability_zone=given.availability_zone,
            near=ask.body.hints.local_to_instance if ask.body.hints else None,
        )
        return Reply({"volume": volume(ask, await self.bus.call(ask.ctx, message))})

    async def delete_volume(self, ask: Ask) -> Reply:
        if nova.truth(ask.query, "cascade"):
            raise BadRequest("snapshots outlive their volume: cascade is not to be had", field="cascade")
        found = await self._the_volume(ask)
        await self.bus.call(ask.ctx, DeleteVolume(volume=found.id))
        return Reply()

    # --- actions -----------------------------------------------------------------------------------------------

    async def act(self, ask: Ask) -> Reply:
        given: dict[str, Any] = ask.body.action
        if len(given) != 1:
            raise BadRequest("There must be one action, and no more")
        name, value = next(iter(given.items()))
        found = await self._the_volume(ask)
        if name in REFUSED:
            raise problems.HttpError(f"{name}: {REFUSED[name]}", status=501)
        known: dict[str, tuple[type[Model], Callable[[Ask, Volume, Any], Awaitable[None]]]] = {
            "os-extend": (ExtendFields, self.extend),
            "os-force_detach": (ForceFields, self.force_detach),
        }
        if name not in known:
            raise BadRequest(f"There is no such action: {name[:60]}")
        model, do = known[name]
        try:
            taken = model.model_validate_json(json.dumps(value or {}), strict=True)
        except ValidationError as error:
            raise misfit(error) from None
        check(taken, ask.version)
        await do(ask, found, taken)
        return Reply()

    async def extend(self, ask: Ask, found: Volume, given: ExtendFields) -> None:
        if found.status is VolumeStatus.IN_USE and ask.version < EXTENDS_IN_USE:
            raise BadRequest(f"Invalid volume: it is in use; microversion {EXTENDS_IN_USE} extends it all the same")
        await self.bus.call(ask.ctx, ExtendVolume(volume=found.id, size_gb=given.new_size))

    async def force_detach(self, ask: Ask, found: Volume, given: ForceFields) -> None:
        await self.bus.call(ask.ctx, DetachVolume(volume=found.id, force=True))

    # --- metadata ----------------------------------------------------------------------------------------------

    async def get_metadata(self, ask: Ask) -> Reply:
        return Reply({"metadata": (await self._the_volume(ask)).metadata})

    async def add_metadata(self, ask: Ask) -> Reply:
        found = await self._the_volume(ask)
        await self.bus.call(ask.ctx, SetTags(targets=(_target(found),), tags=ask.body.metadata))
        return await self.get_metadata(ask)

    async def replace_metadata(self, ask: Ask) -> Reply:
        found, given = await self._the_volume(ask), ask.body.metadata
        gone = dict.fromkeys(key for key in found.metadata if key not in given)
        if gone:
            await self.bus.call(ask.ctx, RemoveTags(targets=(_target(found),), tags=gone))
        await self.bus.call(ask.ctx, SetTags(targets=(_target(found),), tags=given))
        return await self.get_metadata(ask)

    async def delete_meta(self, ask: Ask) -> Reply:
        found, key = await self._the_volume(ask), ask.path["key"]
        if key not in found.metadata:
            raise NotFound(f"Volume {found.id} has no metadata with key {key}.")
        await self.bus.call(ask.ctx, RemoveTags(targets=(_target(found),), tags={key: None}))
        return Reply()

    # --- finding -----------------------------------------------------------------------------------------------

    async def _the_volume(self, ask: Ask) -> Volume:
        """By its id; a name is none, and a deleted one is gone."""
        found = await self.bus.call(ask.ctx, GetVolume(volume=ask.path["id"]))
        if found.id != ask.path["id"] or found.status is VolumeStatus.DELETED:
            raise NotFound(f"Volume {ask.path['id']} could not be found.")
        return found

    async def _all(self, ask: Ask) -> list[Volume]:
        return await self.bus.call(ask.ctx, ListVolumes(all_projects=nova.truth(ask.query, "all_tenants")))

    async def _page(self, ask: Ask) -> tuple[list[Json], bool]:
        return arranged(ask, [volume(ask, each) for each in await self._all(ask)], FILTERS)


def _target(found: Volume) -> Target:
    return Target(kind=Tagged.VOLUME, id=found.id)
