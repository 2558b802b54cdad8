"""What the modules of Compute v2.1 share: versions, refusals in Nova's words, links, times, the server meant."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from launcher.bus import Bus
from launcher.errors import BadRequest, Forbidden, LauncherError, NotFound, QuotaExceeded
from launcher.messages.instances import GetInstance
from launcher.models import Instance, VmState
from launcher.services.api import problems
from launcher.services.api.openstack.frame import Ask, Json, Settled
from launcher.services.api.openstack.versions import Version

PREFIX, ENDPOINT = "/compute", "/compute/v2.1"
OLDEST, NEWEST = Version(2, 1), Version(2, 79)
"""The microversions that are honoured, and all between them."""
LEGACY = "X-OpenStack-Nova-API-Version"
FAULTS = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}


def refusal(error: LauncherError) -> tuple[int, Json]:
    hint = f". {error.hint[:1].upper()}{error.hint[1:]}" if error.hint and isinstance(error, QuotaExceeded) else ""
    body = {"code": error.status, "message": f"{error.message}{hint}"}
    return error.status, {FAULTS.get(error.status, "computeFault"): body}


def settle(request: web.Request) -> Settled:
    """Raises HttpError for a version that is not honoured, BadRequest for what is none."""
    version = asked_version(request, "compute", LEGACY, oldest=OLDEST, newest=NEWEST)
    return Settled(version, {"OpenStack-API-Version": f"compute {version}", LEGACY: str(version)})


def asked_version(request: web.Request, service: str, legacy: str, *, oldest: Version, newest: Version) -> Version:
    """By the header that all services have, or the service's own older one; without either the oldest."""
    words = request.headers.get("OpenStack-API-Version", "").split()
    text = words[1] if len(words) == 2 and words[0] == service else request.headers.get(legacy, str(oldest))
    version = newest if text == "latest" else Version.read(text)
    if version is None:
        raise BadRequest(
            f"API Version String {text[:20]!r} is of invalid format. It must be of format MajorNum.MinorNum."
        )
    if not oldest <= version <= newest:
        words_of = f"Minimum is {oldest} and maximum is {newest}."
        raise problems.HttpError(f"Version {version} is not supported by the API. {words_of}", status=406)
    return version


def links(ask: Ask, path: str) -> list[Json]:
    """To the thing itself, and where it is without a version."""
    self_link, bookmark = f"{ask.base}{ENDPOINT}/{path}", f"{ask.base}{PREFIX}/{path}"
    return [{"rel": "self", "href": self_link}, {"rel": "bookmark", "href": bookmark}]


def moment(ms: float | None) -> str | None:
    """As Nova writes it, to the second."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def precise(ms: float | None) -> str | None:
    """As some of its extensions write it."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


async def the_server(bus: Bus, ask: Ask, *, deleted: bool = False) -> Instance:
    """By its id; a name is none, and a deleted one is gone."""
    found = await bus.call(ask.ctx, GetInstance(instance_id=ask.path["id"]))
    if found.id != ask.path["id"] or (found.vm_state is VmState.DELETED and not deleted):
        raise NotFound(f"Instance {ask.path['id']} could not be found.")
    return found


def only_admins(ask: Ask, rule: str) -> None:
    """What tells of hosts is an administrator's to see."""
    if not ask.ctx.is_admin:
        raise Forbidden(f"Policy doesn't allow os_compute_api:{rule} to be performed.")


def number(ask: Ask, name: str, *, usual: int = 0) -> int:
    """A query's number. Raises BadRequest."""
    text = ask.query.get(name)
    if text is None:
        return usual
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise BadRequest(f"{name} must be an integer, not {text[:20]!r}", field=name)
    return int(text)


def page(ask: Ask, found: list[Json]) -> list[Json]:
    """After `marker`, at most `limit`."""
    marker, limit = ask.query.get("marker"), number(ask, "limit", usual=1000)
    ids = [str(each["id"]) for each in found]
    if marker is not None and marker not in ids:
        raise BadRequest(f"marker [{marker}] not found")
    start = ids.index(marker) + 1 if marker is not None else 0
    return found[start : start + min(limit, 1000)]


def moments(ask: Ask, name: str) -> float | None:
    """A time of the query, in milliseconds. Raises BadRequest."""
    text = ask.query.get(name)
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise BadRequest(f"{name} is no time: {text[:40]!r}", field=name) from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000


def truth(query: Mapping[str, Any], name: str) -> bool:
    return str(query.get(name, "")).lower() in ("1", "true", "t", "yes", "on")
