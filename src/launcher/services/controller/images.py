"""The image catalogue as its users see it: begun, shown, changed, deleted. How bytes come is `imports.py`'s."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from launcher.clock import Clock
from launcher.db import accounts, idempotency, images, limits
from launcher.db.database import Database
from launcher.drivers.images.vault import Downloads, Vault
from launcher.errors import BadRequest, Conflict, Forbidden, LauncherError, NotFound, QuotaExceeded
from launcher.identity import new_uuid
from launcher.images import COPY, KNOWN, UPLOAD, CatalogueImage, ImageState, KnownImage, Ticket, check_url
from launcher.messages.images import (
    BeginUpload,
    CopyImage,
    CreateImage,
    DeleteImage,
    EndUpload,
    GetImage,
    ImageChanges,
    ImageRequest,
    ListImages,
    ListKnownImages,
    OpenImage,
    RegisterImage,
    UpdateImage,
)
from launcher.messaging import Context, Route
from launcher.models import Image, ImageKind, Quotas
from launcher.services.controller.image_door import ImageDoor
from launcher.services.controller.imports import Imports, arrival_name

ReadImage = Callable[[str], Awaitable[Sequence[Image]]]
LIVE = frozenset(ImageState) - {ImageState.DELETED}
WAITING = frozenset({ImageState.QUEUED, ImageState.ERROR})


@dataclass(frozen=True)
class ImageSupply:
    """Where images come from and where they go; the drivers behind it are the composition root's choice.

    `read_image` looks a name up in the image library, `library` is what is in it at the start. `most` is the size of
    the largest image, in bytes, of the file as of the disk. `listener` is where other hosts fetch them, if anywhere.
    """

    read_image: ReadImage
    library: Sequence[Image]
    known: Mapping[str, KnownImage]
    vault: Vault
    downloads: Downloads
    most: int
    listener: socket.socket | None = None


class Images:
    """Who may do what with which image."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        rng: Random,
        usual_quotas: Quotas,
        supply: ImageSupply,
    ) -> None:
        self.db, self.clock, self.rng, self.quotas = db, clock, rng, usual_quotas
        self.supply, self.known = supply, supply.known
        self.imports = Imports(db=db, clock=clock, vault=supply.vault, downloads=supply.downloads, most=supply.most)
        self.door = ImageDoor(db=db, clock=clock, rng=rng, vault=supply.vault, listener=supply.listener)

    @property
    def routes(self) -> Sequence[Route]:
        return [
            RegisterImage.to(self.register_image),
            CreateImage.to(self.create_image),
            CopyImage.to(self.copy_image),
            ListImages.to(self.list_images),
            ListKnownImages.to(self.list_known_images),
            GetImage.to(self.get_image),
            UpdateImage.to(self.update_image),
            DeleteImage.to(self.delete_image),
            BeginUpload.to(self.begin_upload),
            EndUpload.to(self.end_upload),
            OpenImage.to(self.open_image),
            *self.door.routes,
        ]

    async def start(self) -> None:
        await self.register(self.supply.library, revive=False)
        await self.imports.start()
        await self.door.start()

    async def stop(self) -> None:
        await self.door.stop()
        await self.imports.stop()

    async def register_image(self, ctx: Context, message: RegisterImage) -> list[CatalogueImage]:
        found = list(await self.supply.read_image(message.name))
        await self.register(found)
        return await self.db.read(lambda db: [images.get_by_id(db, image.id) for image in found])

    async def register(self, found: Sequence[Image], *, revive: bool = True) -> None:
        await self.db.write(lambda db: images.register(db, found, self.clock.now_ms(), revive=revive))

    async def create_image(self, ctx: Context, message: CreateImage) -> CatalogueImage:
        request = self._known(message.request) if message.request.source.startswith(KNOWN) else message.request
        if request.source != UPLOAD:
            check_url(request.source)
        _check_public(ctx, public=request.public)
        image = await self.db.write(lambda db: self._create(db, ctx, request))
        if image.state is ImageState.IMPORTING:
            self.imports.begin(image)
        return self.imports.progress_of(image)

    def _known(self, request: ImageRequest) -> ImageRequest:
        """What the list says, unless the request says otherwise. Raises NotFound."""
        name = request.source.removeprefix(KNOWN)
        if name not in self.known:
            raise NotFound(f"no image is known as {name!r}", hint="see `launcher image known`", field="source")
        found = self.known[name]
        is_checksum = found.checksum.startswith(("sha256:", "sha512:"))
        told = {
            "architecture": found.architecture,
            "min_disk_gb": found.min_disk_gb,
            "min_memory_mb": found.min_memory_mb,
            "description": f"{found.title}; log in as {found.user}",
            "checksum": found.checksum if is_checksum else None,
            "checksum_source": "" if is_checksum else found.checksum,
        }
        said = request.model_dump(exclude_defaults=True)
        return ImageRequest.model_validate({**told, **said, "source": found.url})

    def _create(self, db: sqlite3.Connection, ctx: Context, request: ImageRequest) -> CatalogueImage:
        """The same import again is the one that is there; a bound and a look for it in one transaction."""
        if request.source != UPLOAD and not request.refresh:
            known = images.find_import(db, ctx.project_id, request.name, request.source)
            if known is not None:
                return known
        self.refuse_beyond_quota(db, ctx.project_id)
        boot = self._boot_ids(db, ctx, request.kind, request.kernel_id, request.ramdisk_id)
        now = int(self.clock.now_ms())
        image = CatalogueImage(
            **{**request.model_dump(exclude={"refresh"}), **boot},
            id=new_uuid(self.rng),
            project_id=ctx.project_id,
            state=ImageState.QUEUED if request.source == UPLOAD else ImageState.IMPORTING,
            created_ms=now,
            updated_ms=now,
        )
        return images.create(db, image, now)

    def refuse_beyond_quota(self, db: sqlite3.Connection, project_id: str) -> None:
        """Unless the project may have one more."""
        used, limit = images.count(db, project_id), limits.get(db, project_id, self.quotas).images
        if used >= limit:
            raise QuotaExceeded(
                f"quota of images exceeded: {used} of {limit} in use",
                hint="delete an image, or raise [quotas] in config.toml",
            )

    def _boot_ids(
        self, db: sqlite3.Connection, ctx: Context, kind: ImageKind, kernel: str | None, ramdisk: str | None
    ) -> dict[str, str]:
        """The ids of the kernel and the ramdisk that a machine image names. Raises BadRequest, NotFound."""
        wanted = {"kernel_id": (kernel, ImageKind.KERNEL), "ramdisk_id": (ramdisk, ImageKind.RAMDISK)}
        found = {}
        for field, (name, of_kind) in wanted.items():
            if name:
                if kind is not ImageKind.MACHINE:
                    raise BadRequest(f"a {kind} image boots by no {of_kind}", field=field)
                image = images.get(db, ctx.project_id, name, is_admin=ctx.is_admin)
                if image.kind is not of_kind:
                    raise BadRequest(f"{image.name} is a {image.kind} image, not a {of_kind}", field=field)
                found[field] = image.id
        return found

    async def list_images(self, ctx: Context, message: ListImages) -> list[CatalogueImage]:
        found = await self.db.read(lambda db: images.list_visible(db, ctx.project_id, is_admin=ctx.is_admin))
        return [self.imports.progress_of(image) for image in found]

    async def list_known_images(self, ctx: Context, message: ListKnownImages) -> list[KnownImage]:
        return list(self.known.values())

    async def get_image(self, ctx: Context, message: GetImage) -> CatalogueImage:
        return self.imports.progress_of(await self._get(ctx, message.image))

    async def update_image(self, ctx: Context, message: UpdateImage) -> CatalogueImage:
        changes = message.changes.model_dump(exclude_none=True, exclude={"projects_more", "projects_less"})
        _check_public(ctx, public=bool(changes.get("public")))

        def work(db: sqlite3.Connection) -> CatalogueImage | None:
            image = _own(db, ctx, message.image)
            boot = self._boot_ids(db, ctx, image.kind, changes.get("kernel_id"), changes.get("ramdisk_id"))
            cleared = {field: None for field in ("kernel_id", "ramdisk_id") if changes.get(field) == ""}
            shared = _shared(db, image, message.changes)
            return images.change(db, image.id, LIVE, self.clock.now_ms(), **{**changes, **boot, **cleared, **shared})

        return self.imports.progress_of(_there(await self.db.write(work)))

    async def copy_image(self, ctx: Context, message: CopyImage) -> CatalogueImage:
        def work(db: sqlite3.Connection) -> CatalogueImage:
            key, now = message.idempotency_key, self.clock.now_ms()
            copied = idempotency.once(db, ctx.project_id, key, message, now, lambda: self._copy(db, ctx, message))
            return images.get_by_id(db, copied)

        return await self.db.write(work)

    def _copy(self, db: sqlite3.Connection, ctx: Context, message: CopyImage) -> str:
        """A row of its own; the bytes are kept once, as long as one of both needs them."""
        source = images.get(db, ctx.project_id, message.image, is_admin=ctx.is_admin)
        source.content()
        self._boot_ids(db, ctx, source.kind, source.kernel_id, source.ramdisk_id)
        self.refuse_beyond_quota(db, ctx.project_id)
        now = int(self.clock.now_ms())
        told = {"name": message.name, "description": message.description, "source": f"{COPY}{source.id}"}
        new = {"id": new_uuid(self.rng), "project_id": ctx.project_id, "public": False, "projects": ()}
        copy = source.model_copy(update={**told, **new, "created_ms": now, "updated_ms": now})
        return images.create(db, copy, now).id

    async def delete_image(self, ctx: Context, message: DeleteImage) -> CatalogueImage:
        def work(db: sqlite3.Connection) -> CatalogueImage | None:
            image = _own(db, ctx, message.image)
            if dependents := images.list_dependents(db, image.id):
                raise Conflict(f"{', '.join(dependents)} boots by {image.name}", hint="delete that first")
            users = images.count_users(db, image.id)
            reason = f"{users} instances still need its bytes" if users else ""
            return images.change(
                db, image.id, LIVE, self.clock.now_ms(), state=ImageState.DELETED, reason=reason, progress=None
            )

        image = _there(await self.db.write(work))
        await self.imports.cancel(image.id)
        await self.imports.sweep()
        return image

    async def begin_upload(self, ctx: Context, message: BeginUpload) -> Ticket:
        def work(db: sqlite3.Connection) -> CatalogueImage:
            image = _own(db, ctx, message.image)
            if image.source != UPLOAD or image.state not in WAITING:
                raise Conflict(f"the image {image.name} is {image.state} and waits for no upload")
            now = self.clock.now_ms()
            return _there(images.change(db, image.id, WAITING, now, state=ImageState.SAVING, reason=""))

        image = await self.db.write(work)
        sha512 = (image.checksum or "").startswith("sha512:")
        return Ticket(image_id=image.id, most=self.imports.most, sha512=sha512)

    async def end_upload(self, ctx: Context, message: EndUpload) -> CatalogueImage:
        image = await self.db.read(lambda db: _own(db, ctx, message.image_id))
        if image.state is not ImageState.SAVING:
            raise Conflict(f"the image {image.name} is {image.state}, and not being uploaded")
        try:
            if message.received is None:
                return _there(await self.imports.fail(image.id, image.state, message.failure))
            return _there(await self.imports.admit(image, arrival_name(image), message.received))
        except LauncherError as error:
            await self.imports.fail(image.id, image.state, str(error))
            raise
        finally:
            await self.imports.sweep()

    async def open_image(self, ctx: Context, message: OpenImage) -> Ticket:
        image = await self._get(ctx, message.image)
        content = image.content()
        return Ticket(image_id=image.id, most=content.size, path=content.path, sha256=content.sha256)

    async def _get(self, ctx: Context, name: str) -> CatalogueImage:
        return await self.db.read(lambda db: images.get(db, ctx.project_id, name, is_admin=ctx.is_admin))


