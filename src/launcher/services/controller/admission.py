"""Accepting a launch: everything that can be refused is refused here, in one transaction; what is accepted will end."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from launcher.bus import Bus
from launcher.clock import Clock
from launcher.db import idempotency, images, instances, key_pairs, limits, members, security_groups
from launcher.db.database import Database
from launcher.db.instances import Usage
from launcher.errors import BadRequest, BusError, LauncherError, NotFound, QuotaExceeded
from launcher.failpoints import failpoint
from launcher.identity import new_mac, new_reservation_id, new_uuid
from launcher.messages.instances import CreateInstances
from launcher.messages.network import CheckNetworks
from launcher.messages.scheduler import ScheduleInstance
from launcher.messaging import Context
from launcher.models import Event, Flavor, Image, ImageKind, Instance, LaunchOrder, Nic, Personality, Quotas
from launcher.services.controller.journal import Journal

USER_DATA_LIMIT = 65536
FILE_LIMIT = 10240
MAC_ATTEMPTS = 20

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What one request comes to once its flavor and the quota are known."""

    ctx: Context
    request: CreateInstances
    flavor: Flavor
    count: int
    reservation_id: str
    group_ids: tuple[int, ...]


class Admission:
    """Answers CreateInstances."""

    def __init__(
        self,
        *,
        db: Database,
        bus: Bus,
        clock: Clock,
        rng: Random,
        journal: Journal,
        quotas: Quotas,
        flavors: Mapping[str, Flavor],
        build_timeout: float,
        first_look: float,
    ) -> None:
        self.db, self.bus, self.clock, self.rng, self.journal = db, bus, clock, rng, journal
        self.quotas, self.flavors = quotas, flavors
        self.build_timeout, self.first_look = build_timeout, first_look

    async def create_instances(self, ctx: Context, request: CreateInstances) -> list[Instance]:
        """Commit, then cast to the scheduler. A cast that fails is repeated by the reconcile loop."""
        _check(request)
        if request.networks:
            wanted = tuple((nic.network, nic.address) for nic in request.networks)
            await self.bus.call(ctx, CheckNetworks(nics=wanted))
        async with failpoint("accept"):
            made, orders, noted = await self.db.write(lambda db: self._accept(db, ctx, request))
        await self.journal.publish(ctx, *noted)
        for order in orders:
            try:
                async with failpoint("cast.schedule"):
                    await self.bus.cast(ctx, ScheduleInstance(order=order))
            except BusError as error:
                log.warning("%s: accepted, not yet sent to the scheduler: %s", order.name, error)
        return made

    def _accept(
        self, db: sqlite3.Connection, ctx: Context, request: CreateInstances
    ) -> tuple[list[Instance], list[LaunchOrder], list[Event]]:
        """The whole decision in one transaction, so that two requests cannot share the last of a quota."""
        digest = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
        if request.idempotency_key:
            known = idempotency.find(db, ctx.project_id, request.idempotency_key, digest)
            if known is not None:
                return [instances.get(db, instance_id) for instance_id in known], [], []
        flavor, quotas = self._flavor(request.flavor), limits.get(db, ctx.project_id, self.quotas)
        _check_metadata(request, quotas)
        count = _allowed(instances.get_usage(db, ctx.project_id), quotas, request, flavor)
        groups = security_groups.choose(db, ctx.project_id, request.security_groups, quotas.groups_per_instance)
        plan = Plan(ctx, request, flavor, count, new_reservation_id(self.rng), groups)
        orders = [self._create(db, plan, index) for index in range(count)]
        made = [instances.get(db, order.instance_id) for order in orders]
        noted = [self.journal.note(db, instance) for instance in made]
        if request.idempotency_key:
            ids = [instance.id for instance in made]
            idempotency.keep(db, ctx.project_id, request.idempotency_key, digest, ids, self.clock.now_ms())
        return made, orders, noted

    def _flavor(self, name: str) -> Flavor:
        if name not in self.flavors:
            raise NotFound(f"there is no flavor {name!r}", hint=f"there are: {', '.join(self.flavors)}", field="flavor")
        return self.flavors[name]

    def _create(self, db: sqlite3.Connection, plan: Plan, index: int) -> LaunchOrder:
        """One instance's row, and the order that carries what was decided here."""
        number, now = instances.next_number(db), self.clock.now_ms()
        name = _display_name(plan.request.name, number, index, plan.count)
        order = self._order(db, plan, number, name)
        instances.create(
            db,
            order,
            name=name,
            user_id=plan.ctx.user_id,
            key_name=plan.request.key_name,
            metadata=plan.request.metadata,
            personality=plan.request.personality,
            shutdown_behaviour=plan.request.shutdown_behaviour,
            protected=plan.request.protected,
            words={
                "user_data": plan.request.user_data,
                "description": plan.request.description,
                "labels": json.dumps(list(dict.fromkeys(plan.request.labels))),
            },
            reservation_id=plan.reservation_id,
            launch_index=index,
            request_id=plan.ctx.request_id,
            trace_id=plan.ctx.trace_id,
            now_ms=now,
            next_check_ms=now + self.first_look * 1000,
            deadline_ms=now + self.build_timeout * 1000,
        )
        members.put(db, number, plan.group_ids)
        return order

    def _order(self, db: sqlite3.Connection, plan: Plan, number: int, name: str) -> LaunchOrder:
        request, project = plan.request, plan.ctx.project_id
        machine, kernel, ramdisk = boot_images(db, plan.ctx, request.image, plan.flavor)
        return LaunchOrder(
            instance_id=new_uuid(self.rng),
            number=number,
            generation=1,
            project_id=project,
            hostname=_hostname(name, number),
            nics=self._nics(db, request),
            flavor=plan.flavor,
            image=machine,
            kernel=kernel,
            ramdisk=ramdisk,
            public_key=key_pairs.get(db, project, request.key_name).public_key if request.key_name else None,
            personal=request.personality != Personality(),
            config_drive=request.config_drive,
            availability_zone=request.availability_zone,
        )

    def _nics(self, db: sqlite3.Connection, request: CreateInstances) -> tuple[Nic, ...]:
        """One for each network asked for, else one in the project's usual network; no two with one MAC."""
        macs: set[str] = set()
        for _ in range(MAC_ATTEMPTS + len(request.networks)):
            mac = new_mac(self.rng)
            if not instances.mac_taken(db, mac):
                macs.add(mac)
            if len(macs) == max(1, len(request.networks)):
                wanted = [each.model_dump() for each in request.networks] or [{}]
                return tuple(Nic(mac=mac, **nic) for mac, nic in zip(sorted(macs), wanted, strict=True))
        raise LauncherError(f"no free MAC address in {MAC_ATTEMPTS} attempts")


