"""The cloud controller: owns the instances and all that belongs to a project, and keeps every launch moving.

One file per noun; this one puts them together. Accepting a launch is `admission.py`, what the other roles report is
`reports.py`, what brings a stuck launch on is `reconcile.py`, what nobody owns is found by `sweep.py`, that the hosts
filter by what the rows say is `refresh.py`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any

from launcher.accounts import AdminAccess
from launcher.bus import Bus
from launcher.clock import Clock
from launcher.db import credentials, events, instances
from launcher.db.database import Database
from launcher.messages.access import Ping
from launcher.messages.instances import CreateInstances
from launcher.messages.notices import HostHeartbeat
from launcher.messaging import Context, Route
from launcher.models import Flavor, Quotas
from launcher.services.controller.access import Access, AccessRules
from launcher.services.controller.accounts import Accounts
from launcher.services.controller.admission import Admission
from launcher.services.controller.attributes import Attributes
from launcher.services.controller.caches import Caches
from launcher.services.controller.catalogue import Catalogue
from launcher.services.controller.disks import Disks
from launcher.services.controller.images import Images, ImageSupply
from launcher.services.controller.instance_images import InstanceImages
from launcher.services.controller.inventory import Inventory
from launcher.services.controller.journal import Journal
from launcher.services.controller.key_pairs import KeyPairs
from launcher.services.controller.life import Life
from launcher.services.controller.reconcile import LaunchRules, Reconcile
from launcher.services.controller.refresh import PAUSE, Refresh
from launcher.services.controller.reports import Reports
from launcher.services.controller.roots import Roots
from launcher.services.controller.security_groups import SecurityGroups
from launcher.services.controller.start_report import StartReport
from launcher.services.controller.sweep import Sweep
from launcher.services.controller.tags import Tags
from launcher.services.role import Role

TRACES_KEPT_MS = 7 * 24 * 3600 * 1000
EVENTS_KEPT = 100_000
FIRST_LOOK = 5.0
IMAGES_EVERY = 10.0


class Controller(Role):
    """`tick` seconds is how often the due rows are looked at, `sweep_every` how often the hosts are (0: never); without
    a heartbeat for `host_timeout` a host is dead.
    """

    topic = "controller"
    highest_number = 0

    def __init__(
        self,
        *,
        host: str,
        bus: Bus,
        clock: Clock,
        rng: Random,
        db: Database,
        quotas: Quotas,
        flavors: Mapping[str, Flavor],
        images: ImageSupply,
        admin: AdminAccess,
        launches: LaunchRules,
        tick: float,
        sweep_every: float = 60.0,
        host_timeout: float = 60.0,
        access: AccessRules | None = None,
        region: str = "RegionOne",
    ) -> None:
        super().__init__(host=host, bus=bus, clock=clock, rng=rng)
        self.db, self.tick, self.sweep_every, self.admin = db, tick, sweep_every, admin
        self.refresh = Refresh(db=db, bus=bus, context=self.own_context)
        journal = self.journal = Journal(db=db, bus=bus, clock=clock, refresh=self.refresh)
        self.catalogue = Catalogue(clock=clock, flavors=flavors)
        hosts = self.catalogue.hosts
        self.images = Images(db=db, clock=clock, rng=rng, usual_quotas=quotas, supply=images)
        self.sweep = Sweep(db=db, bus=bus, hosts=hosts, imports=self.images.imports, context=self.own_context)
        self.caches = Caches(bus=bus, live_hosts=lambda: self.catalogue.live_hosts(host_timeout))
        report = self.start_report = StartReport(clock=clock, sweep=self.sweep.sweep if sweep_every else None)
        every: Any = {"db": db, "bus": bus, "clock": clock, "rng": rng, "journal": journal}
        self.reconcile = Reconcile(**every, start_report=report, rules=launches)
        self.admission = Admission(
            **every, quotas=quotas, flavors=flavors, build_timeout=launches.build_timeout, first_look=FIRST_LOOK
        )
        self.life = Life(db=db, clock=clock, journal=self.journal, reconcile=self.reconcile, rules=launches)
        self.roots = Roots(life=self.life)
        self.instance_images = InstanceImages(db=db, clock=clock, rng=rng, life=self.life, images=self.images)
        self.reports = Reports(
            db=db,
            clock=clock,
            journal=self.journal,
            reconcile=self.reconcile,
            rules=launches,
            life=self.life,
            live_hosts=lambda: self.catalogue.live_hosts(host_timeout),
        )
        self.inventory = Inventory(
            db=db, bus=bus, clock=clock, journal=journal, reconcile=self.reconcile, hosts=hosts, region=region
        )
        self.access = Access(db=db, clock=clock, rng=rng, rules=access or AccessRules())
        self.accounts = Accounts(db=db, bus=bus, clock=clock, rng=rng, access=self.access, usual=quotas)
        self.disks = Disks(**every, context=self.own_context, usual=quotas, rules=launches)
        self.attributes = Attributes(journal=self.journal, reconcile=self.reconcile, quotas=quotas, flavors=flavors)
        self.key_pairs = KeyPairs(db=db, clock=clock, quotas=quotas)
        self.tags = Tags(db=db, quotas=quotas)
        self.security_groups = SecurityGroups(db=db, bus=bus, quotas=quotas, journal=self.journal)

    @property
    def routes(self) -> Sequence[Route]:
        return [
            Ping.to(self.ping),
            *self.access.routes,
            *self.accounts.routes,
            CreateInstances.to(self.admission.create_instances),
            *self.inventory.routes,
            *self.key_pairs.routes,
            *self.tags.routes,
            *self.security_groups.routes,
            *self.disks.routes,
            *self.catalogue.routes,
            *self.images.routes,
            *self.instance_images.routes,
            *self.caches.routes,
            *self.reports.routes,
            *self.life.routes,
            *self.roots.routes,
            *self.attributes.routes,
            *self.sweep.routes,
        ]

    @property
    def notices(self) -> Sequence[Route]:
        return [HostHeartbeat.to(self.hear_host)]

    @property
    def recurring(self) -> Sequence[tuple[float, Callable[[], Awaitable[object]]]]:
        sweep = [(self.sweep_every, self.sweep.sweep)] if self.sweep_every else []
        return [
            (self.tick, self.reconcile.tick),
            (self.tick, self.start_report.tick),
            (self.tick, self.disks.work.tick),
            (PAUSE, self.refresh.next_round),
            (3600.0, self.prune),
            (IMAGES_EVERY, self.images.imports.tend),
            *sweep,
        ]

    async def start(self) -> None:
        await self.access.keep_admin(self.admin)
        await self.images.start()

    async def recover(self) -> None:
        self.refresh.recover()
        await self.reconcile.recover()
        await self.disks.work.recover()
        await self.images.imports.recover()

    async def stop(self) -> None:
        await self.images.stop()

    async def ping(self, ctx: Context, message: Ping) -> None:
        return None

    async def hear_host(self, ctx: Context, message: HostHeartbeat) -> None:
        is_new = self.catalogue.hear_host(message)
        if message.host.highest_number > self.highest_number:
            self.highest_number = message.host.highest_number
            await self.db.write(lambda db: instances.skip_numbers(db, message.host.highest_number))
        if is_new:
            await self.disks.work.hear_of(message.host)
            await self.reconcile.host_started(message.host)
        else:
            await self.reconcile.recount(message.host)
        await self.refresh.hear_host(message.host)

    async def prune(self) -> None:
        now = self.clock.now_ms()
        oldest = now - TRACES_KEPT_MS
        await self.db.write(lambda db: credentials.delete_expired(db, now))
        await self.db.write(lambda db: events.prune(db, spans_before_ms=oldest, events_kept=EVENTS_KEPT))
