"""Every message on the bus, by receiving topic. Grep a class name and you find its sender, its receiver and its tests.

A Cast is not answered, a Call is answered with the type in its brackets, a Notice goes to whoever listens.
The audit's messages stand with its nouns in `auditing.py`.
Messages carry ids or a LaunchOrder; the row in the controller is the truth, a message is a nudge.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from pydantic import Field

from launcher.messaging import Call, Cast, Notice
from launcher.models import (
    CreatedKeyPair,
    DhcpEvidence,
    Diagnostics,
    Event,
    FixedIp,
    Flavor,
    GuestMetadata,
    HostState,
    Identity,
    Image,
    Instance,
    InstanceId,
    KeyPair,
    LaunchOrder,
    MacAddress,
    Model,
    Name,
    PowerState,
    Protocol,
    Readiness,
    SecurityGroup,
    Span,
    TaskState,
)

# --- to everybody ------------------------------------------------------------------------------


class HostHeartbeat(Notice):
    """A compute host is alive and looks like this."""

    topic = "hosts"
    host: HostState


class InstanceChanged(Notice):
    """A line was added to the event log."""

    topic = "events"
    event: Event


# --- to the controller, from the API server ----------------------------------------------------


class Ping(Call[None]):
    """Answered at once: the round trip behind /healthz."""

    topic = "controller"


class Authenticate(Call[Identity]):
    """Resolve a bearer token by its SHA-256; raises Unauthorized."""

    topic = "controller"
    token_sha256: str


class CreateInstances(Call[list[Instance]]):
    """Accept a launch: quota, groups, MAC, hostname and rows in one transaction, then a cast to the scheduler.

    Creates `max_count` instances, or as many as the quota allows if that is at least `min_count`; else
    QuotaExceeded and none. `idempotency_key` makes a repetition return the same instances.
    """

    topic = "controller"
    traced = True
    image: str
    flavor: str
    name: Name | None = None
    key_name: str | None = None
    min_count: int = Field(default=1, ge=1, le=1000)
    max_count: int = Field(default=1, ge=1, le=1000)
    security_groups: tuple[str, ...] = ()
    user_data: str | None = Field(default=None, description="base64")
    availability_zone: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    idempotency_key: str | None = None


class GetInstance(Call[Instance]):
    topic = "controller"
    instance_id: str = Field(description="its id, or a unique name in the project")


class ListInstances(Call[list[Instance]]):
    """In order of creation, after `marker`, at most `limit`."""

    topic = "controller"
    limit: int = Field(default=1000, ge=1, le=1000)
    marker: str | None = None
    name: str | None = None
    status: str | None = None
    host: str | None = None
    all_projects: bool = False
    deleted: bool = False


class DeleteInstance(Call[Instance]):
    """Ask for an end, whatever the instance is doing; a deleted one stays deleted."""

    topic = "controller"
    traced = True
    instance_id: str


class GetConsoleOutput(Call[str]):
    """The console's last `max_bytes` bytes as text; what is not UTF-8 is replaced."""

    topic = "controller"
    instance_id: str
    max_bytes: int = Field(default=102400, ge=1, le=102400)


class GetReadiness(Call[Readiness]):
    topic = "controller"
    instance_id: str


class GetTrace(Call[list[Span]]):
    """The spans of the instance's launch and deletion, by start."""

    topic = "controller"
    instance_id: str


class ListEvents(Call[list[Event]]):
    """The event log after `after`, oldest first, at most 1,000; `instance_id` narrows it."""

    topic = "controller"
    after: int = 0
    instance_id: str | None = None


class CreateKeyPair(Call[CreatedKeyPair]):
    """Make a pair, or with `public_key` import one; raises Conflict when the name is taken."""

    topic = "controller"
    name: Name
    public_key: str | None = None


class ListKeyPairs(Call[list[KeyPair]]):
    topic = "controller"


class DeleteKeyPair(Call[None]):
    topic = "controller"
    name: str


class RuleSpec(Model):
    """A rule as a user writes it."""

    protocol: Protocol
    from_port: int | None = Field(default=None, ge=0, le=65535)
    to_port: int | None = Field(default=None, ge=0, le=65535)
    cidr: IPv4Network = IPv4Network("0.0.0.0/0")


