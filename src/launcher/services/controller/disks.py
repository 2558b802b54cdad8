"""Volumes and their snapshots, put together: what is asked about them, and what brings them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from launcher.bus import Bus
from launcher.clock import Clock
from launcher.db.database import Database
from launcher.messaging import Context, Route
from launcher.models import Quotas
from launcher.services.controller.journal import Journal
from launcher.services.controller.reconcile import LaunchRules
from launcher.services.controller.snapshots import Snapshots
from launcher.services.controller.volume_work import VolumeWork
from launcher.services.controller.volumes import Volumes


class Disks:
    """`usual` are a project's quotas where it has none of its own; a volume has as much time as a launch."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        rng: Random,
        journal: Journal,
        context: Callable[[], Context],
        usual: Quotas,
        rules: LaunchRules,
    ) -> None:
        self.work = VolumeWork(
            db=db,
            bus=bus,
            clock=clock,
            rng=rng,
            journal=journal,
            context=context,
            max_attempts=rules.max_attempts,
            timeout=rules.build_timeout,
        )
        self.volumes = Volumes(db=db, clock=clock, rng=rng, usual=usual, work=self.work)
        self.snapshots = Snapshots(db=db, clock=clock, rng=rng, usual=usual, work=self.work)

    @property
    def routes(self) -> Sequence[Route]:
        return [*self.volumes.routes, *self.snapshots.routes, *self.work.routes]
