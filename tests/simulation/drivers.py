"""The drivers of the simulation: the product's contracts, done to a `Host` of the world through the ports of a life."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from launcher.drivers.images.fake import FAKE_IMAGES
from launcher.drivers.images.store import Copy, Injected, Injection, Tell
from launcher.drivers.network.driver import Tap
from launcher.drivers.virt.driver import Disks, Domain, HostResources, Plugged, PowerWatcher
from launcher.errors import NetworkFailed, NotFound
from launcher.floating import Translation
from launcher.images import Received, Ticket
from launcher.models import (
    POWERED_OFF,
    DhcpEvidence,
    Diagnostics,
    Image,
    ImageFormat,
    InstanceId,
    InstanceRef,
    LaunchOrder,
    MacAddress,
    PowerState,
)
from launcher.networks import FixedIp, Network
from launcher.policy import Policy
from tests.simulation.life import FIRST, Life
from tests.simulation.world import Host

RESOURCES = HostResources(vcpus=64, memory_mb=65536, virt_type="simulated", virt_reason="a simulation")


class NoVolumes:
    """Nobody has any in a simulation."""

    async def plug_disk(self, order: InstanceRef, disk: Plugged) -> None:
        raise NotFound("nobody plugs in a simulation")

    async def unplug_disk(self, order: InstanceRef, name: str) -> None:
        raise NotFound("nobody unplugs in a simulation")

    async def resize_disk(self, order: InstanceRef, name: str, size: int) -> None:
        raise NotFound("nothing grows in a simulation")

    @contextlib.asynccontextmanager
    async def still(self, order: InstanceRef) -> AsyncIterator[None]:
        yield

    async def copy_root(self, order: LaunchOrder, target: Path) -> None:
        raise NotFound("nobody makes images in a simulation")

    async def list_plugged(self) -> Mapping[InstanceId, tuple[str, ...]]:
        return {}


class SimVirt(NoVolumes):
    """The contract is `VirtDriver`'s."""

    def __init__(self, life: Life, host: Host) -> None:
        self.life, self.host = life, host

    async def start(self, watcher: PowerWatcher) -> None:
        self.host.watcher = watcher

    async def stop(self) -> None:
        self.host.watcher = None

    async def host_resources(self) -> HostResources:
        return RESOURCES

    async def spawn(self, order: LaunchOrder, disks: Disks) -> None:
        await self.life.look()  # a dead launcher starts nothing
        self.host.check_start(order)
        await self.life.touch(self.host, "virt.spawn", lambda: self._spawn(order), order=order, makes="domain")

    def _spawn(self, order: LaunchOrder) -> None:
        world, fault = self.life.world, "virt.spawn:ends"
        self.host.spawn(order)
        if fault in world.schedule.faults and order.number == FIRST and not world.strikes[fault]:
            world.strikes[fault] += 1
            world.later(lambda: self.host.end(order), after=world.rng.uniform(0.0, 3.0))

    async def destroy(self, order: InstanceRef) -> None:
        await self.life.touch(self.host, "virt.destroy", lambda: self.host.destroy(order), order=order)

    async def shut_down(self, order: InstanceRef) -> None:
        await self.life.touch(self.host, "virt.shut_down", lambda: self.host.shut_down(order), order=order)

    async def pause(self, order: LaunchOrder) -> None:
        await self.life.touch(self.host, "virt.pause", lambda: self.host.pause(order), order=order)

    async def unpause(self, order: LaunchOrder) -> None:
        await self.life.touch(self.host, "virt.unpause", lambda: self.host.unpause(order), order=order)

    async def suspend(self, order: LaunchOrder, memory: Path) -> None:
        await self.life.touch(self.host, "virt.suspend", lambda: self.host.suspend(order), order=order)

    async def resume(self, order: LaunchOrder, memory: Path) -> None:
        await self.life.look()  # a dead launcher starts nothing
        self.host.check_start(order)
        await self.life.touch(self.host, "virt.resume", lambda: self.host.resume(order), order=order)

    async def forget(self, order: InstanceRef, memory: Path) -> None:
        await self.life.touch(self.host, "virt.forget", lambda: self.host.forget(order), order=order)

    async def list_domains(self) -> list[Domain]:
        await self.life.look()
        return [self._seen(order) for order in self.host.listed()]

    async def find_domain(self, instance_id: InstanceId) -> Domain | None:
        await self.life.look()
        return next((self._seen(order) for order in self.host.listed() if order.instance_id == instance_id), None)

    async def find_end(self, order: InstanceRef) -> str | None:
        await self.life.look()
        return POWERED_OFF if order.instance_id in self.host.powered_off else None

    def _seen(self, order: LaunchOrder) -> Domain:
        return Domain(
            instance_id=order.instance_id,
            number=order.number,
            generation=order.generation,
            name=order.name,
            power=PowerState.PAUSED if order.instance_id in self.host.paused else PowerState.RUNNING,
        )

    async def get_diagnostics(self, order: LaunchOrder) -> Diagnostics:
        raise NotFound("nobody asks in a simulation")


class SimFirewall:
    """The contract is `FirewallDriver`'s."""

    def __init__(self, life: Life, host: Host) -> None:
        self.life, self.host = life, host

    async def start(self) -> None:
        await self.life.look()

    async def stop(self) -> None:
        pass

    async def ensure_base(self, network: Network) -> None:
        await self.life.look()

    async def apply(self, order: LaunchOrder, nics: Sequence[FixedIp], policy: Policy) -> None:
        await self.life.touch(
            self.host, "firewall.apply", lambda: self.host.apply(order, nics, policy), order=order, makes="chains"
        )

    async def update(self, policy: Policy) -> None:
        await self.life.touch(self.host, "firewall.update", lambda: self.host.update(policy))

    async def remove(self, order: InstanceRef) -> None:
        await self.life.touch(self.host, "firewall.remove", lambda: self.host.remove(order), order=order)

    async def list_instances(self) -> Mapping[int, bool]:
        await self.life.look()
        return dict.fromkeys(self.host.chains, True)


