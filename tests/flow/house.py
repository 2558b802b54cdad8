"""A whole launcher in one loop: the real roles, API and database, the in-memory bus, fake drivers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from launcher.accounts import AdminAccess
from launcher.bus import MemoryBus
from launcher.clock import SystemClock
from launcher.config import FLAVORS, TimeoutsConfig
from launcher.db import schemas
from launcher.db.database import Database
from launcher.drivers.firewall.fake import FakeFirewall
from launcher.drivers.images.fake import FAKE_IMAGES, FakeImages
from launcher.drivers.images.fake_vault import FakeDownloads
from launcher.drivers.images.local_vault import LocalVault
from launcher.drivers.images.vault import Downloads
from launcher.drivers.nat.fake import FakeNat
from launcher.drivers.network.fake import FakeNetwork
from launcher.drivers.scheduler.chance import ChanceScheduler
from launcher.drivers.scheduler.driver import SchedulerDriver
from launcher.drivers.virt.fake import FakeVirt
from launcher.drivers.volumes.fake import FakeVolumes
from launcher.errors import SpawnFailed
from launcher.floating import FloatingPool, Outward
from launcher.images import KnownImage
from launcher.models import LaunchOrder, Quotas, TaskState
from launcher.networks import Network, NetworkMode, ProjectRange
from launcher.services.api.door import DoorRules
from launcher.services.api.metadata.guests import Source
from launcher.services.api.metadata.service import MetadataRules
from launcher.services.api.server import ApiServer
from launcher.services.compute.compute import Compute
from launcher.services.compute.work import Launch
from launcher.services.controller.access import AccessRules
from launcher.services.controller.controller import Controller
from launcher.services.controller.images import ImageSupply
from launcher.services.controller.passwords import Passwords
from launcher.services.controller.reconcile import LaunchRules
from launcher.services.network import NetworkController
from launcher.services.saga import Step
from launcher.services.scheduler import Scheduler
from tests.waiting import eventually

TOKEN = "lt_the-admins-token"
ADMIN = AdminAccess(token=TOKEN, password="the-admins-password", access_key="LAADMIN", secret_key="the-admins-secret")
CIDR = IPv4Network("10.0.0.0/24")
Json = dict[str, Any]


def anybody(source: Source) -> bool:
    """Guests of a house come by the loopback interface, which is no bridge."""
    return True


class Gate:
    """Holds a step: `reached` when the launch stands before it, until the test opens it."""

    def __init__(self) -> None:
        self.reached, self.open, self.cut = asyncio.Event(), asyncio.Event(), False

    async def pass_through(self) -> None:
        self.reached.set()
        await self.open.wait()
        if self.cut:
            raise asyncio.CancelledError


@dataclass
class House:
    """What a test may look at and talk to. Drivers may be shared by two houses, as a host is by two processes."""

    state: Path
    seed: int = 1
    quotas: Quotas = field(default_factory=lambda: Quotas(instances=1000, cores=1000, memory_mb=1_000_000))
    build_timeout: float = 30.0
    state_timeouts: Mapping[TaskState, float] = field(default_factory=lambda: TimeoutsConfig().of_states())
    max_attempts: int = 3
    restart_missing: bool = True
    sweep_every: float = 60.0
    heartbeat: float = 1.0
    cidr: IPv4Network = CIDR
    bridge: str = "br100"
    metadata_at: tuple[str, int] = ("127.0.0.1", 0)
    metadata_rules: MetadataRules = field(default_factory=lambda: MetadataRules(admits=anybody))
    projects: ProjectRange | None = None
    pools: tuple[FloatingPool, ...] = ()
    scheduler_driver: SchedulerDriver | None = None
    roles: tuple[str, ...] = ("controller", "scheduler", "network", "compute", "api")
    virt: FakeVirt = field(default_factory=FakeVirt)
    firewall: FakeFirewall = field(default_factory=FakeFirewall)
    network: FakeNetwork = field(default_factory=FakeNetwork)
    nat: FakeNat = field(default_factory=FakeNat)
    images: FakeImages = field(default_factory=FakeImages)
    volumes: FakeVolumes = field(default_factory=FakeVolumes)
    known_images: Mapping[str, KnownImage] = field(default_factory=dict)
    downloads: Downloads = field(default_factory=FakeDownloads)
    largest_image: int = 2**30
    image_listener: socket.socket | None = None
    gates: dict[str, Gate] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    door: DoorRules = field(default_factory=DoorRules)
    rate_per_second: float = 0.0
    bus: MemoryBus = field(init=False)
    controller: Controller = field(init=False)
    scheduler: Scheduler = field(init=False)
    network_role: NetworkController = field(init=False)
    compute: Compute = field(init=False)
    api: ApiServer = field(init=False)
    url: str = field(init=False)
    metadata_url: str = field(init=False)
    http: aiohttp.ClientSession = field(init=False)

    @property
    def vault(self) -> LocalVault:
        """Real, as nothing of it needs the host."""
        return LocalVault(self.state / "vault")

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[House]:
        async with AsyncExitStack() as stack:
            self.bus = MemoryBus(clock=SystemClock(), rng=Random(self.seed + 1000))  # ids unlike the roles'
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            metadata = stack.enter_context(socket.create_server(self.metadata_at))
            self.url, self.metadata_url = (
                "http://{}:{}".format(*each.getsockname()[:2]) for each in (listener, metadata)
            )
            headers = {"Authorization": f"Bearer {TOKEN}"}
            built = await self._build(stack, listener, metadata)
            self.controller, self.scheduler, self.network_role = (
                built[name] for name in ("controller", "scheduler", "network")
            )
            self.compute, self.api = built["compute"], built["api"]
            for name in self.roles:
                await stack.enter_async_context(built[name].serving())
            self.http = await stack.enter_async_context(aiohttp.ClientSession(self.url, headers=headers))
            yield self

    async def _build(
        self, stack: AsyncExitStack, listener: socket.socket, metadata: socket.socket
    ) -> Mapping[str, Any]:
        controller_db = await stack.enter_async_context(Database.open(self.state / "controller.db", schemas.CONTROLLER))
        network_db = await stack.enter_async_context(Database.open(self.state / "network.db", schemas.NETWORK))
        world: Any = {"host": "node-1", "bus": self.bus, "clock": SystemClock(), "rng": Random(self.seed)}
        mode = NetworkMode.VLAN if self.projects else NetworkMode.FLAT_DHCP
        network = Network(name="default", mode=mode, bridge=self.bridge, cidr=self.cidr, gateway=self.cidr[1])
        return {
            "controller": self._controller(world, controller_db),
            "scheduler": Scheduler(
                **world, driver=self.scheduler_driver or ChanceScheduler(rng=Random(self.seed)), host_timeout=60.0
            ),
            "network": NetworkController(
                **world,
                db=network_db,
                network=network,
                projects=self.projects,
                driver=self.network,
                firewall=self.firewall,
                nat=self.nat,
                outward=Outward(pools=self.pools),
            ),
            "compute": self._compute(world),
            "api": ApiServer(
                **world,
                listener=listener,
                vault=self.vault,
                metadata_listener=metadata,
                metadata_rules=self.metadata_rules,
                door=self.door,
                rate_per_second=self.rate_per_second,
            ),
        }

    @contextlib.asynccontextmanager
    async def with_host(self, name: str) -> AsyncIterator[House]:
        """One more compute host on this bus. Its fakes and its troubles are its own; the network role is not."""
        other = House(self.state)
        compute = other._compute({"host": name, "bus": self.bus, "clock": SystemClock(), "rng": Random(3)})
        async with compute.serving():
            await eventually(partial(self._knows, name), what=f"{name} among the hosts")
            yield other

    async def _knows(self, name: str) -> bool:
        found = (await self.ask("GET", "/hosts", status=200))["hosts"]
        return name in [host["name"] for host in found]

    def _compute(self, world: Any) -> Compute:
        compute = Compute(
            **world,
            availability_zone="nova",
            heartbeat=self.heartbeat,
            virt=self.virt,
            firewall=self.firewall,
            network=self.network,
            images=self.images,
            volumes=self.volumes,
            second_look=0.05,
            stuck_every=0.05,
        )
        compute.launches.saga.steps = [replace(step, do=self._troubled(step)) for step in compute.launches.saga.steps]
        return compute

    def _troubled(self, step: Step[Launch]) -> Callable[[Launch], Awaitable[None]]:
        """The step's action behind its gate and its failures, if a test gave it any."""

        async def do(work: Launch) -> None:
            if gate := self.gates.get(step.name):
                await gate.pass_through()
            if self.broken.get(step.name, 0) > 0:
                self.broken[step.name] -= 1
                raise SpawnFailed(f"{step.name} was broken by the test")
            await step.do(work)

        return do

    def hold_step(self, step: str) -> Gate:
        return self.gates.setdefault(step, Gate())

    def break_step(self, step: str, *, times: int = 1000) -> None:
        """The next `times` runs of the step fail, in a way that is worth another try."""
        self.broken[step] = times

    def cut(self) -> None:
        """End every held launch where it stands, as a crash would: nothing after it runs."""
        for gate in self.gates.values():
            gate.cut = True
            gate.open.set()

    def successor(self) -> House:
        """The next process on the same state and the same host."""
        return House(
            self.state,
            seed=2,
            pools=self.pools,
            virt=self.virt,
            firewall=self.firewall,
            network=self.network,
            nat=self.nat,
            images=self.images,
            volumes=self.volumes,
        )

    def order_of(self, instance: Json) -> LaunchOrder:
        """What the host was told of a running instance."""
        return self.firewall.applied[instance["number"]][0]

    def _controller(self, world: Any, db: Database) -> Controller:
        async def read_image(name: str) -> list[Any]:
            return [image for image in FAKE_IMAGES if image.name.startswith(name)]

        return Controller(
            **world,
            db=db,
            quotas=self.quotas,
            flavors={flavor.name: flavor for flavor in FLAVORS},
            images=ImageSupply(
                read_image=read_image,
                library=FAKE_IMAGES,
                known=self.known_images,
                vault=self.vault,
                downloads=self.downloads,
                most=self.largest_image,
                listener=self.image_listener,
            ),
            admin=ADMIN,
            access=AccessRules(passwords=Passwords(log_n=4, p=1)),
            launches=LaunchRules(
                build_timeout=self.build_timeout,
                state_timeouts=self.state_timeouts,
                max_attempts=self.max_attempts,
                restart_missing=self.restart_missing,
            ),
            tick=0.02,
            sweep_every=self.sweep_every,
        )

    async def ask(
        self, method: str, path: str, body: object = None, *, status: int | None = None, **options: Any
    ) -> Json:
        """The JSON answer; with `status` given, any other is a failure that shows the answer."""
        async with self.http.request(method, path, json=body, **options) as response:
            text = await response.text()
            assert status is None or response.status == status, f"{response.status}: {text}"
            return await response.json(content_type=None) if text else {}

    async def launch(self, **changes: object) -> Json:
        """POST /instances; the first instance of the answer."""
        body = {"image": "ami-tiny", "flavor": "m1.tiny", **changes}
        made: list[Json] = (await self.ask("POST", "/instances", body, status=202))["instances"]
        return made[0]

    async def until(self, instance_id: str, status: str, *, within: float = 10.0) -> Json:
        """The instance once it has this status."""

        async def look() -> Json | None:
            found = await self.ask("GET", f"/instances/{instance_id}", status=200)
            return found if found["status"] == status else None

        return await eventually(look, within=within, what=f"{instance_id} becoming {status}")

    def leftovers(self) -> list[str]:
        """What the fake host still holds; empty is a clean slate."""
        held = {
            "domains": self.virt.domains,
            "rules": sorted(self.firewall.applied),
            "taps": self.network.taps,
            "directories": self.images.disks,
            "volumes": self.volumes.volumes,
            "floating IPs": self.nat.applied.floating,
            "leases": [lease for leases in self.network.leases.values() for lease in leases],
        }
        return [f"{kind}: {what}" for kind, what in held.items() if what]