class CreateSecurityGroup(Call[SecurityGroup]):
    topic = "controller"
    name: Name
    description: str = Field(default="", max_length=255)
    rules: tuple[RuleSpec, ...] = Field(default=(), max_length=100)


class ListSecurityGroups(Call[list[SecurityGroup]]):
    topic = "controller"


class DeleteSecurityGroup(Call[None]):
    """Raises Conflict while an instance is in it, and for `default`."""

    topic = "controller"
    name: str


class RegisterImage(Call[list[Image]]):
    """Enter the image of this name from the image library into the catalogue (admins). Same content, same ids."""

    topic = "controller"
    name: Name


class ListImages(Call[list[Image]]):
    topic = "controller"


class ListFlavors(Call[list[Flavor]]):
    topic = "controller"


class ListHosts(Call[list[HostState]]):
    topic = "controller"


class GetGuestMetadata(Call[GuestMetadata]):
    """Raises NotFound when the instance is not alive."""

    topic = "controller"
    instance_id: InstanceId


# --- to the controller, from the roles that work ------------------------------------------------


class ReportStep(Call[None]):
    """A step is about to begin: the journal, the visible task state, and the claim of the instance by a host.

    Raises StaleGeneration when the instance has moved on; then the work is dropped.
    """

    topic = "controller"
    instance_id: InstanceId
    generation: int
    host: str
    step: TaskState


class ReportActive(Call[None]):
    """The machine runs. Raises StaleGeneration."""

    topic = "controller"
    instance_id: InstanceId
    generation: int
    host: str
    address: IPv4Address
    injection: str


class NextMove(Model):
    """What to do after a fault: try again later, or undo everything under the new order."""

    order: LaunchOrder | None


class ReportFault(Call[NextMove]):
    """A step failed. The answer carries a new order when the launch is to be undone. Raises StaleGeneration."""

    topic = "controller"
    instance_id: InstanceId
    generation: int
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
    generation: int


class ReportPower(Cast):
    """The hypervisor saw the machine change (None: it is missing), with its word for the cause."""

    topic = "controller"
    instance_id: InstanceId
    generation: int | None = Field(description="of the machine that is meant; None where the host cannot tell")
    host: str
    power: PowerState | None
    cause: str


class RecordSpans(Cast):
    """Finished pieces of work, for the traces."""

    topic = "controller"
    spans: tuple[Span, ...]


# --- to the scheduler ----------------------------------------------------------------------------


class ScheduleInstance(Cast):
    """Choose a host and cast the order on to it. On the wire it keeps Nova's name."""

    topic = "scheduler"
    traced = True
    method = "run_instance"
    order: LaunchOrder


# --- to a compute host ---------------------------------------------------------------------------


class RunInstance(Cast):
    """Launch, or go on launching. A running machine of the same generation is success."""

    topic = "compute"
    traced = True
    order: LaunchOrder


class TerminateInstance(Cast):
    """Undo the launch, whole or half done, and report ReportGone."""

    topic = "compute"
    traced = True
    order: LaunchOrder


class VerifyInstance(Cast):
    """The controller believes it active: re-apply what a restart may have lost, report what is missing."""

    topic = "compute"
    order: LaunchOrder


class GetConsoleLog(Call[str]):
    topic = "compute"
    order: LaunchOrder
    max_bytes: int


class GetDiagnostics(Call[Diagnostics]):
    topic = "compute"
    order: LaunchOrder


# --- to the network role ---------------------------------------------------------------------------


class AllocateFixedIp(Call[FixedIp]):
    """Lease an address of the project's network to one NIC; repeating it returns the same lease.

    When it returns, the bridge has its gateway and the DHCP server knows the lease. Raises NoMoreFixedIps.
    """

    topic = "network"
    traced = True
    instance_id: InstanceId
    project_id: str
    mac: MacAddress
    hostname: str

    @property
    def subject(self) -> InstanceId:
        return self.instance_id


class ReleaseFixedIp(Call[None]):
    """Give the instance's addresses back; none is success."""

    topic = "network"
    traced = True
    instance_id: InstanceId

    @property
    def subject(self) -> InstanceId:
        return self.instance_id


class FindLease(Call[FixedIp | None]):
    """Whose address this is."""

    topic = "network"
    address: IPv4Address


class GetDhcpEvidence(Call[DhcpEvidence | None]):
    topic = "network"
    instance_id: InstanceId
