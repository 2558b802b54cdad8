"""What a project asks about its volumes: all that can be refused is refused here, in the transaction that accepts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from launcher.clock import Clock
from launcher.db import idempotency, images, instances, limits, volume_moves, volumes
from launcher.db.database import Database
from launcher.errors import BadRequest, Conflict, Forbidden, NotFound, QuotaExceeded, WrongState
from launcher.identity import new_uuid
from launcher.messages.volumes import (
    AttachVolume,
    CreateVolume,
    DeleteVolume,
    DetachVolume,
    ExtendVolume,
    GetVolume,
    ListVolumes,
)
from launcher.messaging import Context, Route
from launcher.models import Image, ImageKind, Instance, Quotas, VmState
from launcher.services.controller.volume_work import VolumeWork
from launcher.volumes import BEGINNINGS, DEVICES, LARGEST_GB, Device, Extension, Volume, VolumeStatus

GIB = 2**30
ROOT = "vda"
PLUGGABLE = (VmState.ACTIVE, VmState.STOPPED)
"""A suspended machine's memory knows the disks it had: until it goes on, none is given, taken or changed."""
HELD = (VolumeStatus.ATTACHING, VolumeStatus.IN_USE)
GOING = (VolumeStatus.DELETING, VolumeStatus.DELETED)


