"""Images in the native API. Bytes pass through here to the vault and from it; nothing is decided about them."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web
from pydantic import Field

from launcher.bus import Bus
from launcher.errors import BadImage, BadRequest, Conflict, Forbidden, NotFound
from launcher.images import INSTANCE, LIBRARY, CatalogueImage, KnownImage, Pruned
from launcher.messages.images import (
    CreateImage,
    CreateImageOf,
    DeleteImage,
    GetImage,
    ImageChanges,
    ImageRequest,
    ListImages,
    ListKnownImages,
    PruneImages,
    RegisterImage,
    UpdateImage,
)
from launcher.models import Model
from launcher.services.api.endpoint import Answer, Ask, Endpoint
from launcher.services.api.uploads import Uploads


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

    def __init__(self, *, bus: Bus, uploads: Uploads) -> None:
        self.bus, self.uploads = bus, uploads

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
        return Answer(await self.uploads.receive(ask.ctx, ask.request, ask.path["image"]))

    async def download_image(self, ask: Ask) -> web.StreamResponse:
        return await self.uploads.send(ask.ctx, ask.path["image"])
