"""To the controller, from the API server: tags. They belong to the project that notes them, not to the thing."""

from __future__ import annotations

from pydantic import Field

from launcher.accounts import UserRole
from launcher.messaging import Call
from launcher.tagging import Tag, Tagged, TagKey, TagValue, Target


class SetTags(Call[None]):
    """Note these of each of the things, over what was noted under the same key. All of them or none.

    Those of an instance, a volume, a snapshot are its metadata. Raises NotFound for one of these,
    QuotaExceeded; without a quota that says less, a thing has at most `most` afterwards.
    """

    topic = "controller"
    targets: tuple[Target, ...] = Field(min_length=1, max_length=1000)
    tags: dict[TagKey, TagValue]
    most: int | None = None


class RemoveTags(Call[None]):
    """Forget what was noted under these keys, where a value is given only if it is that; no keys are all. None is
    success. Raises NotFound for an instance, a volume, a snapshot.
    """

    topic = "controller"
    targets: tuple[Target, ...] = Field(min_length=1, max_length=1000)
    tags: dict[TagKey, TagValue | None] = Field(default_factory=dict)


class ListTags(Call[list[Tag]]):
    """The project's, of live instances and of all else, by thing and key; `kind` narrows it."""

    topic = "controller"
    needs = UserRole.READER
    kind: Tagged | None = None
