"""What the modules of Network v2.0 share: paths, refusals in Neutron's words, lists and their filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from launcher.bus import Bus
from launcher.errors import BadRequest, LauncherError, NotFound, QuotaExceeded
from launcher.messages.instances import ListInstances
from launcher.models import Instance
from launcher.services.api.openstack.frame import Ask, Json, Reply

PREFIX = "/network"
V2 = "/v2.0"
PAGED = ("fields", "limit", "marker", "sort_key", "sort_dir", "page_reverse")
TYPES = {
    400: "HTTPBadRequest",
    401: "HTTPUnauthorized",
    403: "PolicyNotAuthorized",
    404: "HTTPNotFound",
    409: "Conflict",
    501: "HTTPNotImplemented",
}
OVER_QUOTA = 409
PAGE = 1000


def refusal(error: LauncherError) -> tuple[int, Json]:
    over = isinstance(error, QuotaExceeded)
    status = OVER_QUOTA if over else error.status
    kind = "OverQuota" if over else TYPES.get(status, "HTTPInternalServerError")
    return status, {"NeutronError": {"type": kind, "message": error.message, "detail": error.hint}}


def moment(ms: float) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def listed(ask: Ask, kind: str, found: Sequence[Json], *, filters: Sequence[str]) -> Reply:
    """Filtered, sorted, paged, and of each the fields that were asked for; several values of a filter mean any."""
    query = ask.request.query
    for name in {*query} - {*PAGED}:
        if name not in filters:
            raise BadRequest(f"['{name}'] is invalid attribute for filtering", field=name)
        found = [each for each in found if _fits(each, name, query.getall(name))]
    for key in reversed(query.getall("sort_key", [])):
        backwards = query.get("sort_dir", "asc") == "desc"
        found = sorted(found, key=lambda each, key=key: str(each.get(key)), reverse=backwards)  # type: ignore[misc]
    return Reply({kind: [_fields(ask, each) for each in _page(ask, found)]})


def shown(ask: Ask, kind: str, found: Json) -> Reply:
    return Reply({kind: _fields(ask, found)})


def the_one(ask: Ask, kind: str, found: Sequence[Json]) -> Json:
    """By the id of the path. Raises NotFound."""
    for each in found:
        if each["id"] == ask.path["id"]:
            return each
    raise NotFound(f"{kind} {ask.path['id']} could not be found.")


async def instances(bus: Bus, ask: Ask) -> list[Instance]:
    """All that are seen, in the order of their creation; an administrator sees everybody's."""
    found: list[Instance] = []
    while True:
        message = ListInstances(marker=found[-1].id if found else None, all_projects=ask.ctx.is_admin)
        some = await bus.call(ask.ctx, message)
        found += some
        if len(some) < PAGE:
            return found


def _fits(each: Mapping[str, Any], name: str, wanted: Sequence[str]) -> bool:
    has = each.get(name)
    if isinstance(has, list):
        return any(_inside(one, want) for one in has for want in wanted)
    return _text(has) in {want.lower() for want in wanted}


def _inside(one: Any, want: str) -> bool:
    """`fixed_ips=ip_address=10.0.0.2` looks into a list of objects."""
    if isinstance(one, Mapping):
        key, _, value = want.partition("=")
        return str(one.get(key)) == value
    return str(one) == want


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower()


def _fields(ask: Ask, each: Json) -> Json:
    wanted = ask.request.query.getall("fields", [])
    return {name: each[name] for name in each if name in wanted} if wanted else each


def _page(ask: Ask, found: Sequence[Json]) -> Sequence[Json]:
    limit, marker = ask.query.get("limit"), ask.query.get("marker")
    if limit is not None and not (limit.isascii() and limit.isdecimal() and len(limit) < 10):
        raise BadRequest(f"limit must be an integer, not {limit[:20]!r}", field="limit")
    places = [place for place, each in enumerate(found, 1) if each.get("id") == marker]
    if marker is not None and not places:
        raise BadRequest(f"the marker {marker[:40]!r} is not there", field="marker")
    start = places[0] if places else 0
    return found[start : start + int(limit)] if limit and int(limit) else found[start:]
