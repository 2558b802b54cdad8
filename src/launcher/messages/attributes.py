"""To the controller, from the API server: what an instance's owner may change of it beside its state."""

from __future__ import annotations

from pydantic import Field

from launcher.messaging import Call
from launcher.models import Instance, Name, ShutdownBehaviour
from launcher.tagging import MOST_LABELS, Label


class ModifyInstance(Call[Instance]):
    """Change what is given, all of it or nothing.

    `flavor` and `user_data` (empty: none any more) need a stopped instance, else WrongState. A new flavor must fit the
    quota by what it has more, and its disk must not be smaller; the disk has grown at the next start. Raises Locked,
    NotFound for a flavor, QuotaExceeded, BadRequest.
    """

    topic = "controller"
    traced = True
    instance_id: str
    name: Name | None = None
    flavor: str | None = None
    user_data: str | None = Field(default=None, description="base64")
    shutdown_behaviour: ShutdownBehaviour | None = None
    description: str | None = Field(default=None, max_length=255, description="empty: none any more")
    labels: tuple[Label, ...] | None = Field(default=None, max_length=MOST_LABELS, description="these, once each")
    protected: bool | None = Field(default=None, description="a delete is refused until this is taken back")


class LockInstance(Call[Instance]):
    """While it is locked only administrators can do anything to it; repeating it is success.

    Raises Forbidden when an administrator's lock is to be opened by somebody else.
    """

    topic = "controller"
    instance_id: str
    locked: bool
    reason: str | None = Field(default=None, min_length=1, max_length=255)