def _own(db: sqlite3.Connection, ctx: Context, name: str) -> CatalogueImage:
    """An image that the asking project may change. Raises NotFound, Forbidden."""
    image = images.get(db, ctx.project_id, name, is_admin=ctx.is_admin)
    if image.project_id != ctx.project_id and not ctx.is_admin:
        raise Forbidden(f"the image {image.name} belongs to another project")
    return image


def _shared(db: sqlite3.Connection, image: CatalogueImage, changes: ImageChanges) -> dict[str, tuple[str, ...]]:
    """Who may use it, too, after projects came or went. Raises NotFound for one that comes and is none."""
    if not changes.projects_more and not changes.projects_less:
        return {}
    more = [accounts.get_project(db, each).id for each in changes.projects_more]
    less = {*changes.projects_less, *accounts.find_ids(db, changes.projects_less)}
    kept = (*(image.projects if changes.projects is None else changes.projects), *more)
    return {"projects": tuple(dict.fromkeys(each for each in kept if each not in less))}


def _there(image: CatalogueImage | None) -> CatalogueImage:
    if image is None:
        raise Conflict("the image has moved on meanwhile", hint="look again: `launcher image show`")
    return image


def _check_public(ctx: Context, *, public: bool) -> None:
    if public and not ctx.is_admin:
        raise Forbidden("only an admin may let every project use an image", hint="share it with projects by name")
