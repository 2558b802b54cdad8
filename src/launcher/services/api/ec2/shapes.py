"""Parts of answers that several operations have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from launcher.services.api.ec2.xml import Moment, Since

TAGS, GROUP_IDS, VPC, INTERFACES = "2010-08-31", "2011-01-01", "2011-07-15", "2011-12-15"
"""The versions with which EC2 got these: before `GROUP_IDS` a group's id was its name."""


class Tag(NamedTuple):
    key: str
    value: str


class Detail(NamedTuple):
    """A check that DescribeInstanceStatus or DescribeVolumeStatus tells of."""

    name: str
    status: str


class Summary(NamedTuple):
    status: str
    details: tuple[Detail, ...]


class GroupName(NamedTuple):
    """A security group by its id and name; a reader of an old version finds the name where the id is."""

    group_id: str
    group_name: Annotated[str, Since(GROUP_IDS)]


TagSet = Annotated[tuple[Tag, ...], Since(TAGS)]


def tag_set(tags: Mapping[str, str] | Iterable[tuple[str, str]]) -> tuple[Tag, ...]:
    pairs = tags.items() if isinstance(tags, Mapping) else tags
    return tuple(Tag(key, value) for key, value in sorted(pairs))


def moment(ms: float) -> Moment:
    """`2030-12-31T23:59:59.000Z`, in milliseconds since the epoch."""
    return Moment(f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{int(ms) % 1000:03d}Z")
