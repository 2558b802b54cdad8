"""Snapshots of volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from launcher.errors import Conflict, NotFound, QuotaExceeded
from launcher.messages import volumes as messages
from launcher.services.api.ec2 import finding, ids, volume_shapes
from launcher.services.api.ec2.operation import TAG_FILTERS, Ask, Listing, Operation, Paged, plain
from launcher.services.api.ec2.query import Refused, Request
from launcher.services.api.ec2.tags import TagSpecification, specified
from launcher.services.api.ec2.volume_shapes import SnapshotItem
from launcher.services.api.ec2.xml import Done


class CreateSnapshot(Request):
    """Keep what is in a volume now. The machine that has it is paused while it is copied."""

    volume_id: str
    description: Annotated[str, Field(max_length=255)] = ""
    tag_specification: tuple[TagSpecification, ...] = ()
    outpost_arn: Annotated[str | None, Refused("there are no outposts")] = None


class DescribeSnapshots(Paged):
    """The project's snapshots; nobody's are shared."""

    snapshot_id: tuple[str, ...] = ()
    owner: tuple[str, ...] = ()
    restorable_by: tuple[str, ...] = ()


class DeleteSnapshot(Request):
    """Delete a snapshot. Volumes that were made of it keep what they have."""

    snapshot_id: str


class Snapshots(NamedTuple):
    snapshot_set: tuple[SnapshotItem, ...]
    next_token: str | None = None


async def create_snapshot(ask: Ask, request: CreateSnapshot) -> SnapshotItem:
    (volume,) = await finding.volumes(ask, [request.volume_id])
    tags = specified(request.tag_specification, "snapshot")
    made = await ask.change(
        messages.CreateSnapshot(
            volume=volume.id,
            name=finding.name_of(tags),
            description=request.description,
            metadata=tags,
            force=True,
        )
    )
    return volume_shapes.kept(made)


async def find_snapshots(ask: Ask, request: DescribeSnapshots) -> Sequence[SnapshotItem]:
    mine = {"self", ask.ctx.project_id}
    found = await finding.snapshots(ask, request.snapshot_id)
    seen = all(not those or mine & set(those) for those in (request.owner, request.restorable_by))
    return [volume_shapes.kept(each) for each in found] if seen else []


async def delete_snapshot(ask: Ask, request: DeleteSnapshot) -> Done:
    (snapshot,) = await finding.snapshots(ask, [request.snapshot_id])
    await ask.change(messages.DeleteSnapshot(snapshot=snapshot.id))
    return Done()


SNAPSHOT_FILTERS = {
    **plain(["description", "encrypted", "owner_id", "progress", "snapshot_id", "start_time", "status", "volume_id"]),
    **plain(["volume_size"]),
    **TAG_FILTERS,
}
OPERATIONS = (
    Operation(
        CreateSnapshot,
        SnapshotItem,
        create_snapshot,
        {QuotaExceeded: "SnapshotLimitExceeded", NotFound: ids.VOLUME.unknown},
    ),
    Listing(
        DescribeSnapshots, Snapshots, find_snapshots, SNAPSHOT_FILTERS, ("snapshot_id",), named=("snapshot_id",)
    ).operation(),
    Operation(
        DeleteSnapshot,
        Done,
        delete_snapshot,
        {Conflict: "InvalidSnapshot.InUse", NotFound: ids.SNAPSHOT.unknown},
    ),
)
