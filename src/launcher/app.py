"""The composition root: every object is built here, once, with plain constructors; nobody else names implementations.

`serve` builds the house from the ground up, opens the door last, and on the way out closes it first.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random, SystemRandom

from launcher.accounts import AdminAccess
from launcher.admin_file import keep_admin
from launcher.amqp import AmqpBus
from launcher.bus import Bus, MemoryBus
from launcher.clock import Clock, SystemClock
from launcher.config import Config, NetworkConfig, RoleName
from launcher.db import schemas
from launcher.db.database import Database
from launcher.drivers.firewall.choice import choose_firewall
from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.firewall.fake import FakeFirewall
from launcher.drivers.images import library
from launcher.drivers.images.config_drive import ConfigDrives
from launcher.drivers.images.fake import FakeImages
from launcher.drivers.images.inject.choice import make_ways
from launcher.drivers.images.local import LocalImages
from launcher.drivers.images.local_vault import LocalVault
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
from launcher.drivers.network.uplinks import Tags, Vxlan
from launcher.drivers.network.vlan import Uplink, VlanNetwork
from launcher.drivers.scheduler.choice import choose_scheduler
from launcher.drivers.virt import embed
from launcher.drivers.virt.driver import VirtDriver
from launcher.drivers.virt.fake import FakeVirt
from launcher.drivers.virt.libvirt import LibvirtVirt
from launcher.drivers.volumes.choice import choose_volumes
from launcher.drivers.volumes.driver import VolumeDriver
from launcher.drivers.volumes.fake import FakeVolumes
from launcher.errors import BadRequest, Conflict
from launcher.explaining import Settings
from launcher.floating import Outward
from launcher.identity import new_span_id
from launcher.image_supply import host_downloads, image_supply, library_path, vault_path
from launcher.networks import NetworkMode, Overlay
from launcher.outside import INNER
from launcher.sandbox import INSIDE
from launcher.services.api.metadata.service import MetadataRules
from launcher.services.api.server import ApiServer
from launcher.services.compute.compute import Compute
from launcher.services.controller.access import AccessRules
from launcher.services.controller.controller import Controller
from launcher.services.controller.reconcile import LaunchRules
from launcher.services.network import NetworkController
from launcher.services.role import Role
from launcher.services.scheduler import Scheduler

SYSTEM_SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
HOST = Path("/run/launcher")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drivers:
    """What touches the host."""

    virt: VirtDriver
    firewall: FirewallDriver
    network: NetworkDriver
    nat: NatDriver
    images: ImageStore
    volumes: VolumeDriver


async def serve(config: Config, *, state: Path, listener: socket.socket, stop: asyncio.Event) -> None:
    """Be a launcher until `stop` is set. `listener` is where the API answers."""
    async with AsyncExitStack() as house:
        house.enter_context(_alone_in(state))
        if RoleName.COMPUTE in config.host.roles and config.virt.driver != "fake":
            house.enter_context(_alone_in(HOST, hint="stop it, or give this one a network of its own: --sandbox"))
        clock, rng = SystemClock(), SystemRandom()
        bus = await house.enter_async_context(_open_bus(config, clock, rng))
        url = "http://{}:{}".format(*listener.getsockname()[:2])
        admin = keep_admin(state, url=url, region=config.host.region, rng=rng)
        for role in await _roles(house, config, state, listener, bus=bus, clock=clock, rng=rng, admin=admin):
            await house.enter_async_context(role.serving())
            log.info("role %s is up on %s", role.topic, role.host)
        _settle_memory()
        log.info("listening on %s", url)
        await stop.wait()
        log.info("stopping; guests %s", "end with the sandbox" if _sandboxed() else "keep running")


async def _roles(
    house: AsyncExitStack,
    config: Config,
    state: Path,
    listener: socket.socket,
    *,
    bus: Bus,
    clock: Clock,
    rng: Random,
    admin: AdminAccess,
) -> Sequence[Role]:
    """The wanted roles in the order of their start: who is needed comes first, the door opens last."""
    host = config.host.name or socket.gethostname()
    wanted, network, drivers = set(config.host.roles), config.network.network(), await make_drivers(config, state)
    house.push_async_callback(drivers.firewall.stop)
    roles: list[Role] = []
    if RoleName.CONTROLLER in wanted:
        db = await house.enter_async_context(Database.open(state / "controller.db", schemas.CONTROLLER))
        roles.append(_controller(config, state, host, bus=bus, clock=clock, rng=rng, db=db, admin=admin))
    if RoleName.SCHEDULER in wanted:
        timeout = config.scheduler.host_timeout_s
        chooser = choose_scheduler(config.scheduler.driver, rng=rng, max_vcpus=config.scheduler.max_vcpus)
        roles.append(Scheduler(host=host, bus=bus, clock=clock, rng=rng, driver=chooser, host_timeout=timeout))
    if RoleName.NETWORK in wanted:
        db = await house.enter_async_context(Database.open(state / "network.db", schemas.NETWORK))
        roles.append(
            NetworkController(
                host=host,
                bus=bus,
                clock=clock,
                rng=rng,
                db=db,
                network=network,
                projects=config.network.projects(),
                driver=drivers.network,
                firewall=drivers.firewall,
                nat=drivers.nat,
                outward=_outward(config),
            )
        )
    if RoleName.COMPUTE in wanted:
        roles.append(_compute(config, state, host, drivers, bus=bus, clock=clock, rng=rng))
    if RoleName.API in wanted:
        roles.append(_api(house, config, state, host, listener, bus=bus, clock=clock, rng=rng))
    return roles


def _compute(
    config: Config, state: Path, host: str, drivers: Drivers, *, bus: Bus, clock: Clock, rng: Random
) -> Compute:
    return Compute(
        host=host,
        bus=bus,
        clock=clock,
        rng=rng,
        availability_zone=config.host.availability_zone,
        heartbeat=config.compute.heartbeat_s,
        virt=drivers.virt,
        firewall=drivers.firewall,
        network=drivers.network,
        images=drivers.images,
        volumes=drivers.volumes,
        settings=firewall_settings(config),
        launcher=keep_identity(state),
    )


def _api(
    house: AsyncExitStack,
    config: Config,
    state: Path,
    host: str,
    listener: socket.socket,
    *,
    bus: Bus,
    clock: Clock,
    rng: Random,
) -> ApiServer:
    metadata = house.enter_context(contextlib.closing(found)) if (found := _metadata_listener(config)) else None
    required = config.metadata.token == "required"  # noqa: S105 - a choice
    return ApiServer(
        host=host,
        bus=bus,
        clock=clock,
        rng=rng,
        listener=listener,
        vault=LocalVault(vault_path(state)),
        metadata_listener=metadata,
        metadata_rules=MetadataRules(token_required=required, tags=config.metadata.tags),
        rooms=Namespaces(state),
        region=config.host.region,
    )


def _controller(
    config: Config, state: Path, host: str, *, bus: Bus, clock: Clock, rng: Random, db: Database, admin: AdminAccess
) -> Controller:
    return Controller(
        host=host,
        bus=bus,
        clock=clock,
        rng=rng,
        db=db,
        quotas=config.quotas,
        flavors={flavor.name: flavor for flavor in config.flavors},
        images=image_supply(config, state, clock=clock, rng=rng),
        admin=admin,
        launches=LaunchRules(
            build_timeout=config.controller.build_timeout_s,
            state_timeouts=config.timeouts.of_states(),
            max_attempts=config.controller.max_attempts,
            restart_missing=config.controller.missing == "restart",
            shutdown_timeout=config.controller.shutdown_timeout_s,
        ),
        tick=config.controller.tick_s,
        sweep_every=config.controller.sweep_s,
        access=AccessRules(
            lockout_failures=config.access.lockout_failures,
            lockout_seconds=config.access.lockout_s,
            token_seconds=config.access.token_s,
        ),
        host_timeout=config.scheduler.host_timeout_s,
    )


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
    images, volumes = library_path(config, state), Path(config.volumes.path or state / "volumes")
    return Drivers(
        virt=LibvirtVirt(
            libvirt_uri(config, state),
            state_dir=state,
            launcher=keep_identity(state),
            virt_type=config.virt.virt_type,
            kernel=library.find_kernel(images),
        ),
        firewall=await choose_firewall(config.firewall.driver, firewall_settings(config), libvirt_uri(config, state)),
        network=_network(config, state),
        nat=NftablesNat(
            note=None if _sandboxed() else state / NOTE, pools=_outward(config).pools, namespaces=Namespaces(state)
        ),
        images=LocalImages(
            state / "instances",
            library=images,
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
            volumes, sources=[images, vault_path(state)], **config.volumes.model_dump(exclude={"path"})
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
            return VlanNetwork(state, uplink=_uplink(settings), apart=apart, lease_seconds=settings.lease_s)


def _uplink(settings: NetworkConfig) -> Uplink | None:
    match settings.overlay:
        case Overlay.VLAN:
            return Tags(settings.interface)
        case Overlay.VXLAN:
            return Vxlan(settings.interface, group=settings.vxlan_group, peers=settings.vxlan_peers)
        case Overlay.NONE:
            return None


def keep_identity(state: Path) -> str:
    """What tells this launcher from others; it stays with the state directory, even when the database is lost."""
    path = state / "launcher-id"
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.write_text(new_span_id(SystemRandom()))
        draft.replace(path)
    return path.read_text()


def _outward(config: Config) -> Outward:
    """In the sandbox floating IPs are on the link to its outside, or only its own."""
    pools = config.network.pools
    if _sandboxed():
        inner = INNER if Path("/sys/class/net", INNER).exists() else "lo"
        pools = tuple(pool.model_copy(update={"interface": inner}) for pool in pools)
    return Outward(masquerade=config.network.nat, pools=pools)


def libvirt_uri(config: Config, state: Path) -> str:
    """The system's daemon if it answers; in the sandbox and without one, the driver embedded in this process."""
    if config.virt.uri != "auto":
        return config.virt.uri
    if not _sandboxed() and any(_answers(path) for path in SYSTEM_SOCKETS):
        return "qemu:///system"
    return f"qemu:///embed?root={embed.reachable(state / 'libvirt')}"


