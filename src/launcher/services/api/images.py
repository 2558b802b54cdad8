"""Images in the native API. Bytes pass through here to the vault and from it; nothing is decided about them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web
from pydantic import Field

from launcher.bus import Bus
from launcher.drivers.images.vault import Vault
from launcher.errors import BadImage, BadRequest, Conflict, Forbidden, LauncherError, NotFound
from launcher.images import INSTANCE, LIBRARY, CatalogueImage, KnownImage, Pruned, Received, Ticket
from launcher.messages.images import (
    BeginUpload,
    CreateImage,
    CreateImageOf,
    DeleteImage,
    EndUpload,
    GetImage,
    ImageChanges,
    ImageRequest,
    ListImages,
    ListKnownImages,
    OpenImage,
    PruneImages,
    RegisterImage,
    UpdateImage,
)
from launcher.models import Model
from launcher.services.api.endpoint import Answer, Ask, Endpoint

PIECE = 2**18
QUIET = 60.0
"""Seconds without a byte after which an uploader is given up."""


class ImageBody(ImageRequest):
    """POST /images. The source "library", which is the default, is a directory on the server."""

    source: str = Field(
        default=LIBRARY,
        min_length=1,
        max_length=2048,
        description='"library", "upload" (then PUT /images/{id}/file), "known:NAME", an http or https URL, or'
        ' "instance:ID" for a copy of its root disk, which has a name, a description and else what the instance has',
    )


class ImageList(Model):
    images: list[CatalogueImage]


class KnownImageList(Model):
    known_images: list[KnownImage]


class NativeImages:
    """The endpoints and what they call on the bus."""

    def __init__(self, *, bus: Bus, vault: Vault) -> None:
        self.bus, self.vault = bus, vault

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        one = "/images/{image}"
        return [
            Endpoint(
                "POST",
                "/images",
                self.create_image,
                "Register an image, begin its import, or make one of an instance",
                status=201,
                body=ImageBody,
                response=ImageList,
                raises=(Forbidden, NotFound, BadImage, Conflict),
                traced=True,
            ),
            Endpoint("GET", "/images", self.list_images, "List images", response=ImageList),
            Endpoint(
                "GET", "/known-images", self.list_known_images, "List images that can be had", response=KnownImageList
            ),
            Endpoint("GET", one, self.get_image, "Show an image, and how far its import is", response=CatalogueImage),
            Endpoint(
                "PATCH",
                one,
                self.update_image,
                "Change what is said of an image, and who may use it",
                body=ImageChanges,
                response=CatalogueImage,
                raises=(Forbidden, Conflict),
            ),
            Endpoint(
                "DELETE",
                one,
                self.delete_image,
                "Delete an image; its bytes stay while an instance needs them",
                response=CatalogueImage,
                raises=(Forbidden, Conflict),
            ),
            Endpoint(
                "POST",
                "/image-copies/prune",
                self.prune_images,
                "Remove the hosts' copies of images that no instance uses",
                response=Pruned,
                raises=(Forbidden,),
            ),
            *self._bytes(f"{one}/file"),
        ]

    def _bytes(self, path: str) -> Sequence[Endpoint]:
        return [
            Endpoint(
                "PUT",
                path,
                self.upload_image,
                "Send an image's bytes; the answer comes when they have passed the gate",
                upload=True,
                response=CatalogueImage,
                raises=(Forbidden, Conflict, BadImage),
            ),
            Endpoint(
                "GET",
                path,
                self.download_image,
                "An image's bytes; parts of them by Range",
                or_status=206,
                response=str,
                content_type="application/octet-stream",
                raises=(Conflict,),
            ),
        ]

    async def create_image(self, ask: Ask) -> Answer:
        body: ImageBody = ask.body
        if body.source == LIBRARY:
            return Answer(ImageList(images=await self.bus.call(ask.ctx, RegisterImage(name=body.name))))
        if body.source.startswith(INSTANCE):
            return await self._create_image_of(ask)
        request = ImageRequest(**{name: getattr(body, name) for name in body.model_fields_set})
        made = await self.bus.call(ask.ctx, CreateImage(request=request))
        return Answer(ImageList(images=[made]), {"Location": f"/images/{made.id}"})

    async def _create_image_of(self, ask: Ask) -> Answer:
        """It boots as its instance does, so nothing can be said of that."""
        if beyond := ask.body.model_fields_set - {"name", "source", "description"}:
            raise BadRequest("an image of an instance is as the instance is", field=min(beyond))
        wanted = {"name": ask.body.name, "description": ask.body.description}
        message = CreateImageOf(instance_id=ask.body.source.removeprefix(INSTANCE), **wanted)
        made = await self.bus.call(ask.ctx, message)
        return Answer(ImageList(images=[made]), {"Location": f"/images/{made.id}"})

    async def list_images(self, ask: Ask) -> Answer:
        return Answer(ImageList(images=await self.bus.call(ask.ctx, ListImages())))

    async def list_known_images(self, ask: Ask) -> Answer:
        return Answer(KnownImageList(known_images=await self.bus.call(ask.ctx, ListKnownImages())))

    async def get_image(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, GetImage(image=ask.path["image"])))

    async def update_image(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, UpdateImage(image=ask.path["image"], changes=ask.body)))

    async def delete_image(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, DeleteImage(image=ask.path["image"])))

    async def prune_images(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, PruneImages()))

    async def upload_image(self, ask: Ask) -> Answer:
        """Whatever becomes of the bytes, the image is told: it ends active, or in error with the reason."""
        ticket = await self.bus.call(ask.ctx, BeginUpload(image=ask.path["image"]))
        try:
            received = await self._receive(ask.request, ticket)
        except BaseException as error:  # noqa: BLE001 - the row must not wait for ever
            named = LauncherError.named(error) if isinstance(error, Exception) else None
            failure = str(named) if named else "the upload was cut off"
            await asyncio.shield(self.bus.call(ask.ctx, EndUpload(image_id=ticket.image_id, failure=failure)))
            raise named or error from None
        return Answer(await self.bus.call(ask.ctx, EndUpload(image_id=ticket.image_id, received=received)))

    async def _receive(self, request: web.Request, ticket: Ticket) -> Received:
        arrival = await self.vault.open_arrival(ticket.image_id, resume=False, sha512=ticket.sha512)
        try:
            _check_size(request.content_length or 0, ticket)
            pieces = request.content.iter_chunked(PIECE)
            while True:
                async with asyncio.timeout(QUIET):
                    piece = await anext(pieces, None)
                if not piece:
                    break
                await arrival.append(piece)
                _check_size(arrival.size, ticket)
            if arrival.size != (request.content_length or arrival.size):
                raise BadRequest(f"the upload was cut off: {arrival.size} of {request.content_length} bytes came")
            return await arrival.finish()
        except web.RequestPayloadError:
            raise BadRequest("the body is not what its encoding says", hint="send it plain") from None
        except TimeoutError:
            raise BadRequest(f"nothing came for {QUIET:g} s, after {arrival.size} bytes") from None
        finally:
            await arrival.close()

    async def download_image(self, ask: Ask) -> web.StreamResponse:
        ticket = await self.bus.call(ask.ctx, OpenImage(image=ask.path["image"]))
        assert ticket.path
        headers = {"X-Content-Type-Options": "nosniff", "X-Checksum-Sha256": ticket.sha256 or ""}
        headers |= {"Content-Type": "application/octet-stream", "Content-Disposition": "attachment"}
        if not await asyncio.to_thread(ticket.path.is_file):
            raise Conflict(f"{ticket.path} is not on this host")
        return web.FileResponse(ticket.path, headers=headers)


def _check_size(size: int, ticket: Ticket) -> None:
    if size > ticket.most:
        raise BadImage(
            f"the image has {size} bytes or more, at most {ticket.most} are allowed", hint="see [images] largest_gb"
        )
