"""Which implementation each kind of driver has here, by the settings and by what this machine can do."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

from launcher.clock import SystemClock
from launcher.config import Config
from launcher.drivers.firewall.choice import choose_firewall
from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.firewall.fake import FakeFirewall
from launcher.drivers.images import library
from launcher.drivers.images.config_drive import ConfigDrives
from launcher.drivers.images.fake import FakeImages
from launcher.drivers.images.inject.choice import make_ways
from launcher.drivers.images.local import LocalImages
from launcher.drivers.images.store import ImageStore, Injection
from launcher.drivers.nat.driver import NatDriver
from launcher.drivers.nat.fake import FakeNat
from launcher.drivers.nat.nftables import NOTE, NftablesNat
from launcher.drivers.network.apart import Apart
from launcher.drivers.network.driver import NetworkDriver
from launcher.drivers.network.fake import FakeNetwork
from launcher.drivers.network.flat import FlatNetwork
from launcher.drivers.network.flat_dhcp import FlatDhcpNetwork
from launcher.drivers.network.namespaces import Namespaces
from launcher.drivers.network.uplinks import choose_uplink
from launcher.drivers.network.vlan import VlanNetwork
from launcher.drivers.virt import embed
from launcher.drivers.virt.driver import VirtDriver
from launcher.drivers.virt.fake import FakeVirt
from launcher.drivers.virt.libvirt import LibvirtVirt
from launcher.drivers.volumes.choice import choose_volumes
from launcher.drivers.volumes.driver import VolumeDriver
from launcher.drivers.volumes.fake import FakeVolumes
from launcher.explaining import Settings
from launcher.floating import Outward
from launcher.image_supply import host_downloads, library_path, vault_path
from launcher.networks import NetworkMode
from launcher.outside import INNER
from launcher.sandbox import INSIDE
from launcher.state_directory import keep_identity

SYSTEM_SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")


@dataclass(frozen=True)
class Drivers:
    """What touches the host."""

    virt: VirtDriver
    firewall: FirewallDriver
    network: NetworkDriver
    nat: NatDriver
    images: ImageStore
    volumes: VolumeDriver


async def make_drivers(config: Config, state: Path) -> Drivers:
    """`[virt] driver = "fake"` makes every driver a fake."""
    if config.virt.driver == "fake":
        delay = config.fake.step_delay_s
        return Drivers(
            virt=FakeVirt(vcpus=config.fake.vcpus, memory_mb=config.fake.memory_mb, delay=delay),
            firewall=FakeFirewall(delay=delay),
            network=FakeNetwork(delay=delay),
            nat=FakeNat(),
            images=FakeImages(delay=delay),
            volumes=FakeVolumes(delay=delay),
        )
    return Drivers(
        virt=LibvirtVirt(
            libvirt_uri(config, state),
            state_dir=state,
            launcher=keep_identity(state),
            virt_type=config.virt.virt_type,
            kernel=library.find_kernel(library_path(config, state)),
        ),
        firewall=await choose_firewall(config.firewall.driver, firewall_settings(config), libvirt_uri(config, state)),
        network=_network(config, state),
        nat=NftablesNat(
            note=None if sandboxed() else state / NOTE, pools=outward(config).pools, namespaces=Namespaces(state)
        ),
        images=LocalImages(
            state / "instances",
            library=library_path(config, state),
            vault=vault_path(state),
            ways=make_ways(_ways(config), state=state, partition=config.images.inject_partition),
            disk_format=config.images.disk_format,
            config_drives=ConfigDrives(
                config.images.config_drive, config.images.config_drive_format, rng=SystemRandom()
            ),
            cache_limit=config.images.cache_gb * 2**30,
            downloads=host_downloads(clock=SystemClock(), rng=SystemRandom()),
        ),
        volumes=choose_volumes(
            Path(config.volumes.path or state / "volumes"),
            sources=[library_path(config, state), vault_path(state)],
            **config.volumes.model_dump(exclude={"path"}),
        ),
    )


def _ways(config: Config) -> Sequence[Injection]:
    """Nobody asks a metadata service that is off."""
    return [way for way in config.images.inject if way is not Injection.METADATA or config.metadata.port] or [
        Injection.CONFIG_DRIVE
    ]


def firewall_settings(config: Config) -> Settings:
    return Settings(
        allow_host_traffic=config.firewall.allow_host_traffic,
        allow_project_net_traffic=config.firewall.allow_project_net_traffic,
        metadata_port=config.metadata.port or None,
    )


def _network(config: Config, state: Path) -> NetworkDriver:
    settings, apart = config.network, Apart(Namespaces(state), metadata_port=config.metadata.port or None)
    match settings.mode:
        case NetworkMode.FLAT:
            return FlatNetwork(apart=apart)
        case NetworkMode.FLAT_DHCP:
            return FlatDhcpNetwork(state, apart=apart, lease_seconds=settings.lease_s)
        case NetworkMode.VLAN:
            group, peers = settings.vxlan_group, settings.vxlan_peers
            uplink = choose_uplink(settings.overlay, settings.interface, group=group, peers=peers)
            return VlanNetwork(state, uplink=uplink, apart=apart, lease_seconds=settings.lease_s)


def outward(config: Config) -> Outward:
    """In the sandbox floating IPs are on the link to its outside, or only its own."""
    pools = config.network.pools
    if sandboxed():
        inner = INNER if Path("/sys/class/net", INNER).exists() else "lo"
        pools = tuple(pool.model_copy(update={"interface": inner}) for pool in pools)
    return Outward(masquerade=config.network.nat, pools=pools)


def libvirt_uri(config: Config, state: Path) -> str:
    """The system's daemon if it answers; in the sandbox and without one, the driver embedded in this process."""
    if config.virt.uri != "auto":
        return config.virt.uri
    if not sandboxed() and any(_answers(path) for path in SYSTEM_SOCKETS):
        return "qemu:///system"
    return f"qemu:///embed?root={embed.reachable(state / 'libvirt')}"


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def sandboxed() -> bool:
    return os.environ.get(INSIDE) == "1"