@contextlib.asynccontextmanager
async def _open_bus(config: Config, clock: Clock, rng: Random) -> AsyncIterator[Bus]:
    if config.bus.url == "memory:":
        if len(set(config.host.roles)) < len(RoleName):
            raise BadRequest("[host] roles is a subset, but [bus] url is memory:", hint="give an amqp:// url")
        yield MemoryBus(clock=clock, rng=rng)
        return
    async with AmqpBus(config.bus.url, clock=clock, rng=rng) as bus:
        yield bus


def _metadata_listener(config: Config) -> socket.socket | None:
    """For every gateway, also of networks that are made later; who comes by no bridge is not let in (`door.py`).

    None where no guest could come.
    """
    if config.virt.driver == "fake" or not config.metadata.port:
        return None
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", config.metadata.port))  # noqa: S104
    return listener


@contextlib.contextmanager
def _alone_in(state: Path, *, hint: str = "stop it, or give --state DIR") -> Iterator[None]:
    """One launcher per directory: the state's, and the host's, whose taps and chains bear no launcher's name."""
    state.mkdir(parents=True, exist_ok=True, mode=0o711)
    with (state / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another launcher uses {state}", hint=hint) from None
        yield


def _settle_memory() -> None:
    """What was built until now stays for good: keep it out of every garbage collection (a list of 1,000: −25 %)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _sandboxed() -> bool:
    return os.environ.get(INSIDE) == "1"
