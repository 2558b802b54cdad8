"""The composition root: every object is built here, once, with plain constructors; nobody else names implementations.

`serve` builds the house from the ground up, opens the door last, and on the way out closes it first.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random, SystemRandom

from launcher.accounts import AdminAccess
from launcher.admin_file import keep_admin
from launcher.bus import Bus, MemoryBus
from launcher.clock import Clock, SystemClock
from launcher.config import Config, RoleName
from launcher.db import schemas
from launcher.db.database import Database
from launcher.drivers.images.local_vault import LocalVault
from launcher.drivers.network.namespaces import Namespaces
from launcher.drivers.scheduler.choice import choose_scheduler
from launcher.equipment import Drivers, firewall_settings, make_drivers, outward, sandboxed
from launcher.errors import BadRequest
from launcher.image_supply import image_supply, vault_path
from launcher.services.api.door import DoorRules, tls_context
from launcher.services.api.metadata.service import MetadataRules
from launcher.services.api.server import ApiServer
from launcher.services.compute.compute import Compute
from launcher.services.controller.access import AccessRules
from launcher.services.controller.controller import Controller
from launcher.services.controller.reconcile import LaunchRules
from launcher.services.network import NetworkController
from launcher.services.role import Role
from launcher.services.scheduler import Scheduler
from launcher.state_directory import alone_in, keep_identity

HOST = Path("/run/launcher")

log = logging.getLogger(__name__)


async def serve(config: Config, *, state: Path, listener: socket.socket, stop: asyncio.Event) -> None:
    """Be a launcher until `stop` is set. `listener` is where the API answers."""
    async with AsyncExitStack() as house:
        house.enter_context(alone_in(state))
        if RoleName.COMPUTE in config.host.roles and config.virt.driver != "fake":
            house.enter_context(alone_in(HOST, hint="stop it, or give this one a network of its own: --sandbox"))
        clock, rng = SystemClock(), SystemRandom()
        bus = await house.enter_async_context(_open_bus(config, clock, rng))
        url = config.api.url_at(*listener.getsockname()[:2])
        admin = keep_admin(state, url=url, region=config.host.region, authority=config.api.tls_authority, rng=rng)
        for role in await _roles(house, config, state, listener, bus=bus, clock=clock, rng=rng, admin=admin):
            await house.enter_async_context(role.serving())
            log.info("role %s is up on %s", role.topic, role.host)
        _settle_memory()
        log.info("listening on %s", url)
        await stop.wait()
        log.info("stopping; guests %s", "end with the sandbox" if sandboxed() else "keep running")


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
                outward=outward(config),
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
    api, required = config.api, config.metadata.token == "required"  # noqa: S105 - a choice
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
        door=DoorRules(
            tls=tls_context(config.api.tls_certificate, config.api.tls_key), connections=config.api.connections
        ),
        rate_per_second=api.rate_per_s,
        url=api.url,
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
        region=config.host.region,
    )


@contextlib.asynccontextmanager
async def _open_bus(config: Config, clock: Clock, rng: Random) -> AsyncIterator[Bus]:
    if config.bus.url == "memory:":
        if len(set(config.host.roles)) < len(RoleName):
            raise BadRequest("[host] roles is a subset, but [bus] url is memory:", hint="give an amqp:// url")
        yield MemoryBus(clock=clock, rng=rng)
        return
    from launcher.amqp import AmqpBus  # noqa: PLC0415 - aio-pika takes 4 MiB

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


def _settle_memory() -> None:
    """What was built until now stays for good: keep it out of every garbage collection (a list of 1,000: −25 %)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
