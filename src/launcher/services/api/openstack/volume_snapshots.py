"""Block Storage v3's snapshots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import Field

from launcher.accounts import UserRole
from launcher.bus import Bus
from launcher.errors import NotFound
from launcher.messages.tags import RemoveTags, SetTags
from launcher.messages.volumes import CreateSnapshot, DeleteSnapshot, GetSnapshot, ListSnapshots
from launcher.models import Model, Name
from launcher.services.api.openstack import nova
from launcher.services.api.openstack.cinder import PAGED, V3, arranged, more, snapshot
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, refused
from launcher.services.api.openstack.volumes import MetadataRequest
from launcher.tagging import Tagged, Target
from launcher.volumes import Description, Metadata, Snapshot, VolumeStatus

FILTERS: dict[str, Callable[[Json], Any]] = {
    "name": lambda each: each["name"],
    "status": lambda each: each["status"],
    "volume_id": lambda each: each["volume_id"],
    "project_id": lambda each: each["os-extended-snapshot-attributes:project_id"],
}


class SnapshotFields(Model):
    volume_id: str
    name: Name | None = None
    description: Description | None = None
    metadata: Metadata | None = None
    force: bool = Field(default=False, description="of a volume in use: its machine is paused while it is copied")


class SnapshotRequest(Model):
    """POST /snapshots."""

    snapshot: SnapshotFields


class Snapshots:
    """A part of BlockStorage."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        every, one, needs = f"{V3}/snapshots", f"{V3}/snapshots/{{id}}", UserRole.MEMBER
        queries = (*PAGED, *FILTERS)
        return [
            Operation("GET", every, self.list_snapshots, queries=queries),
            Operation("GET", f"{every}/detail", self.list_snapshots, queries=queries),
            Operation("POST", every, self.create_snapshot, status=202, body=SnapshotRequest, needs=needs),
            Operation("GET", one, self.get_snapshot),
            Operation("DELETE", one, self.delete_snapshot, status=202, needs=needs),
            refused("PUT", one, "a snapshot keeps its name and its description; its metadata can be changed"),
            refused("POST", f"{one}/action", "a status is what its host reports"),
            Operation("GET", f"{one}/metadata", self.get_metadata),
            Operation("POST", f"{one}/metadata", self.add_metadata, body=MetadataRequest, needs=needs),
            Operation("DELETE", f"{one}/metadata/{{key}}", self.delete_meta, needs=needs),
        ]

    async def list_snapshots(self, ask: Ask) -> Reply:
        message = ListSnapshots(all_projects=nova.truth(ask.query, "all_tenants"))
        told = [snapshot(ask, each) for each in await self.bus.call(ask.ctx, message)]
        page, rest = arranged(ask, told, FILTERS)
        return Reply({"snapshots": page, **(more(ask, "snapshots", page) if rest else {})})

    async def create_snapshot(self, ask: Ask) -> Reply:
        given: SnapshotFields = ask.body.snapshot
        message = CreateSnapshot(
            volume=given.volume_id,
            name=given.name,
            description=given.description or "",
            metadata=given.metadata or {},
            force=given.force,
        )
        return Reply({"snapshot": snapshot(ask, await self.bus.call(ask.ctx, message))})

    async def get_snapshot(self, ask: Ask) -> Reply:
        return Reply({"snapshot": snapshot(ask, await self._the_snapshot(ask))})

    async def delete_snapshot(self, ask: Ask) -> Reply:
        found = await self._the_snapshot(ask)
        await self.bus.call(ask.ctx, DeleteSnapshot(snapshot=found.id))
        return Reply()

    async def get_metadata(self, ask: Ask) -> Reply:
        return Reply({"metadata": (await self._the_snapshot(ask)).metadata})

    async def add_metadata(self, ask: Ask) -> Reply:
        found = await self._the_snapshot(ask)
        await self.bus.call(ask.ctx, SetTags(targets=(_target(found),), tags=ask.body.metadata))
        return await self.get_metadata(ask)

    async def delete_meta(self, ask: Ask) -> Reply:
        found, key = await self._the_snapshot(ask), ask.path["key"]
        if key not in found.metadata:
            raise NotFound(f"Snapshot {found.id} has no metadata with key {key}.")
        await self.bus.call(ask.ctx, RemoveTags(targets=(_target(found),), tags={key: None}))
        return Reply()

    async def _the_snapshot(self, ask: Ask) -> Snapshot:
        found = await self.bus.call(ask.ctx, GetSnapshot(snapshot=ask.path["id"]))
        if found.id != ask.path["id"] or found.status is VolumeStatus.DELETED:
            raise NotFound(f"Snapshot {ask.path['id']} could not be found.")
        return found


def _target(found: Snapshot) -> Target:
    return Target(kind=Tagged.SNAPSHOT, id=found.id)
