"""The nouns, frozen. They cross the bus as JSON; fields nobody declared are refused. Units: `_mb`, `_gb` are 2^20 and
2^30 bytes, `_ms` milliseconds since the epoch (UTC).
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StringConstraints

from launcher.states import POWERED_OFF, PowerState, ShutdownBehaviour, TaskState, VmState

__all__ = ["POWERED_OFF", "PowerState", "ShutdownBehaviour", "TaskState", "VmState"]  # nouns, too

LARGEST = 2**63 - 1
"""Of the whole numbers that a column of SQLite holds."""
InstanceId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
MacAddress = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._:@-]{0,254}$")]
"""What a user may call a thing; no control characters, commas or leading dashes, so it is safe in a file."""
Hostname = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$")]
GuestPath = Annotated[
    str,
    StringConstraints(pattern=r"^(/\.{0,2}[A-Za-z0-9_@+-][A-Za-z0-9._@+-]{0,99}){1,16}$", max_length=255),
]
"""Where a file goes in a guest: absolute, of plain characters, and it never leads up."""
PasswordHash = Annotated[str, StringConstraints(pattern=r"^\$[A-Za-z0-9./$=,_-]{8,250}$")]
"""As crypt(5) writes it: a `$`, the method, salt and hash."""
Generation = Annotated[int, Field(ge=1, le=LARGEST, description="bumped when the instance moves on; older is dropped")]


class Model(BaseModel):
    """What every noun is: frozen and strict about its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Flavor(Model):
    """A size. `root_gb` 0 keeps the image's own size (as Nova's m1.tiny did); ephemeral and swap are empty disks."""

    name: Name
    vcpus: int = Field(ge=1, le=64)
    memory_mb: int = Field(ge=64, le=2**31)
    root_gb: int = Field(ge=0, le=2**31)
    ephemeral_gb: int = Field(default=0, ge=0, le=2**31)
    swap_mb: int = Field(default=0, ge=0, le=2**22)

    @property
    def devices(self) -> dict[str, str]:
        """What the guest finds its own disks under, by EC2's names for them; the root is `vda`."""
        own = [name for name, size in (("ephemeral0", self.ephemeral_gb), ("swap", self.swap_mb)) if size]
        return dict(zip(own, ("vdb", "vdc"), strict=False))


class ImageKind(StrEnum):
    MACHINE = "machine"
    KERNEL = "kernel"
    RAMDISK = "ramdisk"


class ImageFormat(StrEnum):
    RAW = "raw"
    QCOW2 = "qcow2"


class Firmware(StrEnum):
    """What starts a disk that brings its own boot loader."""

    BIOS = "bios"
    UEFI = "uefi"


class Machine(StrEnum):
    """QEMU's machines: the old chipset, which starts sooner, and the one with PCI Express."""

    PC = "pc"
    Q35 = "q35"


class Image(Model):
    """One file of the catalogue. The content is named by its checksum and never changes."""

    id: str
    name: Name
    kind: ImageKind
    format: ImageFormat
    size: int = Field(ge=0, le=LARGEST, description="bytes of the file")
    virtual_size: int = Field(ge=0, le=LARGEST, description="bytes the guest sees")
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    path: Path = Field(description="the file on the compute host, inside the image library")
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    min_memory_mb: int = Field(default=0, ge=0, le=LARGEST)
    kernel_args: str = ""
    firmware: Firmware = Firmware.BIOS
    machine: Machine = Machine.PC


class Quotas(Model):
    """How much one project may hold. Instances in error count until they are deleted."""

    instances: int = Field(default=10, ge=0)
    cores: int = Field(default=20, ge=0)
    memory_mb: int = Field(default=51200, ge=0)
    key_pairs: int = Field(default=100, ge=0)
    security_groups: int = Field(default=50, ge=1)
    security_group_rules: int = Field(default=100, ge=1, description="of one group")
    groups_per_instance: int = Field(default=10, ge=1)
    metadata_items: int = Field(default=128, ge=0)
    floating_ips: int = Field(default=10, ge=0)
    volumes: int = Field(default=10, ge=0)
    snapshots: int = Field(default=10, ge=0, description="of volumes")
    gigabytes: int = Field(default=1000, ge=0, description="of all volumes and snapshots")
    images: int = Field(default=50, ge=0)


class KeyPair(Model):
    """A public key. The private half is returned once by its creation and kept nowhere.
    `ec2_fingerprint` is EC2's: of a created RSA key the SHA-1 of the private one, of an imported one the MD5.
    """

    name: Name
    type: str
    public_key: str
    fingerprint: str = Field(description="SHA256, as ssh-keygen shows it")
    ec2_fingerprint: str = ""
    created_ms: int = 0


class InstanceRef(Model):
    """What every artefact on a host is named from; enough to remove them, so "ensure it is gone" needs no table."""

    instance_id: InstanceId
    number: int = Field(ge=1, le=0xFFFFFFFF, description="never used twice; the source of every name on the host")

    @property
    def name(self) -> str:
        """The domain's and the directory's name, `instance-%08x`."""
        return f"instance-{self.number:08x}"

    @property
    def tap(self) -> str:
        """The first NIC's device on the host."""
        return self.tap_of(0)

    def tap_of(self, nic: int) -> str:
        """A NIC's device on the host; at most 15 characters."""
        return f"tap{self.number:08x}" + (f"-{nic}" if nic else "")

    @property
    def chain(self) -> str:
        """The packet filters' chain of its own."""
        return f"nova-inst-{self.number}"


class Nic(Model):
    """A network interface. In an order: what is asked for, None being left to the network role. Later: what it has."""

    mac: MacAddress
    network: str | None = Field(default=None, description="a name or an id; asked for, None is the project's usual one")
    address: IPv4Address | None = None
    address6: IPv6Address | None = None


