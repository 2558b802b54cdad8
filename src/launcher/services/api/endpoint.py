"""An operation of the native API as data: the server, the error answers and /openapi.json are made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from launcher.accounts import UserRole
from launcher.errors import LauncherError
from launcher.messaging import Context
from launcher.models import Model


class NoQuery(Model):
    """An operation without query parameters refuses any."""


@dataclass(frozen=True)
class Ask:
    """An authenticated request whose parts fit their models; `request` itself is for answers that are streams."""

    request: web.Request
    ctx: Context
    path: Mapping[str, str]
    query: Any
    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """`body` is dumped with the endpoint's response type; None sends none. `status` None is the endpoint's own."""

    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int | None = None


@dataclass(frozen=True)
class Endpoint:
    """`public` ones need no token, `traced` ones begin or continue a trace of a launch.

    `needs` is for what is no translation of a message, whose own need the bus looks at.
    `headers` are JSON schemas by name. `raises` names what the operation refuses beside what follows from its shape;
    with a status of `or_status` it has the same body as with `status`. An `upload` takes any bytes as its body, which
    the handler reads from the request as they come.
    """

    method: str
    path: str
    handler: Callable[[Ask], Awaitable[Answer | web.StreamResponse]]
    summary: str
    status: int = 200
    or_status: int | None = None
    response: Any = None
    body: type[Model] | None = None
    query: type[Model] = NoQuery
    headers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    content_type: str = "application/json"
    raises: tuple[type[LauncherError], ...] = ()
    upload: bool = False
    public: bool = False
    needs: UserRole = UserRole.READER
    traced: bool = False
