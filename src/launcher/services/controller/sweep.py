"""The audit when somebody asks for it, the removal of what nobody owns, and the sweep that does both by itself.

The sweep also has put back what a running instance misses.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from launcher.auditing import (
    NOBODY,
    Artefact,
    ArtefactKind,
    ArtefactsRemoved,
    Audit,
    AuditHosts,
    Collected,
    CollectGarbage,
    Finding,
    HostsAudited,
    ListArtefacts,
    ListLeases,
    Look,
    PublishLeases,
    RemoveArtefacts,
    RemoveVolume,
    Trouble,
    UnplugVolume,
)
from launcher.bus import Bus
from launcher.db import life, owners, volume_owners
from launcher.db.database import Database
from launcher.errors import BusError, Conflict, LauncherError
from launcher.messages.compute import VerifyInstance
from launcher.messages.network import ReleaseFixedIp
from launcher.messaging import Context, Notice, Route
from launcher.models import InstanceRef
from launcher.services.controller.audit import OF_VOLUMES, compare, due
from launcher.services.controller.imports import Imports
from launcher.services.controller.volume_audit import compare_volumes

T = TypeVar("T")
log = logging.getLogger(__name__)

LOOK_TIMEOUT = 15.0
AT_ONCE = 8
LOOKS = 2
"""In so many looks in a row the sweep must have seen a thing."""

COLLECTED = {Trouble.OWNERLESS, Trouble.STALE, Trouble.UNKNOWN}
VERIFIED = {ArtefactKind.DOMAIN, ArtefactKind.CHAIN, ArtefactKind.TAP, ArtefactKind.PLUGGED}
PUBLISHED = {ArtefactKind.DHCP, ArtefactKind.FLOATING}
SWEPT = {Trouble.OWNERLESS, Trouble.STALE}
"""What is unknown is left to a person. No crash makes such things, because the row comes first and stays for ever;
a database put back from a copy and a second launcher on the host do, and then they are somebody's guests."""


