"""Volumes made larger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from launcher.errors import Conflict, NotFound, QuotaExceeded
from launcher.messages.volumes import ExtendVolume
from launcher.services.api.ec2 import finding, ids, volume_shapes
from launcher.services.api.ec2.operation import Ask, Listing, Operation, Paged, plain
from launcher.services.api.ec2.query import Ignored, Refused, Request
from launcher.services.api.ec2.refusals import Refusal
from launcher.services.api.ec2.volume_shapes import ONE_KIND, Modification
from launcher.volumes import LARGEST_GB


class ModifyVolume(Request):
    """Make a volume larger, attached or not."""

    volume_id: str
    size: Annotated[int, Field(ge=1, le=LARGEST_GB, description="GiB")]
    volume_type: Annotated[str | None, Ignored(ONE_KIND)] = None
    iops: Annotated[int | None, Ignored(ONE_KIND)] = None
    throughput: Annotated[int | None, Ignored(ONE_KIND)] = None
    multi_attach_enabled: Annotated[bool, Refused("one instance has it at a time", harmless="false")] = False


class DescribeVolumesModifications(Paged):
    """The last extension of each volume that was ever extended."""

    volume_id: tuple[str, ...] = ()


class Modified(NamedTuple):
    volume_modification: Modification


class Modifications(NamedTuple):
    volume_modification_set: tuple[Modification, ...]
    next_token: str | None = None


async def modify_volume(ask: Ask, request: ModifyVolume) -> Modified:
    (volume,) = await finding.volumes(ask, [request.volume_id])
    return Modified(volume_shapes.modified(await ask.change(ExtendVolume(volume=volume.id, size_gb=request.size))))


async def find_modifications(ask: Ask, request: Any) -> Sequence[Modification]:
    found = await finding.volumes(ask, request.volume_id)
    if request.volume_id and (never := [each for each in found if each.extension is None]):
        name = ids.VOLUME.id(never[0].number)
        raise Refusal("InvalidVolumeModification.NotFound", f"Modification for volume '{name}' does not exist.")
    return [volume_shapes.modified(each) for each in found if each.extension]


OPERATIONS = (
    Operation(
        ModifyVolume,
        Modified,
        modify_volume,
        {Conflict: "IncorrectModificationState", QuotaExceeded: "VolumeLimitExceeded", NotFound: ids.VOLUME.unknown},
    ),
    Listing(
        DescribeVolumesModifications,
        Modifications,
        find_modifications,
        plain(["volume_id", "modification_state", "target_size", "original_size"]),
        ("volume_id",),
        named=("volume_id",),
    ).operation(),
)
