"""Errors as problem documents (RFC 9457): what went wrong, with which field or object, and the next thing to try."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from pydantic import ValidationError

from launcher.errors import BadRequest, LauncherError
from launcher.models import Model


class Problem(Model):
    """The body of every answer with a status of 400 or more."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None
    hint: str | None = None
    request_id: str


def answer(error: LauncherError, request_id: str, *, headers: Mapping[str, str] | None = None) -> web.Response:
    problem = Problem(
        title=error.code.replace("_", " "),
        status=error.status,
        detail=error.message,
        code=error.code,
        field=error.field or None,
        hint=error.hint or None,
        request_id=request_id,
    )
    return web.Response(
        body=problem.model_dump_json(exclude_none=True),
        status=error.status,
        content_type="application/problem+json",
        headers=headers,
    )


def from_validation(error: ValidationError) -> LauncherError:
    """The first thing that does not fit, by the name of its field."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    return BadRequest(f"{where}: {said}" if where else said, field=where, hint="see /openapi.json")


class HttpError(LauncherError):
    """What HTTP itself refuses: an unknown path, a wrong method, a body too large."""

    code = "http_error"

    def __init__(self, message: str, *, status: int = 500, hint: str = "", field: str = "") -> None:
        super().__init__(message, hint=hint, field=field)
        self.status = status  # type: ignore[misc]  # here it is the request's, not the class's