def _allowed(used: Usage, quotas: Quotas, request: CreateInstances, flavor: Flavor) -> int:
    """As many of `max_count` as the quota allows; QuotaExceeded when that is less than `min_count`."""
    rooms = {
        "instances": (quotas.instances, used.instances, 1),
        "cores": (quotas.cores, used.vcpus, flavor.vcpus),
        "memory_mb": (quotas.memory_mb, used.memory_mb, flavor.memory_mb),
    }
    allowed = {name: max(0, (limit - held) // each) for name, (limit, held, each) in rooms.items()}
    tightest = min(allowed, key=lambda name: allowed[name])
    if allowed[tightest] < request.min_count:
        limit, held, each = rooms[tightest]
        raise QuotaExceeded(
            f"quota of {tightest} exceeded: {held} of {limit} in use, {each * request.min_count} more needed",
            hint="delete an instance, or ask an administrator for more (`launcher project quota`)",
        )
    return min(request.max_count, allowed[tightest])


def _check(request: CreateInstances) -> None:
    """What can be said without the database."""
    if request.min_count > request.max_count:
        raise BadRequest("min_count is larger than max_count", field="min_count")
    if request.max_count > 1 and any(nic.address for nic in request.networks):
        raise BadRequest("several instances cannot have one address", field="networks")
    if any(len(text) > 255 for item in request.metadata.items() for text in item):
        raise BadRequest("metadata keys and values have at most 255 characters", field="metadata")
    if request.user_data is not None:
        check_user_data(request.user_data)
    for file in request.personality.files:
        _check_encoded(file.content, "personality", FILE_LIMIT)


def _check_metadata(request: CreateInstances, quotas: Quotas) -> None:
    if len(request.metadata) > quotas.metadata_items:
        raise QuotaExceeded(f"at most {quotas.metadata_items} metadata items are allowed", field="metadata")


def check_user_data(encoded: str) -> None:
    """Raises BadRequest when it is not base64, or of too much."""
    _check_encoded(encoded, "user_data", USER_DATA_LIMIT)


def _check_encoded(encoded: str, field: str, limit: int) -> None:
    try:
        size = len(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        raise BadRequest(f"{field} is not base64", hint="encode it, e.g. `base64 -w0 FILE`", field=field) from None
    if size > limit:
        raise BadRequest(f"{field} has {size} bytes, {limit} are allowed", field=field)


def boot_images(
    db: sqlite3.Connection, ctx: Context, name_or_id: str, flavor: Flavor
) -> tuple[Image, Image | None, Image | None]:
    """The machine image, and the kernel and ramdisk that it names. Raises Conflict while one of them is not active."""
    machine = images.get(db, ctx.project_id, name_or_id, is_admin=ctx.is_admin)
    if machine.kind is not ImageKind.MACHINE:
        raise BadRequest(f"{machine.name} is a {machine.kind} image, not a machine image", field="image")
    content = machine.content()
    needs = {
        "MB of memory": (machine.min_memory_mb, flavor.memory_mb),
        "GB of disk": (machine.min_disk_gb, flavor.root_gb or machine.min_disk_gb),
    }
    for what, (needed, given) in needs.items():
        if given < needed:
            raise BadRequest(
                f"{machine.name} needs {needed} {what}, {flavor.name} has {given}",
                hint="take a larger flavor",
                field="flavor",
            )
    kernel = images.get_by_id(db, machine.kernel_id).content() if machine.kernel_id else None
    ramdisk = images.get_by_id(db, machine.ramdisk_id).content() if machine.ramdisk_id else None
    return content, kernel, ramdisk


def _display_name(asked: str | None, number: int, index: int, count: int) -> str:
    if asked is None:
        return f"server-{number}"
    return asked if count == 1 else f"{asked}-{index + 1}"


def _hostname(name: str, number: int) -> str:
    """Lower case, letters, digits and inner dashes, at most 63; never empty."""
    words = re.sub(r"[^a-z0-9-]+", "-", name.lower().replace("_", "-")).strip("-")[:63].strip("-")
    return words or f"server-{number}"