class SimNetwork:
    """The contract is `NetworkDriver`'s."""

    def __init__(self, life: Life, host: Host) -> None:
        self.life, self.host = life, host

    async def start(self) -> None:
        await self.life.look()

    async def ensure_network(self, network: Network) -> None:
        await self.life.look()
        self.host.bridges.add(network.bridge)

    async def remove_network(self, network: Network) -> None:
        await self.life.look()
        self.host.bridges.discard(network.bridge)

    async def revive(self, network: Network) -> None:
        await self.life.look()

    async def set_leases(self, network: Network, leases: Sequence[FixedIp]) -> None:
        def write() -> None:
            self.life.world.dhcp = tuple(leases)

        await self.life.touch(self.host, "network.set_leases", write)

    async def list_leases(self, network: Network) -> Sequence[MacAddress]:
        await self.life.look()
        return [lease.mac for lease in self.life.world.dhcp]

    async def get_evidence(self, lease: FixedIp) -> DhcpEvidence:
        return DhcpEvidence(instance_id=lease.instance_id)

    async def ensure_bridge(self, network: Network) -> None:
        await self.life.touch(self.host, "network.ensure_bridge", lambda: self.host.bridges.add(network.bridge))

    async def plug(self, order: InstanceRef, network: Network, nic: int = 0) -> None:
        await self.life.touch(
            self.host,
            "network.plug",
            lambda: self.host.plug(order, network, nic),
            order=order,
            makes="tap",
            partly=lambda: self.host.plug_partly(order, network, nic),
        )

    async def unplug(self, order: InstanceRef) -> None:
        await self.life.touch(self.host, "network.unplug", lambda: self.host.unplug(order), order=order)

    async def list_taps(self) -> Sequence[Tap]:
        await self.life.look()
        return sorted(self.host.taps)

    async def stop(self) -> None:
        await self.life.look()


class SimNat:
    """The contract is `NatDriver`'s, for floating IPs; the host has nothing else to translate."""

    def __init__(self, life: Life, host: Host) -> None:
        self.life, self.host = life, host
        self.wanted = Translation()

    async def apply(self, wanted: Translation) -> Mapping[IPv4Address, NetworkFailed]:
        self.wanted = wanted
        if dict(wanted.floating) != self.host.led:
            await self.life.touch(self.host, "nat.apply", self._lead)
        return {}

    def _lead(self) -> None:
        self.host.led = dict(self.wanted.floating)

    async def check(self) -> None:
        await self.apply(self.wanted)

    async def look(self) -> Mapping[IPv4Address, bool]:
        return dict.fromkeys(self.host.led, True)

    async def stop(self) -> None:
        pass


class SimImages:
    """The contract is `ImageStore`'s."""

    def __init__(self, life: Life, host: Host) -> None:
        self.life, self.host = life, host

    async def start(self) -> None:
        await self.life.look()

    async def stop(self) -> None:
        await self.life.look()

    async def create_disks(self, order: LaunchOrder) -> Disks:
        await self.life.touch(
            self.host,
            "images.create",
            lambda: self.host.create_disks(order),
            order=order,
            makes="directory",
            partly=lambda: self.host.create_partly(order),
        )
        home = Path("/simulated") / order.name
        return Disks(root=home / "disk", root_format=ImageFormat.QCOW2, console_log=home / "console.log")

    async def inject(self, order: LaunchOrder, nics: Sequence[FixedIp], tell: Tell) -> Injected:
        done = Injected((Injection.METADATA,))
        return await self.life.touch(self.host, "images.inject", lambda: done, order=order)

    async def has_disks(self, order: InstanceRef) -> bool:
        await self.life.look()
        return order.instance_id in self.host.directories

    def memory_file(self, order: InstanceRef) -> Path:
        return Path("/simulated") / order.name / "memory"

    async def settle(self, order: LaunchOrder) -> None:
        """Whatever is made here is settled."""

    async def renew(self, order: LaunchOrder) -> None:
        raise NotFound("nobody rebuilds in a simulation")

    async def end_rescue(self, order: InstanceRef) -> None:
        """There is none."""

    async def save_image(self, order: LaunchOrder, ticket: Ticket, copy: Copy | None) -> Received:
        raise NotFound("nobody makes images in a simulation")

    async def delete_disks(self, order: InstanceRef) -> None:
        await self.life.touch(self.host, "images.delete", lambda: self.host.delete_disks(order), order=order)

    async def read_console(self, order: LaunchOrder, max_bytes: int) -> bytes:
        return b""

    async def list_instances(self) -> Sequence[InstanceRef]:
        await self.life.look()
        return [InstanceRef(instance_id=each, number=number) for each, number in self.host.directories.items()]

    async def list_bases(self) -> Sequence[str]:
        return [image.sha256 for image in FAKE_IMAGES]

    async def list_missing(self, order: LaunchOrder) -> Sequence[Image]:
        return []

    async def fetch(self, order: LaunchOrder, image: Image, ticket: Ticket) -> None: ...

    async def prune_bases(self) -> int:
        return 0

    async def list_exports(self) -> Sequence[str]:
        return []

    async def remove_exports(self) -> None:
        await self.life.look()

    async def free_mb(self) -> int:
        return 100_000