class Sweep:
    """`hosts` names the compute hosts that were ever heard of, `context` is for looks that nobody asked for."""

    def __init__(
        self, *, db: Database, bus: Bus, hosts: Iterable[str], imports: Imports, context: Callable[[], Context]
    ) -> None:
        self.db, self.bus, self.hosts, self.imports, self.context = db, bus, hosts, imports, context
        self.seen: dict[Finding, int] = {}
        self.limit = asyncio.Semaphore(AT_ONCE)

    @property
    def routes(self) -> Sequence[Route]:
        return [AuditHosts.to(self.audit_hosts), CollectGarbage.to(self.collect_garbage)]

    async def audit_hosts(self, ctx: Context, message: AuditHosts) -> Audit:
        return await self._look(ctx)

    async def collect_garbage(self, ctx: Context, message: CollectGarbage) -> Collected:
        audit = await self._look(ctx)
        wanted = [finding for finding in audit.findings if finding.trouble in COLLECTED]
        if message.dry_run:
            await self._refuse_when_lost(wanted)
            return Collected(dry_run=True, removed=tuple(wanted))
        return await self._remove(ctx, audit, wanted)

    async def sweep(self) -> Sequence[Finding]:
        """Remove what was seen before, too, all of an instance at once; what is not ours to remove, say once.

        Returns what is gone.
        """
        ctx = self.context()
        audit = await self._look(ctx)
        self.seen = {finding: self.seen.get(finding, 0) + 1 for finding in audit.findings}
        for finding, looks in self.seen.items():
            if looks == LOOKS and finding.trouble not in SWEPT:
                log.warning("sweep: %s; see `launcher audit`", words(finding))
        fresh = {_whose(finding) for finding, looks in self.seen.items() if looks < LOOKS}
        swept = [finding for finding in audit.findings if finding.trouble in SWEPT]
        wanted = [each for each in swept if _whose(each) not in fresh]
        collected = await self._remove(ctx, audit, wanted)
        await self._put_back(ctx, [finding for finding, looks in self.seen.items() if looks >= LOOKS])
        return collected.removed

    async def _put_back(self, ctx: Context, findings: Sequence[Finding]) -> None:
        """Have the host verify what misses something: it applies filters and links anew, or reports that the machine
        is gone, which it does only once by itself, and that word can be lost. The network tells its servers anew.
        """
        if any(finding.trouble is Trouble.MISSING and finding.kind in PUBLISHED for finding in findings):
            with contextlib.suppress(BusError):
                await self.bus.call(ctx, PublishLeases())
        for host in {finding.host for finding in findings if finding.trouble is Trouble.MISSING and finding.host}:
            missing = {finding.instance_id for finding in findings if finding.host == host and finding.kind in VERIFIED}
            for each in await self._read(functools.partial(life.list_held, host=host)):
                if each.order.instance_id in missing:
                    with contextlib.suppress(BusError):
                        await self.bus.cast(ctx, VerifyInstance(order=each.order, running=each.running), host=host)

    # --- looking ---------------------------------------------------------------------------------

    async def _look(self, ctx: Context) -> Audit:
        """The rows before and after the hosts, so that what moves meanwhile is not judged."""
        before, volumes_before = await self._read(owners.list_live), await self._read(volume_owners.list_live)
        hosts = {*self.hosts, *(owner.host for owner in before if owner.host and due(owner))}
        asked: dict[str, Callable[[], Awaitable[Look]]] = {
            host: functools.partial(self.bus.call, ctx, ListArtefacts(), host=host, timeout=LOOK_TIMEOUT)
            for host in sorted(hosts)
        }
        asked["network"] = functools.partial(self.bus.call, ctx, ListLeases(), timeout=LOOK_TIMEOUT)
        answers = await asyncio.gather(*(_or_none(name, ask) for name, ask in asked.items()))
        looks = [answer for answer in answers if answer is not None]
        artefacts = [artefact for look in looks for artefact in look.artefacts]
        ids = {artefact.instance_id for artefact in artefacts if artefact.instance_id}
        numbers = {artefact.number for artefact in artefacts if artefact.number}
        after = await self._read(lambda db: owners.list_named(db, ids, numbers))
        volumes = {number for artefact in artefacts if (number := _volume_number(artefact))}
        volumes_after = await self._read(lambda db: volume_owners.list_named(db, volumes))
        of_volumes = compare_volumes(volumes_before, looks, volumes_after)
        findings = (*compare(before, looks, after), *of_volumes, *await self.imports.look())
        await self._tell(ctx, HostsAudited(found=findings))
        return Audit(
            findings=findings,
            instances=len(before),
            artefacts=len(artefacts),
            silent=tuple(name for name, answer in zip(asked, answers, strict=True) if answer is None),
        )

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self.db.read(work)
        except sqlite3.Error as error:
            raise LauncherError(
                f"the database cannot be read, so nothing is known to be ownerless: {error}",
                hint="put controller.db of the state directory back from a copy",
            ) from error

    # --- removing --------------------------------------------------------------------------------

    async def _refuse_when_lost(self, findings: Sequence[Finding]) -> None:
        """Artefacts without a single row: a lost state directory is no order to end every guest."""
        lost = [each for each in findings if (each.kind, each.trouble) != (ArtefactKind.IMAGE, Trouble.OWNERLESS)]
        never_used = await self._read(owners.is_empty)
        if lost and never_used:
            raise Conflict(
                f"{len(lost)} artefacts are on the hosts, this database never had an instance: nothing is removed",
                hint="is this the right state directory? Else remove them by hand: virsh, ip link, iptables-save",
            )

    async def _remove(self, ctx: Context, audit: Audit, findings: Sequence[Finding]) -> Collected:
        """From the hosts first; an address is free only when nothing of its instance is left on any host."""
        await self._refuse_when_lost(findings)
        errors: dict[Finding, str] = {}
        on_hosts, of_network = _grouped(findings)
        await asyncio.gather(*(self._attempt(ctx, group, errors) for group in on_hosts))
        kept = set(audit.findings) - (set(findings) - errors.keys())
        left = {finding.instance_id for finding in kept if finding.host and finding.instance_id}
        for group in of_network:
            is_image = group[0].kind is ArtefactKind.IMAGE
            if not is_image and (audit.silent or group[0].instance_id in left):
                errors |= dict.fromkeys(group, "what is on the hosts comes first")
            else:
                await self._attempt(ctx, group, errors)
        removed = tuple(finding for finding in findings if finding not in errors)
        failed = tuple(finding.model_copy(update={"reason": error}) for finding, error in errors.items())
        for done, what in ((removed, "removed"), (failed, "not removed")):
            for finding in done:
                log.warning("%s: %s", what, words(finding))
        if removed:
            await self._tell(ctx, ArtefactsRemoved(removed=removed))
        return Collected(dry_run=False, removed=removed, failed=failed)

    async def _attempt(self, ctx: Context, group: Sequence[Finding], errors: dict[Finding, str]) -> None:
        try:
            async with self.limit:
                await self._undo(ctx, group)
        except LauncherError as error:
            errors |= dict.fromkeys(group, str(error))

    async def _undo(self, ctx: Context, group: Sequence[Finding]) -> None:
        """Everything of one instance on one host, or in the network."""
        one, kinds = group[0], frozenset(finding.kind for finding in group)
        if one.host is not None and kinds & OF_VOLUMES:
            await self._undo_volumes(ctx, one.host, group)
        elif one.host is not None:
            await self.bus.call(ctx, RemoveArtefacts(ref=_ref(one), kinds=kinds), host=one.host)
        if ArtefactKind.LEASE in kinds and one.instance_id is not None:
            await self.bus.call(ctx, ReleaseFixedIp(instance_id=one.instance_id))
        if kinds & PUBLISHED:
            await self.bus.call(ctx, PublishLeases())
        if ArtefactKind.IMAGE in kinds:
            await self.imports.sweep(unknown=True)

    async def _undo_volumes(self, ctx: Context, host: str, group: Sequence[Finding]) -> None:
        """What is still plugged in first: it is in use."""
        for finding in group:
            ref = _ref(finding)
            if finding.kind is ArtefactKind.PLUGGED and ref is not None:
                await self.bus.call(ctx, UnplugVolume(ref=ref, name=finding.name), host=host)
        for finding in group:
            if finding.kind is ArtefactKind.VOLUME and finding.volume is not None:
                await self.bus.call(ctx, RemoveVolume(ref=finding.volume), host=host)

    async def _tell(self, ctx: Context, notice: Notice) -> None:
        with contextlib.suppress(BusError):
            await self.bus.notify(ctx, notice)


