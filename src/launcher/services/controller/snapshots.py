"""What a project asks about the snapshots of its volumes."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from random import Random

from launcher.clock import Clock
from launcher.db import volume_moves, volumes
from launcher.db.database import Database
from launcher.errors import Conflict, WrongState
from launcher.identity import new_uuid
from launcher.messages.volumes import CreateSnapshot, DeleteSnapshot, GetSnapshot, ListSnapshots
from launcher.messaging import Context, Route
from launcher.models import Quotas
from launcher.services.controller.volume_work import VolumeWork
from launcher.services.controller.volumes import GOING, check_quota, held, resolve, resolve_snapshot, whose
from launcher.volumes import BEGINNINGS, Snapshot, Volume, VolumeStatus

COPYABLE = (VolumeStatus.AVAILABLE, VolumeStatus.IN_USE)


class Snapshots:
    """Moved as volumes are, by the same work on the same hosts."""

    def __init__(self, *, db: Database, clock: Clock, rng: Random, usual: Quotas, work: VolumeWork) -> None:
        self.db, self.clock, self.rng, self.usual, self.work = db, clock, rng, usual, work

    @property
    def routes(self) -> Sequence[Route]:
        return [
            CreateSnapshot.to(self.create_snapshot),
            ListSnapshots.to(self.list_snapshots),
            GetSnapshot.to(self.get_snapshot),
            DeleteSnapshot.to(self.delete_snapshot),
        ]

    async def create_snapshot(self, ctx: Context, message: CreateSnapshot) -> Snapshot:
        snapshot_id = await self.work.accept(ctx, lambda db: self._accept(db, ctx, message))
        return await self.db.read(lambda db: volumes.get_snapshot(db, snapshot_id))

    async def list_snapshots(self, ctx: Context, message: ListSnapshots) -> list[Snapshot]:
        project = whose(ctx, all_projects=message.all_projects)
        return await self.db.read(lambda db: volumes.list_snapshots(db, project, deleted=message.deleted))

    async def get_snapshot(self, ctx: Context, message: GetSnapshot) -> Snapshot:
        return await self.db.read(lambda db: resolve_snapshot(db, ctx, message.snapshot))

    async def delete_snapshot(self, ctx: Context, message: DeleteSnapshot) -> Snapshot:
        def work(db: sqlite3.Connection) -> tuple[str, bool]:
            snapshot = resolve_snapshot(db, ctx, message.snapshot)
            return snapshot.id, self._delete(db, snapshot)

        snapshot_id = await self.work.move(ctx, work)
        return await self.db.read(lambda db: volumes.get_snapshot(db, snapshot_id))

    def _accept(self, db: sqlite3.Connection, ctx: Context, message: CreateSnapshot) -> str:
        volume = resolve(db, ctx, message.volume)
        _check_copyable(db, volume, force=message.force)
        check_quota(db, ctx.project_id, self.usual, snapshots_more=1, gigabytes_more=volume.size_gb)
        number, now = volumes.next_number(db), self.clock.now_ms()
        image = volumes.get_image(db, volume.id)
        columns = {
            "id": new_uuid(self.rng),
            "number": number,
            "name": message.name or f"snapshot-{number}",
            "description": message.description,
            "metadata": json.dumps(message.metadata),
            "size_gb": volume.size_gb,
            "host": volume.host,
            "snapshot_of": volume.id,
            "image": image.model_dump_json() if image else None,
            **self.work.accepted(ctx),
        }
        volumes.create(db, {**columns, "created_ms": now, "state_since_ms": now})
        return str(columns["id"])

    def _delete(self, db: sqlite3.Connection, snapshot: Snapshot) -> bool:
        if snapshot.status in GOING:
            return False
        if snapshot.status not in BEGINNINGS[VolumeStatus.DELETING]:
            raise Conflict(f"the snapshot {snapshot.name} is {snapshot.status}", field="snapshot")
        if volumes.is_being_copied(db, snapshot.id):
            raise Conflict(f"a volume is being made of {snapshot.name}", hint="wait for it", field="snapshot")
        now, later = self.clock.now_ms(), self.work.later()
        volume_moves.begin(db, snapshot.id, snapshot.generation, VolumeStatus.DELETING, now_ms=now, next_check_ms=later)
        return True


def _check_copyable(db: sqlite3.Connection, volume: Volume, *, force: bool) -> None:
    if volume.status not in COPYABLE:
        raise WrongState(held(db, volume), field="volume")
    if volume.status is VolumeStatus.IN_USE and not force:
        raise Conflict(
            held(db, volume),
            hint="stop the instance or detach it; with `--force` the machine is paused while it is copied",
            field="force",
        )
