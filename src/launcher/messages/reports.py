"""To the controller, from the roles that work."""

from __future__ import annotations

from pydantic import Field

from launcher.auditing import ArtefactKind
from launcher.messaging import Call, Cast
from launcher.models import Generation, InstanceId, LaunchOrder, Model, Nic, PowerState, Span, TaskState


class ReportStep(Call[None]):
    """A step is about to begin: the journal, the visible task state, and the claim of the instance by a host.

    `rescheduling` is such a step, too: what is undone for another attempt elsewhere is undone only while the instance
    still waits for that. Raises StaleGeneration when the instance has moved on; then the work is dropped.
    """

    topic = "controller"
    instance_id: InstanceId
    generation: Generation
    host: str
    step: TaskState


class ReportActive(Call[None]):
    """The machine runs. Raises StaleGeneration."""

    topic = "controller"
    instance_id: InstanceId
    generation: Generation
    host: str
    nics: tuple[Nic, ...]
    injection: str


class NextMove(Model):
    """What to do after a fault: try again later, or undo everything under the new order.

    With `keep_address` the launch goes on at another host.
    """

    order: LaunchOrder | None
    keep_address: bool = False


class ReportFault(Call[NextMove]):
    """A step failed. The answer carries a new order when the launch is to be undone. Raises StaleGeneration."""

    topic = "controller"
    instance_id: InstanceId
    generation: Generation
    host: str | None
    step: str
    code: str
    message: str
    hint: str = ""
    retriable: bool


class ReportGone(Call[None]):
    """Nothing of the instance is left on the host. Raises StaleGeneration."""

    topic = "controller"
    instance_id: InstanceId
    generation: Generation


class ReportPower(Cast):
    """The hypervisor saw the machine change (None: it is missing), with its word for the cause."""

    topic = "controller"
    instance_id: InstanceId
    generation: Generation = Field(description="of the machine that is meant")
    host: str
    power: PowerState | None
    cause: str


class ReportStuck(Call[bool]):
    """The hypervisor paused the machine because a disk could not be written; or, not `stuck`, it goes on again.

    Whether it should run is the answer: nobody else wants it paused. What is `news` becomes an event. Raises
    StaleGeneration.
    """

    topic = "controller"
    instance_id: InstanceId
    generation: Generation
    host: str
    stuck: bool
    news: bool


class ReportVerified(Cast):
    """After a restart of its host the machine was found running; these things of it were missing and are back."""

    topic = "controller"
    instance_id: InstanceId
    mended: frozenset[ArtefactKind]


class RecordSpans(Cast):
    """Finished pieces of work, for the traces."""

    topic = "controller"
    spans: tuple[Span, ...]
