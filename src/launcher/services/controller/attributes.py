"""What an owner changes of an instance beside its state: attributes, flavor, protection, lock."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from launcher.db import attributes, instances, life, limits
from launcher.errors import BadRequest, NotFound, QuotaExceeded
from launcher.messages.attributes import LockInstance, ModifyInstance
from launcher.messaging import Context, Route
from launcher.models import Flavor, Instance, LaunchOrder, Quotas
from launcher.services.controller.admission import check_user_data
from launcher.services.controller.inventory import resolve
from launcher.services.controller.journal import Journal
from launcher.services.controller.reconcile import Reconcile


class Attributes:
    """Each change is one transaction, and one line of the event log."""

    def __init__(
        self,
        *,
        journal: Journal,
        reconcile: Reconcile,
        quotas: Quotas,
        flavors: Mapping[str, Flavor],
    ) -> None:
        self.db, self.journal, self.reconcile = journal.db, journal, reconcile
        self.quotas, self.flavors = quotas, flavors

    @property
    def routes(self) -> Sequence[Route]:
        return [ModifyInstance.to(self.modify_instance), LockInstance.to(self.lock_instance)]

    async def modify_instance(self, ctx: Context, message: ModifyInstance) -> Instance:
        """The host hears of a new size at once, for what it says of its resources."""
        found = await resolve(self.db, ctx, message.instance_id)
        given = [name for name in ModifyInstance.model_fields if getattr(message, name) is not None]
        if message.user_data:
            check_user_data(message.user_data)

        def move(db: sqlite3.Connection) -> Instance:
            instance = instances.get(db, found.id)
            attributes.refuse_ended(instance)
            attributes.refuse_locked(instance, by_admin=ctx.is_admin)
            if message.flavor is not None:
                self._resize(db, instance, message.flavor)
            if message.user_data is not None:
                attributes.refuse_unless_stopped(instance, "user_data")
            attributes.put(
                db,
                instance,
                name=message.name,
                user_data=message.user_data,
                shutdown_behaviour=message.shutdown_behaviour,
                protected=message.protected,
                description=message.description,
                labels=message.labels,
            )
            return instances.get(db, instance.id)

        changed = ", ".join(name for name in given if name != "instance_id") or "nothing"
        modified = await self.journal.record(ctx, move, message=f"changed: {changed}")
        if message.flavor is not None and modified.host is not None:
            order = await self.db.read(lambda db: instances.get_order(db, modified.id))
            await self.reconcile.verify(modified.host, [life.Held(order=order, running=False)])
        return modified

    async def lock_instance(self, ctx: Context, message: LockInstance) -> Instance:
        found = await resolve(self.db, ctx, message.instance_id)

        def move(db: sqlite3.Connection) -> Instance:
            instance = instances.get(db, found.id)
            attributes.refuse_ended(instance)
            if message.locked:
                attributes.lock(db, instance, message.reason, by_admin=ctx.is_admin)
            else:
                attributes.unlock(db, instance, by_admin=ctx.is_admin)
            return instances.get(db, instance.id)

        return await self.journal.record(ctx, move, message="locked" if message.locked else "unlocked")

    def _resize(self, db: sqlite3.Connection, instance: Instance, name: str) -> None:
        """By one transaction from one flavor to the other, so that nobody else gets what it needs more."""
        attributes.refuse_unless_stopped(instance, "flavor")
        flavor = self.flavors.get(name)
        if flavor is None:
            raise NotFound(f"there is no flavor {name!r}", hint=f"there are: {', '.join(self.flavors)}", field="flavor")
        order = instances.get_order(db, instance.id)
        _check_fits(order, flavor)
        quotas, used = limits.get(db, instance.project_id, self.quotas), instances.get_usage(db, instance.project_id)
        for what, limit, held, more in (
            ("cores", quotas.cores, used.vcpus, flavor.vcpus - instance.flavor.vcpus),
            ("memory_mb", quotas.memory_mb, used.memory_mb, flavor.memory_mb - instance.flavor.memory_mb),
        ):
            if more > 0 and held + more > limit:
                raise QuotaExceeded(f"quota of {what} exceeded: {held} of {limit} in use, {more} more needed")
        attributes.resize(db, instance, order, flavor)


def _check_fits(order: LaunchOrder, flavor: Flavor) -> None:
    """What a guest wrote is not cut off, and its image gets what it needs."""
    gib = 2**30
    has = order.flavor.root_gb * gib or order.image.virtual_size
    if (flavor.root_gb * gib or order.image.virtual_size) < has:
        raise BadRequest(
            f"{order.name} has a disk of {has / gib:.1f} GiB, and none shrinks to that of {flavor.name}", field="flavor"
        )
    if (flavor.ephemeral_gb, flavor.swap_mb) != (order.flavor.ephemeral_gb, order.flavor.swap_mb):
        raise BadRequest(f"{order.name} keeps its ephemeral and swap disks, {flavor.name} has others", field="flavor")
    if flavor.memory_mb < order.image.min_memory_mb:
        needs = f"{order.image.name} needs {order.image.min_memory_mb} MB of memory"
        raise BadRequest(f"{needs}, {flavor.name} has {flavor.memory_mb}", field="flavor")