class Boot(Model):
    """What a machine boots from."""

    image: Image
    kernel: Image | None = None
    ramdisk: Image | None = None


class LaunchOrder(InstanceRef):
    """All that the roles below the controller know of an instance; enough to launch it and to undo it."""

    generation: Generation
    project_id: str
    hostname: Hostname
    nics: tuple[Nic, ...] = Field(min_length=1)
    flavor: Flavor
    image: Image
    kernel: Image | None = None
    ramdisk: Image | None = None
    public_key: str | None = None
    personal: bool = Field(default=False, description="there is a personality to ask the controller for")
    config_drive: bool = Field(default=False, description="its owner wants one, whatever else the host does")
    availability_zone: str | None = None
    volumes: bool = Field(default=False, description="it may have some: the controller is asked when it starts")
    rescue: bool = Field(default=False, description="the images are another root's, which boots beside its own")
    tried_hosts: tuple[str, ...] = Field(default=(), description="where a step failed that may succeed elsewhere")


class Fault(Model):
    """Why an instance is in error, for its owner."""

    code: str
    step: str
    message: str
    hint: str = ""
    request_id: str
    at_ms: int


class Instance(Model):
    """An instance as its owner sees it."""

    id: InstanceId
    number: int
    generation: int
    project_id: str
    user_id: str
    name: str
    hostname: str
    status: str = Field(description="one word for lists: BUILD, DELETING, or its state")
    vm_state: VmState
    task_state: TaskState | None
    state_since_ms: int
    host: str | None
    nics: tuple[Nic, ...]
    addresses: tuple[IPv4Address | IPv6Address, ...] = Field(default=(), description="of all NICs, IPv4 first")
    flavor: Flavor
    image_id: str
    image_name: str
    key_name: str | None
    security_groups: tuple[str, ...]
    availability_zone: str | None
    metadata: dict[str, str]
    shutdown_behaviour: ShutdownBehaviour = ShutdownBehaviour.STOP
    protected: bool = Field(default=False, description="from being deleted")
    locked: bool = Field(default=False, description="only administrators may do anything to it")
    lock_reason: str | None = None
    description: str | None = None
    labels: tuple[str, ...] = Field(default=(), description="OpenStack's tags; EC2's are the metadata")
    reservation_id: str
    launch_index: int
    created_ms: int
    launched_ms: int | None
    deleted_ms: int | None = None
    fault: Fault | None
    trace_id: str


class HostState(Model):
    """What a compute host says of itself in every heartbeat."""

    name: str
    availability_zone: str
    boot_id: str
    vcpus: int
    memory_mb: int
    disk_free_mb: int
    volumes_free_mb: int = 0
    vcpus_used: int
    memory_used_mb: int
    instances: int = Field(description="that count against it, whether their machines run or not")
    running: int = Field(default=0, description="machines among them, paused ones included")
    highest_number: int = Field(default=0, ge=0, le=0x7FFFFFFF, description="that was seen there; all to it are used")
    highest_volume: int = Field(default=0, ge=0, le=0x7FFFFFFF, description="the same of volumes and snapshots")
    virt_type: str
    virt_reason: str
    policy_version: int = Field(default=0, description="up to which it knows what its packet filters are to be")
    seen_ms: int


class Diagnostics(Model):
    """The host's evidence for "why is it late": is the vCPU moving?"""

    power: PowerState
    cpu_time_ms: int
    memory_mb: int


class DhcpEvidence(Model):
    """What the DHCP server saw of one NIC; None is never. Milliseconds since the epoch."""

    instance_id: InstanceId
    requested_ms: int | None = None
    answered_ms: int | None = None
    last_words: str = ""


class Span(Model):
    """One piece of work in a trace. `queued_ms` is when it was sent, `start_ms` when work began."""

    trace_id: str
    span_id: str
    parent_id: str | None
    role: str
    host: str
    name: str
    kind: str = Field(description="http, hop or step")
    queued_ms: FiniteFloat | None
    start_ms: FiniteFloat
    end_ms: FiniteFloat
    instance_id: InstanceId | None = None
    error: str | None = None


class Event(Model):
    """A line of the event log, as /events and the command line show it."""

    seq: int
    at_ms: int
    project_id: str
    instance_id: InstanceId
    name: str
    vm_state: VmState
    task_state: TaskState | None
    host: str | None
    request_id: str
    trace_id: str = ""
    message: str = ""


class Readiness(Model):
    """Evidence for "which step is late": what the controller, the network and the host know of one instance."""

    instance: Instance
    dhcp: DhcpEvidence | None = None
    domain: Diagnostics | None = None
    console_tail: tuple[str, ...] = ()
    injection: str | None = None
    verdict: str


class CreatedKeyPair(Model):
    """A key pair at the moment of its creation, the only one at which its private half exists here."""

    key_pair: KeyPair
    private_key: str | None


class GuestFile(Model):
    """A file that a guest is to find, root's own and with the mode 0600."""

    path: GuestPath
    content: str = Field(max_length=14_000, description="base64 of at most 10 KiB", repr=False)


class Personality(Model):
    """What a guest is to find in its disk beside its key."""

    files: tuple[GuestFile, ...] = Field(default=(), max_length=5)
    password_hash: PasswordHash | None = Field(default=None, description="root's, as crypt(5) writes it", repr=False)


class GuestMetadata(Model):
    """What only the guest reads, beside its instance; the metadata service tells it."""

    instance: Instance
    region: str = Field(description="[host] region")
    availability_zone: str = Field(description="its host's, or the one asked for while it has none")
    public_key: str | None
    kernel_id: str | None
    ramdisk_id: str | None
    user_data: str | None = Field(description="base64")
    personality: Personality = Personality()
