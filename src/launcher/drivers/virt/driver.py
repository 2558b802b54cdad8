"""The contract of the hypervisors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from pydantic import Field

from launcher.models import Diagnostics, ImageFormat, InstanceId, InstanceRef, LaunchOrder, Model, PowerState


class Plugged(Model):
    """A volume as a disk of a machine: `name` is the volume's own, `serial` what the guest can know it by."""

    name: str
    serial: str
    device: str
    path: Path
    format: ImageFormat
    block: bool = False


class Disks(Model):
    """The files a domain starts from, as the image store made them; ephemeral and swap have the root's format."""

    root: Path
    root_format: ImageFormat
    kernel: Path | None = None
    ramdisk: Path | None = None
    console_log: Path
    volumes: tuple[Plugged, ...] = ()
    config_drive: Path | None = None
    ephemeral: Path | None = None
    swap: Path | None = None
    rescued: Path | None = Field(default=None, description="the instance's own root, while another boots")
    rescued_format: ImageFormat = ImageFormat.QCOW2
    firmware_state: Path | None = Field(default=None, description="of an instance that UEFI starts; made by `spawn`")


class Domain(Model):
    """A domain that a `launcher` made, recognised by the metadata that `spawn` put into it."""

    instance_id: InstanceId
    number: int
    generation: int
    name: str
    power: PowerState
    launcher: str = ""


class HostResources(Model):
    """What the machine has. `virt_reason` says why `virt_type` (kvm or qemu) was chosen."""

    vcpus: int
    memory_mb: int
    virt_type: str
    virt_reason: str


PowerWatcher = Callable[[InstanceId, PowerState, str], None]
"""Called on the event loop with the instance, its new state and the hypervisor's word for the cause.

The word for an end that the guest asked for is `POWERED_OFF`.
"""


class VirtDriver(Protocol):
    """Runs domains. Called by the compute role only, one call at a time per instance.

    `spawn` of a domain that runs already with the same generation and `destroy` of an absent one are
    success. Every method may raise HypervisorUnavailable; then the outcome is unknown and the caller looks.
    """

    async def start(self, watcher: PowerWatcher) -> None:
        """Connect, choose the virtualization type, warm what the first launch would wait for."""

    async def stop(self) -> None:
        """Disconnect. Guests keep running."""

    async def host_resources(self) -> HostResources: ...

    async def spawn(self, order: LaunchOrder, disks: Disks) -> None:
        """Create and start the domain; return when it runs. The taps of its NICs exist and are plugged.

        Raises SpawnFailed with the hypervisor's words, InvalidDomainConfig, DomainConflict.
        """

    async def destroy(self, order: InstanceRef) -> None:
        """Return when the domain is gone; never touches a domain that is not ours."""

    async def shut_down(self, order: InstanceRef) -> None:
        """Press the power button; the guest may take its time, or not hear it. Success when there is no domain."""

    async def pause(self, order: LaunchOrder) -> None:
        """Stop its processors; success when they stand. Raises NotFound when there is no domain of this generation."""

    async def unpause(self, order: LaunchOrder) -> None:
        """Let them run again; success when they do. Raises NotFound as `pause` does."""

    async def suspend(self, order: LaunchOrder, memory: Path) -> None:
        """Write its memory to the file and end the domain; success when that is done.

        Raises NotFound when there is neither the domain nor the file, and when it cannot be written DriverError; then
        the domain runs on.
        """

    async def resume(self, order: LaunchOrder, memory: Path) -> None:
        """Go on from the file, which is used up; success when a domain of this generation runs. Raises SpawnFailed."""

    async def forget(self, order: InstanceRef, memory: Path) -> None:
        """Remove the file, if there is one."""

    async def list_domains(self) -> list[Domain]:
        """Those that a launcher made, running or not; domains of others are not looked at."""

    async def find_domain(self, instance_id: InstanceId) -> Domain | None: ...

    async def find_end(self, order: InstanceRef) -> str | None:
        """Of a machine that is not there any more: the hypervisor's word for the cause, if it left one."""

    async def get_diagnostics(self, order: LaunchOrder) -> Diagnostics:
        """Raises NotFound when there is no such domain."""

    async def plug_disk(self, order: InstanceRef, disk: Plugged) -> None:
        """Give a running domain a volume; one that it has already is success.

        Raises NotFound when it does not run, DomainConflict when the device is taken.
        """

    async def unplug_disk(self, order: InstanceRef, name: str) -> None:
        """Return when the guest has let go of the volume, or there is nothing to let go of. Raises DiskHeld."""

    async def resize_disk(self, order: InstanceRef, name: str, size: int) -> None:
        """Let a running domain see at least so many bytes. Raises NotFound when it has no such volume."""

    def still(self, order: InstanceRef) -> AbstractAsyncContextManager[None]:
        """Inside the block the domain, if it runs, is paused, and all that it wrote is in its disks' files."""

    async def copy_root(self, order: LaunchOrder, target: Path) -> None:
        """Write what the root disk holds at one moment into a qcow2 file that stands on nothing; the guest runs on.

        What is there under this name is replaced. Raises NotFound when no domain of this generation runs,
        InsufficientSpace.
        """

    async def list_plugged(self) -> Mapping[InstanceId, tuple[str, ...]]:
        """The names of the volumes that our domains have."""
