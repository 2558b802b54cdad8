"""Image v2: versions, schemas, images with their bytes, members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from aiohttp import web
from pydantic import Field, ValidationError, model_validator

from launcher.accounts import UserRole
from launcher.bus import Bus
from launcher.errors import BadRequest, LauncherError, NotFound
from launcher.images import UPLOAD, CatalogueImage
from launcher.messages.images import (
    CreateImage,
    DeleteImage,
    GetImage,
    ImageChanges,
    ImageRequest,
    ListImages,
    UpdateImage,
)
from launcher.messages.tags import ListTags, RemoveTags, SetTags
from launcher.models import ImageFormat, Model
from launcher.services.api.openstack import glance
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, Settled, misfit, refused
from launcher.services.api.openstack.nova import page
from launcher.services.api.uploads import Uploads
from launcher.tagging import Tagged, Target

EVERY, ONE = "/v2/images", "/v2/images/{id}"
FILTERS = ("name", "id", "status", "visibility", "disk_format", "container_format", "owner", "os_hidden")
PAGED = ("member_status", "limit", "marker", "sort", "sort_key", "sort_dir")
IMPORTS = "images come by PUT /v2/images/{id}/file, or from a URL by `launcher image import`"


class WordsRequest(Model):
    """POST /v2/images: what is known by name, and any other words."""

    words: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _any(cls, whole: Any) -> Any:
        return {"words": whole}


class Change(Model):
    op: Literal["add", "replace", "remove"]
    path: str = Field(pattern=r"^/[^/]{1,255}$")
    value: Any = None


class ChangesRequest(Model):
    """PATCH /v2/images/{id}, a JSON patch."""

    changes: list[Change] = Field(max_length=200)

    @model_validator(mode="before")
    @classmethod
    def _any(cls, whole: Any) -> Any:
        return {"changes": whole}


class MemberRequest(Model):
    """POST /v2/images/{id}/members."""

    member: str = Field(min_length=1, max_length=255)


class StatusRequest(Model):
    """PUT /v2/images/{id}/members/{member}; whom an image is shared with has it at once."""

    status: Literal["accepted", "pending"]


class Images:
    """Glance's part."""

    type, name, prefix, endpoint, unscoped = "image", "glance", "/image", "/image", False

    def __init__(self, *, bus: Bus, uploads: Uploads) -> None:
        self.bus, self.uploads = bus, uploads

    @property
    def operations(self) -> Sequence[Operation]:
        needs, file = UserRole.MEMBER, f"{ONE}/file"
        return [
            Operation("GET", "", self.list_versions, status=300, public=True),
            Operation("GET", "/versions", self.list_versions, public=True),
            Operation("GET", EVERY, self.list_images, queries=(*FILTERS, *PAGED)),
            Operation("POST", EVERY, self.create_image, status=201, body=WordsRequest, needs=needs),
            Operation("GET", ONE, self.get_image),
            Operation("PATCH", ONE, self.update_image, body=ChangesRequest, needs=needs),
            Operation("DELETE", ONE, self.delete_image, status=204, needs=needs),
            Operation("PUT", file, self.upload, status=204, needs=needs),
            Operation("GET", file, self.download),
            *self._members(),
            Operation("GET", "/v2/schemas/image", self.get_schema),
            Operation("GET", "/v2/schemas/images", self.get_list_schema),
            Operation("GET", "/v2/info/import", self.get_imports),
            refused("POST", f"{ONE}/import", IMPORTS),
            refused("PUT", f"{ONE}/stage", IMPORTS),
            *(
                refused("POST", f"{ONE}/actions/{verb}", "what is there can be used")
                for verb in ("deactivate", "reactivate")
            ),
            *(refused(verb, f"{ONE}/tags/{{tag}}", "images have properties, no tags") for verb in ("PUT", "DELETE")),
        ]

    def _members(self) -> Sequence[Operation]:
        every, one, needs = f"{ONE}/members", f"{ONE}/members/{{member}}", UserRole.MEMBER
        return [
            Operation("GET", every, self.list_members),
            Operation("POST", every, self.add_member, body=MemberRequest, needs=needs),
            Operation("GET", one, self.get_member),
            Operation("PUT", one, self.accept, body=StatusRequest, needs=needs),
            Operation("DELETE", one, self.remove_member, status=204, needs=needs),
        ]

    def settle(self, request: web.Request) -> Settled:
        return Settled()

    def refusal(self, error: LauncherError) -> tuple[int, Json]:
        body = {"code": error.status, "title": error.code.replace("_", " "), "message": error.message}
        return error.status, body

    async def list_versions(self, ask: Ask) -> Reply:
        link = {"rel": "self", "href": f"{ask.base}/image/v2/"}
        return Reply({"versions": [{"id": "v2.9", "status": "CURRENT", "links": [link]}]})

    async def get_schema(self, ask: Ask) -> Reply:
        return Reply(glance.schema())

    async def get_list_schema(self, ask: Ask) -> Reply:
        items = {"images": {"type": "array", "items": glance.schema()}}
        return Reply({"name": "images", "properties": items})

    async def get_imports(self, ask: Ask) -> Reply:
        return Reply({"import-methods": {"description": IMPORTS, "type": "array", "value": []}})

    # --- images ------------------------------------------------------------------------------------------------

    async def list_images(self, ask: Ask) -> Reply:
        words = await self._words(ask)
        found = [glance.image(each, words.get(each.id, {})) for each in await self.bus.call(ask.ctx, ListImages())]
        wanted = [(name, value.lower()) for name, value in ask.query.items() if name in FILTERS]
        fitting = [each for each in found if all(_fits(str(each.get(name)).lower(), want) for name, want in wanted)]
        shown = page(ask, fitting)
        more = {"next": f"/v2/images?marker={shown[-1]['id']}"} if shown and shown[-1] is not fitting[-1] else {}
        return Reply({"images": shown, "first": "/v2/images", "schema": "/v2/schemas/images", **more})

    async def get_image(self, ask: Ask) -> Reply:
        return Reply(await self._told(ask, await self._the_image(ask)))

    async def create_image(self, ask: Ask) -> Reply:
        """It waits for its bytes."""
        given = {name: value for name, value in ask.body.words.items() if value is not None}
        kind = glance.KINDS.get(given.pop("container_format", "bare"))
        if kind is None:
            raise BadRequest(f"container_format is one of {', '.join(glance.KINDS)}", field="container_format")
        shape = given.pop("disk_format", None)
        own: Json = {"name": "image", "kind": kind, "source": UPLOAD}
        own |= {"format": shape} if shape in tuple(ImageFormat) else {}
        if shape not in (None, "aki", "ari", *ImageFormat):
            raise BadRequest(f"disk_format {str(shape)[:20]!r} is not to be had: raw or qcow2", field="disk_format")
        given.pop("owner", None)
        own["public"] = glance.is_public(given.pop("visibility", "private"))
        fields, words = _sorted_out(given)
        try:
            request = ImageRequest.model_validate({**own, **fields})
        except ValidationError as error:
            raise misfit(error) from None
        made = await self.bus.call(ask.ctx, CreateImage(request=request))
        await self._note(ask, made, words)
        return Reply(await self._told(ask, made), headers={"Location": f"{ask.base}/image/v2/images/{made.id}"})

    async def update_image(self, ask: Ask) -> Reply:
        found = await self._the_image(ask)
        changed, gone = _changes(ask.body.changes)
        public = glance.is_public(changed.pop("visibility")) if "visibility" in changed else None
        fields, words = _sorted_out(changed)
        fields |= {glance.FIELDS[name]: "" for name in gone if name in ("description", "os_command_line")}
        try:
            changes = ImageChanges.model_validate_json(_json({**fields, "public": public}))
        except ValidationError as error:
            raise misfit(error) from None
        await self.bus.call(ask.ctx, UpdateImage(image=found.id, changes=changes))  # also says whether one may
        await self._note(ask, found, words)
        forgotten = [name for name in gone if name not in glance.FIELDS]
        if forgotten:
            message = RemoveTags(targets=(_target(found),), tags=dict.fromkeys(forgotten))
            await self.bus.call(ask.ctx, message)
        return await self.get_image(ask)

    async def delete_image(self, ask: Ask) -> Reply:
        found = await self._the_image(ask)
        await self.bus.call(ask.ctx, DeleteImage(image=found.id))
        return Reply()

    async def upload(self, ask: Ask) -> Reply:
        found = await self._the_image(ask)
        await self.uploads.receive(ask.ctx, ask.request, found.id)
        return Reply()

    async def download(self, ask: Ask) -> Reply:
        found = await self._the_image(ask)
        return Reply(response=await self.uploads.send(ask.ctx, found.id))

    # --- members -----------------------------------------------------------------------------------------------

    async def list_members(self, ask: Ask) -> Reply:
        found = await self._the_image(ask)
        told = [_member(found, each) for each in found.projects]
        return Reply({"members": told, "schema": "/v2/schemas/members"})

    async def add_member(self, ask: Ask) -> Reply:
        found = await self._the_image(ask)
        await self._share(ask, found, dict.fromkeys((*found.projects, ask.body.member)))
        return Reply(_member(found, ask.body.member))

    async def get_member(self, ask: Ask) -> Reply:
        found = await self._the_image(ask)
        if ask.path["member"] not in found.projects:
            raise NotFound(f"{ask.path['member']} not found in the member list of the image {found.id}.")
        return Reply(_member(found, ask.path["member"]))

    async def accept(self, ask: Ask) -> Reply:
        return await self.get_member(ask)

    async def remove_member(self, ask: Ask) -> Reply:
        await self.get_member(ask)
        found = await self._the_image(ask)
        await self._share(ask, found, [each for each in found.projects if each != ask.path["member"]])
        return Reply()

    async def _share(self, ask: Ask, found: CatalogueImage, projects: Any) -> None:
        await self.bus.call(ask.ctx, UpdateImage(image=found.id, changes=ImageChanges(projects=tuple(projects))))

    # --- finding -----------------------------------------------------------------------------------------------

    async def _the_image(self, ask: Ask) -> CatalogueImage:
        """By its id; a name is none."""
        found = await self.bus.call(ask.ctx, GetImage(image=ask.path["id"]))
        if found.id != ask.path["id"]:
            raise NotFound(f"No image found with ID {ask.path['id']}")
        return found

    async def _told(self, ask: Ask, found: CatalogueImage) -> Json:
        return glance.image(found, (await self._words(ask)).get(found.id, {}))

    async def _words(self, ask: Ask) -> Mapping[str, Mapping[str, str]]:
        words: dict[str, dict[str, str]] = {}
        for each in await self.bus.call(ask.ctx, ListTags(kind=Tagged.IMAGE)):
            words.setdefault(each.id, {})[each.key] = each.value
        return words

    async def _note(self, ask: Ask, found: CatalogueImage, words: Mapping[str, str]) -> None:
        if words:
            await self.bus.call(ask.ctx, SetTags(targets=(_target(found),), tags=dict(words)))


