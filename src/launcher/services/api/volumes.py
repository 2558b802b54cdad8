"""The native dialect's volumes and their snapshots; it translates and decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from launcher.bus import Bus
from launcher.errors import Conflict, Forbidden, NotFound, QuotaExceeded
from launcher.messages.volumes import (
    AttachVolume,
    CreateSnapshot,
    CreateVolume,
    DeleteSnapshot,
    DeleteVolume,
    DetachVolume,
    ExtendVolume,
    GetSnapshot,
    GetVolume,
    ListSnapshots,
    ListVolumes,
)
from launcher.models import Model, Name
from launcher.services.api.endpoint import Answer, Ask, Endpoint
from launcher.volumes import LARGEST_GB, Description, Device, Metadata, Snapshot, Volume

Word = Field(default=None, min_length=1, max_length=255, description="a name or an id")


class VolumeBody(Model):
    """POST /volumes. Without a snapshot or an image it is empty; it is made on the host of what it is `near`."""

    name: Name | None = None
    description: Description = ""
    metadata: Metadata = Field(default_factory=dict)
    size_gb: int | None = Field(default=None, ge=1, le=LARGEST_GB, description="else what it is made of needs")
    snapshot: str | None = Word
    image: str | None = Word
    availability_zone: str | None = Field(default=None, max_length=255)
    near: str | None = Word


class AttachmentBody(Model):
    """POST /volumes/{id}/attachment."""

    instance: str = Field(min_length=1, max_length=255, description="a name or an id")
    device: Device | None = None
    delete_on_termination: bool = False


class DetachmentQuery(Model):
    instance: str | None = Field(default=None, max_length=255, description="refuse if it is another's")
    force: bool = Field(default=False, description="reset the machine if its guest does not let go")


class SizeBody(Model):
    """POST /volumes/{id}/size."""

    size_gb: int = Field(ge=1, le=LARGEST_GB)


class SnapshotBody(Model):
    """POST /snapshots. With `force` also of a volume in use: its machine is paused while it is copied."""

    volume: str = Field(min_length=1, max_length=255, description="a name or an id")
    name: Name | None = None
    description: Description = ""
    metadata: Metadata = Field(default_factory=dict)
    force: bool = False


class ListQuery(Model):
    all_projects: bool = False
    deleted: bool = False


class VolumeList(Model):
    volumes: list[Volume]


class SnapshotList(Model):
    snapshots: list[Snapshot]


class NativeVolumes:
    """Answered by the controller, before the host has done it."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        return [*self._volumes(), *self._attachments(), *self._snapshots()]

    def _volumes(self) -> Sequence[Endpoint]:
        every, one = "/volumes", "/volumes/{id}"
        return [
            Endpoint(
                "POST",
                every,
                self.create_volume,
                "Make a volume; the answer comes before it is there",
                status=202,
                body=VolumeBody,
                response=Volume,
                raises=(QuotaExceeded, NotFound, Conflict),
            ),
            Endpoint(
                "GET",
                every,
                self.list_volumes,
                "List volumes",
                query=ListQuery,
                response=VolumeList,
                raises=(Forbidden,),
            ),
            Endpoint("GET", one, self.get_volume, "Show a volume", response=Volume, raises=(Conflict,)),
            Endpoint(
                "DELETE",
                one,
                self.delete_volume,
                "Delete a volume and what is in it",
                status=202,
                response=Volume,
                raises=(Conflict,),
            ),
            Endpoint(
                "POST",
                f"{one}/size",
                self.extend_volume,
                "Make it larger, attached or not",
                status=202,
                body=SizeBody,
                response=Volume,
                raises=(QuotaExceeded, Conflict),
            ),
        ]

    def _attachments(self) -> Sequence[Endpoint]:
        path = "/volumes/{id}/attachment"
        return [
            Endpoint(
                "POST",
                path,
                self.attach_volume,
                "Let an instance have it, running or stopped",
                status=202,
                body=AttachmentBody,
                response=Volume,
                raises=(Conflict,),
            ),
            Endpoint(
                "DELETE",
                path,
                self.detach_volume,
                "Take it away from its instance",
                status=202,
                query=DetachmentQuery,
                response=Volume,
                raises=(Conflict,),
            ),
        ]

    def _snapshots(self) -> Sequence[Endpoint]:
        every, one = "/snapshots", "/snapshots/{id}"
        return [
            Endpoint(
                "POST",
                every,
                self.create_snapshot,
                "Keep what is in a volume now",
                status=202,
                body=SnapshotBody,
                response=Snapshot,
                raises=(QuotaExceeded, NotFound, Conflict),
            ),
            Endpoint(
                "GET",
                every,
                self.list_snapshots,
                "List snapshots",
                query=ListQuery,
                response=SnapshotList,
                raises=(Forbidden,),
            ),
            Endpoint("GET", one, self.get_snapshot, "Show a snapshot", response=Snapshot, raises=(Conflict,)),
            Endpoint(
                "DELETE",
                one,
                self.delete_snapshot,
                "Delete a snapshot; volumes made of it stay",
                status=202,
                response=Snapshot,
                raises=(Conflict,),
            ),
        ]

    async def create_volume(self, ask: Ask) -> Answer:
        made = await self.bus.call(ask.ctx, CreateVolume(**ask.body.model_dump()))
        return Answer(made, {"Location": f"/volumes/{made.id}"})

    async def list_volumes(self, ask: Ask) -> Answer:
        return Answer(VolumeList(volumes=await self.bus.call(ask.ctx, ListVolumes(**ask.query.model_dump()))))

    async def get_volume(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, GetVolume(volume=ask.path["id"])))

    async def delete_volume(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, DeleteVolume(volume=ask.path["id"])))

    async def extend_volume(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, ExtendVolume(volume=ask.path["id"], size_gb=ask.body.size_gb)))

    async def attach_volume(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, AttachVolume(volume=ask.path["id"], **ask.body.model_dump())))

    async def detach_volume(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, DetachVolume(volume=ask.path["id"], **ask.query.model_dump())))

    async def create_snapshot(self, ask: Ask) -> Answer:
        made = await self.bus.call(ask.ctx, CreateSnapshot(**ask.body.model_dump()))
        return Answer(made, {"Location": f"/snapshots/{made.id}"})

    async def list_snapshots(self, ask: Ask) -> Answer:
        return Answer(SnapshotList(snapshots=await self.bus.call(ask.ctx, ListSnapshots(**ask.query.model_dump()))))

    async def get_snapshot(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, GetSnapshot(snapshot=ask.path["id"])))

    async def delete_snapshot(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, DeleteSnapshot(snapshot=ask.path["id"])))
