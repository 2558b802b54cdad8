"""What the modules of Compute v2.1 share: refusals in Nova's words, links, times, versions."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import web

from launcher.errors import LauncherError, QuotaExceeded
from launcher.services.api import problems
from launcher.services.api.openstack.frame import Ask, Json

PREFIX, ENDPOINT = "/compute", "/compute/v2.1"
VERSION = "2.1"
"""The one microversion that is honoured so far."""
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


def refusal(error: LauncherError) -> Json:
    hint = f". {error.hint[:1].upper()}{error.hint[1:]}" if error.hint and isinstance(error, QuotaExceeded) else ""
    return {FAULTS.get(error.status, "computeFault"): {"code": error.status, "message": f"{error.message}{hint}"}}


def settle(request: web.Request) -> dict[str, str]:
    """The headers that name the microversion of the answer. Raises HttpError for one that is not honoured."""
    words = request.headers.get("OpenStack-API-Version", "").split()
    asked = words[1] if len(words) == 2 and words[0] == "compute" else request.headers.get(LEGACY, VERSION)
    if asked not in (VERSION, "latest"):
        raise problems.HttpError(f"Version {asked[:20]} is not supported by the API. Only {VERSION} is.", status=406)
    return {"OpenStack-API-Version": f"compute {VERSION}", LEGACY: VERSION}


def links(ask: Ask, path: str) -> list[Json]:
    """To the thing itself, and where it is without a version."""
    self_link, bookmark = f"{ask.base}{ENDPOINT}/{path}", f"{ask.base}{PREFIX}/{path}"
    return [{"rel": "self", "href": self_link}, {"rel": "bookmark", "href": bookmark}]


def moment(ms: float | None) -> str | None:
    """As Nova writes it, to the second."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
