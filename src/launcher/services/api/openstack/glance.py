"""Images as Glance shows them, and what of its words has a place here."""

from __future__ import annotations

from collections.abc import Mapping

from launcher.errors import BadRequest
from launcher.images import CatalogueImage, ImageState
from launcher.models import ImageKind
from launcher.services.api.openstack import nova
from launcher.services.api.openstack.frame import Json

FORMATS = {ImageKind.KERNEL: "aki", ImageKind.RAMDISK: "ari"}
KINDS = {"bare": ImageKind.MACHINE, "aki": ImageKind.KERNEL, "ari": ImageKind.RAMDISK}
"""By the container format."""
STATUS = {ImageState.ERROR: "killed"}
"""Glance's words where ours are others."""
FIELDS = {
    "name": "name",
    "min_disk": "min_disk_gb",
    "min_ram": "min_memory_mb",
    "kernel_id": "kernel_id",
    "ramdisk_id": "ramdisk_id",
    "architecture": "architecture",
    "os_command_line": "kernel_args",
    "hw_firmware_type": "firmware",
    "hw_machine_type": "machine",
    "description": "description",
}
"""Ours, by Glance's names of what an owner may say. Any other word is a tag of the project's."""
FIXED = ("id", "status", "owner", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "created_at")
FIXED_TOO = ("updated_at", "self", "file", "schema", "direct_url", "locations", "disk_format", "container_format")


def image(each: CatalogueImage, words: Mapping[str, str]) -> Json:
    """`words` are what the asking project notes of it."""
    shape = FORMATS.get(each.kind, each.format)
    told = {name: getattr(each, ours) for name, ours in FIELDS.items() if name not in ("name", "min_disk", "min_ram")}
    return {
        **words,
        "id": each.id,
        "name": each.name,
        "status": STATUS.get(each.state, each.state),
        "visibility": "public" if each.public else "shared" if each.projects else "private",
        "protected": False,
        "os_hidden": False,
        "container_format": shape if each.kind in FORMATS else "bare",
        "disk_format": shape,
        "size": each.size,
        "virtual_size": each.virtual_size,
        "min_ram": each.min_memory_mb,
        "min_disk": each.min_disk_gb,
        "checksum": None,
        "os_hash_algo": "sha256" if each.sha256 else None,
        "os_hash_value": each.sha256,
        "owner": each.project_id,
        "created_at": nova.moment(each.created_ms),
        "updated_at": nova.moment(each.updated_ms or each.created_ms),
        "tags": [],
        "self": f"/v2/images/{each.id}",
        "file": f"/v2/images/{each.id}/file",
        "schema": "/v2/schemas/image",
        **{name: value for name, value in told.items() if value},
    }


def check_word(name: str) -> None:
    """Raises BadRequest for what nobody may say."""
    if name in (*FIXED, *FIXED_TOO):
        raise BadRequest(f"Attribute '{name}' is read-only.", field=name)


def check_plain(name: str, value: object) -> None:
    """What an image here is not, and cannot be made."""
    usual = {"protected": False, "os_hidden": False, "tags": []}
    if name in usual and value != usual[name]:
        raise BadRequest(f"images are not {name} here", field=name)


def is_public(value: object) -> bool:
    """A visibility. Raises BadRequest; one is shared as long as it has members."""
    if value not in ("public", "private", "shared"):
        raise BadRequest(
            f"visibility {str(value)[:20]!r} is not to be had: public, private or shared", field="visibility"
        )
    return value == "public"


def schema() -> Json:
    strings = {name: {"type": ["null", "string"]} for name in (*FIELDS, *FIXED, *FIXED_TOO, "visibility")}
    numbers = {name: {"type": ["null", "integer"]} for name in ("size", "virtual_size", "min_disk", "min_ram")}
    truths = {name: {"type": "boolean"} for name in ("protected", "os_hidden")}
    tags = {"tags": {"type": "array", "items": {"type": "string"}}}
    additional = {"type": "string"}
    return {"name": "image", "properties": {**strings, **numbers, **truths, **tags}, "additionalProperties": additional}