def words(finding: Finding) -> str:
    """A finding as a line of the log."""
    where = f" on {finding.host}" if finding.host else ""
    return f"{finding.trouble} {finding.kind} {finding.name}{where}: {finding.reason}"


def _ref(finding: Finding) -> InstanceRef | None:
    """What names it on its host; an export has no instance."""
    if finding.number is None:
        return None
    return InstanceRef(instance_id=finding.instance_id or NOBODY, number=finding.number)


def _whose(finding: Finding) -> tuple[str | None, ...]:
    """What is removed together: all of an instance on a host, and all of a volume."""
    if finding.kind in OF_VOLUMES:
        return finding.host, finding.name
    return finding.host, finding.instance_id


def _volume_number(artefact: Artefact) -> int | None:
    """Volumes and snapshots count together."""
    if artefact.kind not in OF_VOLUMES:
        return None
    try:
        return int(artefact.name.rpartition("-")[2], 16)
    except ValueError:
        return None


def _grouped(findings: Iterable[Finding]) -> tuple[list[list[Finding]], list[list[Finding]]]:
    """By host and instance or volume: first those on hosts, then the network's, and the vault's by themselves."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for finding in findings:
        number = None if finding.kind in OF_VOLUMES else finding.number
        is_image = finding.kind is ArtefactKind.IMAGE
        groups.setdefault((*_whose(finding), number, is_image), []).append(finding)
    found = list(groups.values())
    return [group for group in found if group[0].host], [group for group in found if not group[0].host]


async def _or_none(name: str, ask: Callable[[], Awaitable[Look]]) -> Look | None:
    try:
        return await ask()
    except LauncherError as error:
        log.warning("audit: %s gives no answer: %s", name, error)
        return None
