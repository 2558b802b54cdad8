"""What a project asks about its instances, and their deletion."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

from launcher.bus import Bus
from launcher.clock import Clock
from launcher.db import attributes, events, instances, moves
from launcher.db.database import Database
from launcher.errors import BadRequest, Forbidden, LauncherError, NotFound, StaleGeneration
from launcher.failpoints import failpoint
from launcher.messages.compute import GetConsoleLog, GetDiagnostics
from launcher.messages.instances import (
    DeleteInstance,
    GetConsoleOutput,
    GetGuestMetadata,
    GetInstance,
    GetReadiness,
    GetTrace,
    ListEvents,
    ListInstances,
)
from launcher.messages.network import GetDhcpEvidence
from launcher.messaging import Context, Encoded, Route
from launcher.models import Event, GuestMetadata, HostState, Instance, Readiness, Span, TaskState, VmState
from launcher.services.controller.journal import Journal
from launcher.services.controller.readiness import CONSOLE_LINES, verdict
from launcher.services.controller.reconcile import Reconcile

T = TypeVar("T")
log = logging.getLogger(__name__)

LOOK_TIMEOUT = 5.0
DEFAULT_ZONE = "nova"
STATES = {
    "BUILD": VmState.BUILDING,
    "ACTIVE": VmState.ACTIVE,
    "PAUSED": VmState.PAUSED,
    "SUSPENDED": VmState.SUSPENDED,
    "STOPPED": VmState.STOPPED,
    "RESCUED": VmState.RESCUED,
    "ERROR": VmState.ERROR,
    "DELETED": VmState.DELETED,
}


class Inventory:
    """Sees only what belongs to the asking project; an admin may name anybody's instance."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        journal: Journal,
        reconcile: Reconcile,
        hosts: Mapping[str, HostState],
        region: str,
    ) -> None:
        self.db, self.bus, self.clock, self.journal, self.reconcile = db, bus, clock, journal, reconcile
        self.hosts, self.region = hosts, region

    @property
    def routes(self) -> Sequence[Route]:
        return [
            GetInstance.to(self.get_instance),
            ListInstances.to(self.list_instances),
            DeleteInstance.to(self.delete_instance),
            GetConsoleOutput.to(self.get_console_output),
            GetReadiness.to(self.get_readiness),
            GetTrace.to(self.get_trace),
            ListEvents.to(self.list_events),
            GetGuestMetadata.to(self.get_guest_metadata),
        ]

    async def get_instance(self, ctx: Context, message: GetInstance) -> Instance:
        return await resolve(self.db, ctx, message.instance_id)

    async def list_instances(self, ctx: Context, message: ListInstances) -> Encoded[list[Instance]]:
        if message.all_projects and not ctx.is_admin:
            raise Forbidden("only an admin may list all projects", field="all_projects")
        if message.status is not None and message.status not in STATES:
            raise BadRequest(
                f"there is no status {message.status!r}", hint=f"one of {', '.join(STATES)}", field="status"
            )
        page = await self.db.read(
            lambda db: instances.list_page(
                db,
                project_id=None if message.all_projects else ctx.project_id,
                marker=message.marker,
                limit=message.limit,
                deleted=message.deleted,
                name=message.name,
                states=[STATES[message.status]] if message.status else [],
                host=message.host,
                numbers=message.numbers,
                deleted_after_ms=message.deleted_after_ms,
            )
        )
        return Encoded(page)

    async def delete_instance(self, ctx: Context, message: DeleteInstance) -> Instance:
        """From every state; repeating it is success. The row moves first, then the host is told."""
        instance = await resolve(self.db, ctx, message.instance_id)
        if instance.vm_state is VmState.DELETED or instance.task_state is TaskState.DELETING:
            return instance
        attributes.refuse_locked(instance, by_admin=ctx.is_admin)
        attributes.refuse_protected(instance)
        now = self.clock.now_ms()
        later = now + self.reconcile.wait(1) * 1000
        async with failpoint("delete"):
            deleting = await self.journal.record(
                ctx,
                lambda db: moves.begin_deleting(
                    db, instances.get(db, instance.id), trace_id=ctx.trace_id, now_ms=now, next_check_ms=later
                ),
            )
        with contextlib.suppress(StaleGeneration):  # the reconcile loop was here first
            await self.reconcile.nudge(deleting, ctx)
        return await self.db.read(lambda db: instances.get(db, instance.id))

    async def get_console_output(self, ctx: Context, message: GetConsoleOutput) -> str:
        instance = await resolve(self.db, ctx, message.instance_id)
        if instance.host is None:
            return ""
        order = await self.db.read(lambda db: instances.get_order(db, instance.id))
        return await self.bus.call(ctx, GetConsoleLog(order=order, max_bytes=message.max_bytes), host=instance.host)

    async def get_readiness(self, ctx: Context, message: GetReadiness) -> Readiness:
        """Ask everybody who knows something; who does not answer is left out."""
        instance = await resolve(self.db, ctx, message.instance_id)
        order = await self.db.read(lambda db: instances.get_order(db, instance.id))
        dhcp = await _or_none(self.bus.call(ctx, GetDhcpEvidence(instance_id=instance.id), timeout=LOOK_TIMEOUT))
        domain, console = None, ""
        if instance.host is not None:
            look = GetConsoleLog(order=order, max_bytes=4096)
            domain = await _or_none(
                self.bus.call(ctx, GetDiagnostics(order=order), host=instance.host, timeout=LOOK_TIMEOUT)
            )
            console = await _or_none(self.bus.call(ctx, look, host=instance.host, timeout=LOOK_TIMEOUT)) or ""
        tail = tuple(line for line in console.splitlines() if line.strip())[-CONSOLE_LINES:]
        return Readiness(
            instance=instance,
            dhcp=dhcp,
            domain=domain,
            console_tail=tail,
            injection=await self.db.read(lambda db: instances.get_injection(db, instance.id)),
            verdict=verdict(instance, dhcp, domain, tail, now_ms=self.clock.now_ms()),
        )

    async def get_trace(self, ctx: Context, message: GetTrace) -> list[Span]:
        instance = await resolve(self.db, ctx, message.instance_id)
        return await self.db.read(lambda db: events.list_spans(db, instances.get_traces(db, instance.id), instance.id))

    async def list_events(self, ctx: Context, message: ListEvents) -> list[Event]:
        found = await resolve(self.db, ctx, message.instance_id) if message.instance_id else None
        return await self.db.read(
            lambda db: events.list_after(
                db, message.after, project_id=ctx.project_id, instance_id=found.id if found else None
            )
        )

    async def get_guest_metadata(self, ctx: Context, message: GetGuestMetadata) -> GuestMetadata:
        instance = await self.db.read(lambda db: instances.find_live(db, message.instance_id))
        if instance is None or not (ctx.is_admin or instance.project_id == ctx.project_id):
            raise NotFound(f"there is no live instance {message.instance_id}")
        order = await self.db.read(lambda db: instances.get_order(db, instance.id))
        host = self.hosts.get(instance.host or "")
        return GuestMetadata(
            instance=instance,
            region=self.region,
            availability_zone=(host.availability_zone if host else instance.availability_zone) or DEFAULT_ZONE,
            public_key=order.public_key,
            kernel_id=order.kernel.id if order.kernel else None,
            ramdisk_id=order.ramdisk.id if order.ramdisk else None,
            user_data=await self.db.read(lambda db: instances.get_user_data(db, instance.id)),
            personality=await self.db.read(lambda db: instances.get_personality(db, instance.id)),
        )


async def resolve(db: Database, ctx: Context, name_or_id: str) -> Instance:
    """In the caller's project first; an admin may then reach any other by its id."""
    try:
        return await db.read(lambda rows: instances.resolve(rows, ctx.project_id, name_or_id))
    except NotFound:
        if not ctx.is_admin:
            raise
        return await db.read(lambda rows: instances.resolve(rows, None, name_or_id))


async def _or_none(asking: Awaitable[T]) -> T | None:
    try:
        return await asking
    except LauncherError as error:
        log.info("no evidence: %s", error)
        return None
