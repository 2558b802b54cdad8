"""What the modules of Block Storage v3 share: versions, refusals in Cinder's words, shapes, lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from launcher.errors import LauncherError, QuotaExceeded
from launcher.services.api.openstack import nova
from launcher.services.api.openstack.frame import Ask, Json, Settled
from launcher.services.api.openstack.versions import Version, shaped, since
from launcher.volumes import Attachment, Snapshot, Stored, Volume

PREFIX, ENDPOINT, V3 = "/volume", "/volume/v3", "/v3"
OLDEST, NEWEST = Version(3, 0), Version(3, 42)
"""The microversions that are honoured, and all between them."""
KIND = "default"
"""The one type of volumes: what the hosts' driver makes."""
VOLUME = {"group_id": since(13, major=3)}
SNAPSHOT = {"group_snapshot_id": since(14, major=3), "user_id": since(41, major=3)}
PAGED = ("limit", "marker", "offset", "sort", "sort_key", "sort_dir", "all_tenants")
OVER_QUOTA = 413


def settle(request: web.Request) -> Settled:
    version = nova.asked_version(request, "volume", "", oldest=OLDEST, newest=NEWEST)
    return Settled(version, {"OpenStack-API-Version": f"volume {version}"})


def refusal(error: LauncherError) -> tuple[int, Json]:
    status, body = nova.refusal(error)
    if isinstance(error, QuotaExceeded):
        return OVER_QUOTA, {"overLimit": {"code": OVER_QUOTA, "message": error.message}}
    return status, body


def moment(ms: float | None) -> str | None:
    """As Cinder writes it."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def links(ask: Ask, path: str) -> list[Json]:
    self_link, bookmark = f"{ask.base}{ENDPOINT}/{path}", f"{ask.base}{PREFIX}/{path}"
    return [{"rel": "self", "href": self_link}, {"rel": "bookmark", "href": bookmark}]


def volume(ask: Ask, each: Volume) -> Json:
    whole = {
        **_stored(each),
        "availability_zone": each.availability_zone or "nova",
        "bootable": "true" if each.image_id else "false",
        "encrypted": False,
        "volume_type": KIND,
        "snapshot_id": each.snapshot_id,
        "source_volid": None,
        "consistencygroup_id": None,
        "replication_status": None,
        "multiattach": False,
        "migration_status": None,
        "user_id": each.user_id,
        "attachments": [_attachment(ask, each, each.attachment)] if each.attachment else [],
        "os-vol-tenant-attr:tenant_id": each.project_id,
        "links": links(ask, f"volumes/{each.id}"),
        "group_id": None,
        **({"os-vol-host-attr:host": each.host} if ask.ctx.is_admin else {}),
        **({"volume_image_metadata": {"image_id": each.image_id}} if each.image_id else {}),
    }
    return shaped(VOLUME, ask.version, whole)


def snapshot(ask: Ask, each: Snapshot) -> Json:
    whole = {
        **_stored(each),
        "volume_id": each.volume_id,
        "os-extended-snapshot-attributes:project_id": each.project_id,
        "os-extended-snapshot-attributes:progress": "100%" if each.status == "available" else "0%",
        "user_id": each.user_id,
        "group_snapshot_id": None,
    }
    return shaped(SNAPSHOT, ask.version, whole)


def _stored(each: Stored) -> Json:
    return {
        "id": each.id,
        "name": each.name,
        "description": each.description or None,
        "status": each.status,
        "size": each.size_gb,
        "metadata": each.metadata,
        "created_at": moment(getattr(each, "created_ms", None)),
        "updated_at": moment(each.state_since_ms),
    }


def _attachment(ask: Ask, each: Volume, held: Attachment) -> Json:
    """It has the volume's own id, as there is one at most."""
    return {
        "id": each.id,
        "attachment_id": each.id,
        "volume_id": each.id,
        "server_id": held.instance_id,
        "host_name": each.host if ask.ctx.is_admin else None,
        "device": f"/dev/{held.device}",
        "attached_at": moment(held.attached_ms),
    }


def arranged(ask: Ask, found: Sequence[Json], filters: Mapping[str, Callable[[Json], Any]]) -> tuple[list[Json], bool]:
    """The page of a list, and whether there is more; the youngest come first where nothing else is asked for."""
    query = ask.query
    fitting = [
        each
        for each in found
        if all(str(tell(each)).lower() == query[name].lower() for name, tell in filters.items() if name in query)
    ]
    key, _, direction = query.get("sort", "").partition(",")[0].partition(":")
    key, direction = query.get("sort_key", key) or "created_at", query.get("sort_dir", direction) or "desc"
    fitting = sorted(fitting, key=lambda each: str(each.get(key)))
    fitting = fitting[::-1] if direction == "desc" else fitting
    page = nova.page(ask, fitting)
    return page, bool(page) and page[-1] is not fitting[-1]


def more(ask: Ask, kind: str, page: Sequence[Json]) -> Json:
    again = ask.request.url.update_query(marker=page[-1]["id"])
    return {f"{kind}_links": [{"rel": "next", "href": f"{ask.base}{again.relative()}"}]}