def _target(found: CatalogueImage) -> Target:
    return Target(kind=Tagged.IMAGE, id=found.id)


def _json(fields: Json) -> str:
    return web.json_response(fields).text or ""


def _fits(value: str, want: str) -> bool:
    """`in:` and a list means any of it."""
    return value in want[3:].split(",") if want.startswith("in:") else value == want


def _sorted_out(given: Mapping[str, Any]) -> tuple[Json, dict[str, str]]:
    """What has a field here, and what is only noted. Raises BadRequest."""
    fields: Json = {}
    words: dict[str, str] = {}
    for name, value in given.items():
        glance.check_word(name)
        if name in glance.FIELDS:
            fields[glance.FIELDS[name]] = value
        elif name in ("protected", "os_hidden", "tags"):
            glance.check_plain(name, value)
        elif isinstance(value, str) and len(value) <= 255 and len(name) <= 255:
            words[name] = value
        else:
            raise BadRequest(f"the property {name[:60]!r} is a text of at most 255 letters", field=name)
    return fields, words


def _changes(patch: Sequence[Change]) -> tuple[Json, list[str]]:
    """What is said anew, and what is taken back."""
    changed: Json = {}
    gone: list[str] = []
    for each in patch:
        name = each.path[1:].replace("~1", "/").replace("~0", "~")
        glance.check_word(name)
        if each.op == "remove":
            gone.append(name)
        else:
            changed[name] = each.value
    return changed, gone


def _member(found: CatalogueImage, project: str) -> Json:
    return {
        "image_id": found.id,
        "member_id": project,
        "status": "accepted",
        "created_at": None,
        "updated_at": None,
        "schema": "/v2/schemas/member",
    }
