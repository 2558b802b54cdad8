"""What an instance boots from after its launch: a root made anew from an image, or for a while another's (rescue)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from launcher.db import key_pairs, roots
from launcher.db.instances import get_order
from launcher.errors import BadRequest
from launcher.life import Action
from launcher.messages.life import RebuildInstance, RescueInstance
from launcher.messaging import Context, Route
from launcher.models import Boot, Image, Instance, LaunchOrder
from launcher.services.controller.admission import boot_images
from launcher.services.controller.life import Life

GIB = 2**30


class Roots:
    """The row says it before the host is told, so whatever is killed, the host is told the same again."""

    def __init__(self, *, life: Life) -> None:
        self.life = life

    @property
    def routes(self) -> Sequence[Route]:
        return [RebuildInstance.to(self.rebuild_instance), RescueInstance.to(self.rescue_instance)]

    async def rebuild_instance(self, ctx: Context, message: RebuildInstance) -> Instance:
        def renew(db: sqlite3.Connection, instance: Instance) -> None:
            order, key = get_order(db, instance.id), {}
            image, kernel, ramdisk = boot_images(db, ctx, message.image or order.image.id, order.flavor)
            _check_room(order, image)
            if message.key_name is not None:
                pair = key_pairs.get(db, instance.project_id, message.key_name)
                key = {"public_key": pair.public_key}
            changed = order.model_copy(update={"image": image, "kernel": kernel, "ramdisk": ramdisk, **key})
            roots.put(db, instance, changed, message.key_name or instance.key_name)

        return await self.life.act(ctx, message.instance_id, Action.REBUILD, timeout_s=0, also=renew)

    async def rescue_instance(self, ctx: Context, message: RescueInstance) -> Instance:
        def choose(db: sqlite3.Connection, instance: Instance) -> None:
            order = get_order(db, instance.id)
            image, kernel, ramdisk = boot_images(db, ctx, message.image or order.image.id, order.flavor)
            _check_room(order, image)
            roots.put_rescue(db, instance, Boot(image=image, kernel=kernel, ramdisk=ramdisk))

        return await self.life.act(ctx, message.instance_id, Action.RESCUE, also=choose)


def _check_room(order: LaunchOrder, image: Image) -> None:
    """Said before the disk that is there goes."""
    if order.flavor.root_gb and order.flavor.root_gb * GIB < image.virtual_size:
        raise BadRequest(
            f"{image.name} needs {image.virtual_size / GIB:.1f} GiB of root disk,"
            f" {order.flavor.name} has {order.flavor.root_gb}",
            field="image",
        )
