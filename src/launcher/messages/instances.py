"""To the controller, from the API server: a user's instances."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Annotated

from pydantic import Field

from launcher.accounts import UserRole
from launcher.groups import GroupRef
from launcher.messaging import Call
from launcher.models import (
    LARGEST,
    Event,
    GuestMetadata,
    Instance,
    InstanceId,
    Model,
    Name,
    Personality,
    Readiness,
    ShutdownBehaviour,
    Span,
)
from launcher.networks import MOST_NICS
from launcher.tagging import MOST_LABELS, Label


class NicRequest(Model):
    """A NIC that an instance shall have."""

    network: str = Field(min_length=1, max_length=255, description="a name or an id")
    address: IPv4Address | None = Field(default=None, description="without it, the lowest free one")


class CreateInstances(Call[list[Instance]]):
    """Accept a launch: quota, groups, MAC, hostname and rows in one transaction, then a cast to the scheduler.

    Creates `max_count` instances, or as many as the quota allows if that is at least `min_count`; else
    QuotaExceeded and none. Without `networks` each gets one NIC, in its project's usual one. `idempotency_key` makes a
    repetition return the same instances.
    """

    topic = "controller"
    traced = True
    image: str
    flavor: str
    name: Name | None = None
    key_name: str | None = None
    min_count: int = Field(default=1, ge=1, le=1000)
    max_count: int = Field(default=1, ge=1, le=1000)
    security_groups: tuple[GroupRef, ...] = ()
    networks: tuple[NicRequest, ...] = Field(default=(), max_length=MOST_NICS)
    user_data: str | None = Field(default=None, description="base64")
    personality: Personality = Personality()
    config_drive: bool = False
    shutdown_behaviour: ShutdownBehaviour = ShutdownBehaviour.STOP
    protected: bool = False
    description: str | None = Field(default=None, max_length=255)
    labels: tuple[Label, ...] = Field(default=(), max_length=MOST_LABELS)
    availability_zone: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    idempotency_key: str | None = None


class GetInstance(Call[Instance]):
    topic = "controller"
    needs = UserRole.READER
    instance_id: str = Field(description="its id, or a unique name in the project")


class ListInstances(Call[list[Instance]]):
    """In order of creation, after `marker`, at most `limit`.

    `numbers` are those that are meant, none means all. Deleted ones come with `deleted`, and those that were deleted
    after `deleted_after_ms`.
    """

    topic = "controller"
    needs = UserRole.READER
    limit: int = Field(default=1000, ge=1, le=1000)
    marker: str | None = None
    name: str | None = None
    status: str | None = None
    host: str | None = None
    all_projects: bool = False
    deleted: bool = False
    numbers: tuple[Annotated[int, Field(ge=1, le=LARGEST)], ...] = ()
    deleted_after_ms: int | None = Field(default=None, ge=0, le=LARGEST)


class DeleteInstance(Call[Instance]):
    """Ask for an end, whatever the instance is doing; a deleted one stays deleted."""

    topic = "controller"
    traced = True
    instance_id: str


class GetConsoleOutput(Call[str]):
    """The console's last `max_bytes` bytes as text; what is not UTF-8 is replaced."""

    topic = "controller"
    needs = UserRole.READER
    instance_id: str
    max_bytes: int = Field(default=102400, ge=1, le=102400)


class GetReadiness(Call[Readiness]):
    topic = "controller"
    needs = UserRole.READER
    instance_id: str


class GetTrace(Call[list[Span]]):
    """The spans of the instance's launch and deletion, by start."""

    topic = "controller"
    needs = UserRole.READER
    instance_id: str


class ListEvents(Call[list[Event]]):
    """The event log after `after`, oldest first, at most 1,000; `instance_id` narrows it."""

    topic = "controller"
    needs = UserRole.READER
    after: int = Field(default=0, ge=0, le=LARGEST)
    instance_id: str | None = None


class GetGuestMetadata(Call[GuestMetadata]):
    """Raises NotFound when the instance is not alive."""

    topic = "controller"
    needs = UserRole.READER
    instance_id: InstanceId
