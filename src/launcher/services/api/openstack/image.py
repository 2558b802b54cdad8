"""Image v2, to read: versions, the list and one of it."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from launcher.bus import Bus
from launcher.errors import LauncherError, NotFound
from launcher.images import CatalogueImage, ImageState
from launcher.messages.images import ListImages
from launcher.models import ImageKind
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, Settled
from launcher.services.api.openstack.nova import page

FORMATS = {ImageKind.KERNEL: "aki", ImageKind.RAMDISK: "ari"}
STATUS = {ImageState.ERROR: "killed"}
"""Glance's words where ours are others."""
FILTERS = ("name", "id", "status", "visibility", "disk_format", "container_format", "owner", "os_hidden")
PAGED = ("member_status", "limit", "marker", "sort", "sort_key", "sort_dir")


class Images:
    """Glance's part."""

    type, name, prefix, endpoint, unscoped = "image", "glance", "/image", "/image", False

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        every = "/v2/images"
        return [
            Operation("GET", "", self.list_versions, status=300, public=True),
            Operation("GET", "/versions", self.list_versions, public=True),
            Operation("GET", every, self.list_images, queries=(*FILTERS, *PAGED)),
            Operation("GET", f"{every}/{{id}}", self.get_image),
        ]

    def settle(self, request: web.Request) -> Settled:
        return Settled()

    def refusal(self, error: LauncherError) -> tuple[int, Json]:
        body = {"code": error.status, "title": error.code.replace("_", " "), "message": error.message}
        return error.status, body

    async def list_versions(self, ask: Ask) -> Reply:
        link = {"rel": "self", "href": f"{ask.base}/image/v2/"}
        return Reply({"versions": [{"id": "v2.9", "status": "CURRENT", "links": [link]}]})

    async def list_images(self, ask: Ask) -> Reply:
        found = [_image(each) for each in await self.bus.call(ask.ctx, ListImages())]
        wanted = [(name, value.lower()) for name, value in ask.query.items() if name in FILTERS]
        fitting = [each for each in found if all(_fits(str(each.get(name)).lower(), want) for name, want in wanted)]
        return Reply({"images": page(ask, fitting), "first": "/v2/images", "schema": "/v2/schemas/images"})

    async def get_image(self, ask: Ask) -> Reply:
        for each in await self.bus.call(ask.ctx, ListImages()):
            if each.id == ask.path["id"]:
                return Reply(_image(each))
        raise NotFound(f"No image found with ID {ask.path['id']}")


def _fits(value: str, want: str) -> bool:
    """`in:` and a list means any of it."""
    return value in want[3:].split(",") if want.startswith("in:") else value == want


def _image(image: CatalogueImage) -> Json:
    shape = FORMATS.get(image.kind, image.format)
    boots = {"kernel_id": image.kernel_id, "ramdisk_id": image.ramdisk_id}
    return {
        "id": image.id,
        "name": image.name,
        "status": STATUS.get(image.state, image.state),
        "visibility": "public" if image.public else "shared" if image.projects else "private",
        "protected": False,
        "os_hidden": False,
        "container_format": shape if image.kind in FORMATS else "bare",
        "disk_format": shape,
        "size": image.size,
        "virtual_size": image.virtual_size,
        "min_ram": image.min_memory_mb,
        "min_disk": image.min_disk_gb,
        "checksum": None,
        "os_hash_algo": "sha256",
        "os_hash_value": image.sha256,
        "owner": image.project_id,
        "tags": [],
        "self": f"/v2/images/{image.id}",
        "file": f"/v2/images/{image.id}/file",
        "schema": "/v2/schemas/image",
        **{name: value for name, value in boots.items() if value},
    }
