"""The contract of the hypervisors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pydantic import Field

from launcher.models import Diagnostics, ImageFormat, InstanceId, InstanceRef, LaunchOrder, Model, PowerState


class Disks(Model):
    """The files a domain starts from, as the image store made them; ephemeral and swap have the root's format."""

    root: Path
    root_format: ImageFormat
    kernel: Path | None = None
    ramdisk: Path | None = None
    console_log: Path
    config_drive: Path | None = None
    ephemeral: Path | None = None
    swap: Path | None = None
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

    async def get_diagnostics(self, order: LaunchOrder) -> Diagnostics:
        """Raises NotFound when there is no such domain."""
