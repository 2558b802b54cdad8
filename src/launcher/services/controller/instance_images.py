"""Images made of instances: the row is there at once, and saving; the instance's task brings it on, its end ends it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from random import Random

from launcher.clock import Clock
from launcher.db import images, instances
from launcher.db.database import Database
from launcher.errors import Conflict, StaleGeneration
from launcher.identity import new_uuid
from launcher.images import INSTANCE, CatalogueImage, ImageState, Properties, Ticket
from launcher.life import Action
from launcher.messages.images import CreateImageOf, OpenSnapshot
from launcher.messaging import Context, Route
from launcher.models import Image, ImageKind, Instance, LaunchOrder, TaskState
from launcher.services.controller.image_door import ImageDoor
from launcher.services.controller.images import Images
from launcher.services.controller.life import Life

GIB = 2**30


class InstanceImages:
    """The image is of the instance's project, whoever asked for it: so are the data."""

    def __init__(self, *, db: Database, clock: Clock, rng: Random, life: Life, images: Images) -> None:
        self.db, self.clock, self.rng, self.life, self.images = db, clock, rng, life, images

    @property
    def routes(self) -> Sequence[Route]:
        return [CreateImageOf.to(self.create_image_of), OpenSnapshot.to(self.open_snapshot)]

    @property
    def door(self) -> ImageDoor:
        return self.images.door

    async def create_image_of(self, ctx: Context, message: CreateImageOf) -> CatalogueImage:
        made_id = new_uuid(self.rng)

        def make(db: sqlite3.Connection, instance: Instance) -> None:
            self.images.refuse_beyond_quota(db, instance.project_id)
            image = self._image(db, instance, message).model_copy(update={"id": made_id})
            images.create(db, image, image.created_ms)

        await self.life.act(ctx, message.instance_id, Action.SNAPSHOT, also=make)
        return await self.db.read(lambda db: images.get_by_id(db, made_id))

    async def open_snapshot(self, ctx: Context, message: OpenSnapshot) -> Ticket | None:
        """The host may have died after its last byte: then there is nothing left to bring."""

        def read(db: sqlite3.Connection) -> CatalogueImage | None:
            instance = instances.get(db, message.instance_id)
            at_it = instance.task_state is TaskState.IMAGE_SNAPSHOT
            if instance.generation != message.generation or not at_it:
                raise StaleGeneration(f"instance {message.instance_id} has moved on")
            return images.find_snapshot(db, message.instance_id)

        image = await self.db.read(read)
        return None if image is None else self.door.expect(image.id, most=self.images.imports.most)

    def _image(self, db: sqlite3.Connection, instance: Instance, message: CreateImageOf) -> CatalogueImage:
        """It boots as the instance did, and needs as much."""
        order, now = instances.get_order(db, instance.id), int(self.clock.now_ms())
        known = images.get_by_id(db, order.image.id)
        inherited = known.model_dump(include=set(Properties.model_fields) - {"public", "projects", "description"})
        inherited |= {
            "kernel_id": _bootable(db, order, order.kernel),
            "ramdisk_id": _bootable(db, order, order.ramdisk),
            "min_disk_gb": max(known.min_disk_gb, order.flavor.root_gb or -(-order.image.virtual_size // GIB)),
        }
        return CatalogueImage(
            **inherited,
            id="",
            name=message.name,
            kind=ImageKind.MACHINE,
            state=ImageState.SAVING,
            description=message.description,
            project_id=instance.project_id,
            source=INSTANCE + instance.id,
            public=False,
            created_ms=now,
            updated_ms=now,
        )


def _bootable(db: sqlite3.Connection, order: LaunchOrder, image: Image | None) -> str | None:
    """Raises Conflict when nothing could be launched by it any more."""
    if image is None:
        return None
    if images.get_by_id(db, image.id).state is ImageState.DELETED:
        raise Conflict(f"{order.name} boots by {image.name}, which was deleted: no other could be launched so")
    return image.id