class Volumes:
    """Sees only what belongs to the asking project; an admin may name anybody's. The row moves first, then its host is
    told.
    """

    def __init__(self, *, db: Database, clock: Clock, rng: Random, usual: Quotas, work: VolumeWork) -> None:
        self.db, self.clock, self.rng, self.usual, self.work = db, clock, rng, usual, work

    @property
    def routes(self) -> Sequence[Route]:
        return [
            CreateVolume.to(self.create_volume),
            ListVolumes.to(self.list_volumes),
            GetVolume.to(self.get_volume),
            AttachVolume.to(self.attach_volume),
            DetachVolume.to(self.detach_volume),
            ExtendVolume.to(self.extend_volume),
            DeleteVolume.to(self.delete_volume),
        ]

    async def create_volume(self, ctx: Context, message: CreateVolume) -> Volume:
        if message.snapshot is not None and message.image is not None:
            raise BadRequest("a volume is made of a snapshot or of an image, not of both", field="image")
        volume_id = await self.work.accept(ctx, lambda db: self._once(db, ctx, message))
        return await self.db.read(lambda db: volumes.get(db, volume_id))

    async def list_volumes(self, ctx: Context, message: ListVolumes) -> list[Volume]:
        project = whose(ctx, all_projects=message.all_projects)
        return await self.db.read(lambda db: volumes.list_all(db, project, deleted=message.deleted))

    async def get_volume(self, ctx: Context, message: GetVolume) -> Volume:
        return await self.db.read(lambda db: resolve(db, ctx, message.volume))

    async def attach_volume(self, ctx: Context, message: AttachVolume) -> Volume:
        return await self._ask(ctx, message.volume, lambda db, volume: self._attach(db, ctx, volume, message))

    async def detach_volume(self, ctx: Context, message: DetachVolume) -> Volume:
        return await self._ask(ctx, message.volume, lambda db, volume: self._detach(db, ctx, volume, message))

    async def extend_volume(self, ctx: Context, message: ExtendVolume) -> Volume:
        return await self._ask(ctx, message.volume, lambda db, volume: self._extend(db, volume, message.size_gb))

    async def delete_volume(self, ctx: Context, message: DeleteVolume) -> Volume:
        return await self._ask(ctx, message.volume, self._delete)

    # --- in one transaction each ------------------------------------------------------------------

    async def _ask(self, ctx: Context, name_or_id: str, decide: Callable[[sqlite3.Connection, Volume], bool]) -> Volume:
        """`decide` moves the row, or says that there is nothing to do."""

        def work(db: sqlite3.Connection) -> tuple[str, bool]:
            volume = resolve(db, ctx, name_or_id)
            return volume.id, decide(db, volume)

        volume_id = await self.work.move(ctx, work)
        return await self.db.read(lambda db: volumes.get(db, volume_id))

    def _once(self, db: sqlite3.Connection, ctx: Context, message: CreateVolume) -> str:
        key, now = message.idempotency_key, self.clock.now_ms()
        return idempotency.once(db, ctx.project_id, key, message, now, lambda: self._accept(db, ctx, message))

    def _accept(self, db: sqlite3.Connection, ctx: Context, message: CreateVolume) -> str:
        origin = self._origin(db, ctx, message)
        size = message.size_gb or origin["least_gb"]
        if size is None:
            raise BadRequest("an empty volume needs a size", field="size_gb")
        if not (origin["least_gb"] or 1) <= size <= LARGEST_GB:
            raise BadRequest(f"what it is made of needs {origin['least_gb']} GB, not {size}", field="size_gb")
        check_quota(db, ctx.project_id, self.usual, volumes_more=1, gigabytes_more=size)
        number, now = volumes.next_number(db), self.clock.now_ms()
        columns = {
            "id": new_uuid(self.rng),
            "number": number,
            "name": message.name or f"volume-{number}",
            "description": message.description,
            "metadata": json.dumps(message.metadata),
            "size_gb": size,
            "host": origin["host"],
            "availability_zone": message.availability_zone,
            "source": origin["source"],
            "image": origin["image"].model_dump_json() if origin["image"] else None,
            **self.work.accepted(ctx),
        }
        volumes.create(db, {**columns, "created_ms": now, "state_since_ms": now})
        return str(columns["id"])

    def _origin(self, db: sqlite3.Connection, ctx: Context, message: CreateVolume) -> dict[str, Any]:
        """Where it is made, of what, and how large it is at least."""
        host = _host_of(db, ctx, message.near) if message.near else None
        if message.snapshot is not None:
            snapshot = resolve_snapshot(db, ctx, message.snapshot)
            if snapshot.status is not VolumeStatus.AVAILABLE:
                raise Conflict(f"the snapshot {snapshot.name} is {snapshot.status}", field="snapshot")
            if host not in (None, snapshot.host):
                raise Conflict(f"the snapshot {snapshot.name} is on {snapshot.host}, not on {host}", field="near")
            image = volumes.get_image(db, snapshot.id)
            return {"host": snapshot.host, "source": snapshot.id, "image": image, "least_gb": snapshot.size_gb}
        image = _machine_image(db, ctx, message.image) if message.image is not None else None
        least = -(-image.virtual_size // GIB) if image else None
        return {"host": host, "source": None, "image": image, "least_gb": max(1, least) if least is not None else None}

    def _attach(self, db: sqlite3.Connection, ctx: Context, volume: Volume, message: AttachVolume) -> bool:
        machine = resolve_instance(db, ctx, message.instance)
        there = volume.attachment
        if there and there.instance_id == machine.id and volume.status in HELD:
            if message.device not in (None, there.device):
                raise Conflict(f"{volume.name} is attached there as /dev/{there.device}", field="device")
            return False
        if volume.status is not VolumeStatus.AVAILABLE:
            raise _busy(db, volume)
        _check_pluggable(volume, machine)
        device = _device(db, machine, message.device)
        changes = {
            "instance_id": machine.id,
            "device": device,
            "delete_on_termination": int(message.delete_on_termination),
        }
        return self._begin(db, volume, VolumeStatus.ATTACHING, changes)

    def _detach(self, db: sqlite3.Connection, ctx: Context, volume: Volume, message: DetachVolume) -> bool:
        there = volume.attachment
        if message.instance is not None and there is not None:
            machine = resolve_instance(db, ctx, message.instance)
            if there.instance_id != machine.id:
                raise Conflict(held(db, volume), field="instance")
        if volume.status is VolumeStatus.AVAILABLE or (volume.status is VolumeStatus.DETACHING and not message.force):
            return False
        if there is not None and there.device == ROOT:
            raise Conflict(f"{held(db, volume)}: it is its root", hint="delete the instance", field="device")
        if volume.status not in BEGINNINGS[VolumeStatus.DETACHING]:
            raise WrongState(held(db, volume), field="volume")
        check_awake(db, volume)
        return self._begin(db, volume, VolumeStatus.DETACHING, {"forced": int(message.force)})

    def _extend(self, db: sqlite3.Connection, volume: Volume, size_gb: int) -> bool:
        if volume.status not in BEGINNINGS[VolumeStatus.EXTENDING]:
            raise WrongState(held(db, volume), field="volume")
        check_awake(db, volume)
        if size_gb <= volume.size_gb:
            raise BadRequest(f"{volume.name} has {volume.size_gb} GB; volumes only grow", field="size_gb")
        check_quota(db, volume.project_id, self.usual, gigabytes_more=size_gb - volume.size_gb)
        extension = Extension(from_gb=volume.size_gb, to_gb=size_gb, began_ms=int(self.clock.now_ms()))
        changes = {"new_size_gb": size_gb, "extension": extension.model_dump_json()}
        return self._begin(db, volume, VolumeStatus.EXTENDING, changes)

    def _delete(self, db: sqlite3.Connection, volume: Volume) -> bool:
        if volume.status in GOING:
            return False
        if volume.status not in BEGINNINGS[VolumeStatus.DELETING]:
            raise _busy(db, volume)
        if volumes.is_being_copied(db, volume.id):
            raise WrongState(f"a snapshot of {volume.name} is being made", hint="wait for it", field="volume")
        return self._begin(db, volume, VolumeStatus.DELETING, {})

    def _begin(self, db: sqlite3.Connection, volume: Volume, status: VolumeStatus, changes: dict[str, Any]) -> bool:
        now, later = self.clock.now_ms(), self.work.later()
        generation = volume.generation
        volume_moves.begin(db, volume.id, generation, status, now_ms=now, next_check_ms=later, changes=changes)
        return True


def check_quota(
    db: sqlite3.Connection,
    project_id: str,
    usual: Quotas,
    *,
    volumes_more: int = 0,
    snapshots_more: int = 0,
    gigabytes_more: int = 0,
) -> None:
    """In the transaction that takes it, so that two requests cannot share the last of a quota."""
    used, most = volumes.get_usage(db, project_id), limits.get(db, project_id, usual)
    rooms = (
        ("volumes", most.volumes, used.volumes, volumes_more),
        ("volume snapshots", most.snapshots, used.snapshots, snapshots_more),
        ("gigabytes", most.gigabytes, used.gigabytes, gigabytes_more),
    )
    for what, limit, held_now, more in rooms:
        if more and held_now + more > limit:
            raise QuotaExceeded(
                f"quota of {what} exceeded: {held_now} of {limit} in use, {more} more needed",
                hint="delete a volume or a snapshot, or raise [quotas] in config.toml",
            )


def whose(ctx: Context, *, all_projects: bool) -> str | None:
    """The project whose things are listed; None for all."""
    if all_projects and not ctx.is_admin:
        raise Forbidden("only an admin may list all projects", field="all_projects")
    return None if all_projects else ctx.project_id


def held(db: sqlite3.Connection, volume: Volume) -> str:
    """Who has it, or what is being done to it."""
    there = volume.attachment
    if there is None:
        return f"the volume {volume.name} is {volume.status}"
    machine = instances.get(db, there.instance_id)
    return f"the volume {volume.name} is {volume.status}, at instance {machine.name} as /dev/{there.device}"


def _busy(db: sqlite3.Connection, volume: Volume) -> Conflict:
    """Somebody has it, or it is not in a status to be had."""
    kind = WrongState if volume.attachment is None else Conflict
    return kind(held(db, volume), field="volume")


def check_awake(db: sqlite3.Connection, volume: Volume) -> None:
    """A machine that has it is not suspended."""
    if volume.attachment is not None:
        machine = instances.get(db, volume.attachment.instance_id)
        if machine.vm_state is VmState.SUSPENDED:
            raise Conflict(f"{held(db, volume)}, which is suspended", hint="resume it first", field="volume")


def resolve(db: sqlite3.Connection, ctx: Context, name_or_id: str) -> Volume:
    """In the caller's project first; an admin may then reach any other."""
    try:
        return volumes.resolve(db, ctx.project_id, name_or_id)
    except NotFound:
        if not ctx.is_admin:
            raise
        return volumes.resolve(db, None, name_or_id)


def resolve_snapshot(db: sqlite3.Connection, ctx: Context, name_or_id: str) -> Any:
    """In the caller's project first; an admin may then reach any other."""
    try:
        return volumes.resolve_snapshot(db, ctx.project_id, name_or_id)
    except NotFound:
        if not ctx.is_admin:
            raise
        return volumes.resolve_snapshot(db, None, name_or_id)


def resolve_instance(db: sqlite3.Connection, ctx: Context, name_or_id: str) -> Instance:
    """In the caller's project first; an admin may then reach any other."""
    try:
        return instances.resolve(db, ctx.project_id, name_or_id)
    except NotFound:
        if not ctx.is_admin:
            raise
        return instances.resolve(db, None, name_or_id)


def _host_of(db: sqlite3.Connection, ctx: Context, name_or_id: str) -> str:
    machine = resolve_instance(db, ctx, name_or_id)
    if machine.host is None:
        raise Conflict(f"the instance {machine.name} has no host yet", hint="wait for it", field="near")
    return machine.host


def _machine_image(db: sqlite3.Connection, ctx: Context, name_or_id: str) -> Image:
    """Raises Conflict while it is not active."""
    image = images.get(db, ctx.project_id, name_or_id, is_admin=ctx.is_admin)
    if image.kind is not ImageKind.MACHINE:
        raise BadRequest(f"{image.name} is a {image.kind} image, not a machine image", field="image")
    return image.content()


def _check_pluggable(volume: Volume, machine: Instance) -> None:
    if machine.project_id != volume.project_id:
        raise Conflict(f"{volume.name} and {machine.name} belong to different projects", field="instance")
    if machine.vm_state not in PLUGGABLE or machine.task_state is not None:
        doing = f" ({machine.task_state})" if machine.task_state else ""
        raise Conflict(f"the instance {machine.name} is {machine.vm_state}{doing}", field="instance")
    if machine.host != volume.host:
        raise Conflict(
            f"{volume.name} is on host {volume.host}, {machine.name} on {machine.host}",
            hint="a volume is made on its instance's host with `--near INSTANCE`",
            field="host",
        )


def _device(db: sqlite3.Connection, machine: Instance, wanted: Device | None) -> str:
    taken = {each.attachment.device: each for each in volumes.list_of_instance(db, machine.id) if each.attachment}
    own = (ROOT, *DEVICES[: bool(machine.flavor.ephemeral_gb) + bool(machine.flavor.swap_mb)])
    if wanted is None:
        return volumes.free_device(db, machine.id, own)
    if wanted in own or wanted in taken:
        who = taken[wanted].name if wanted in taken else "a disk of its own"
        raise Conflict(f"/dev/{wanted} of {machine.name} is {who}", hint="leave the device out", field="device")
    return wanted
