"""An operation of the native API as data: the server, the error answers and /openapi.json are made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from launcher.messaging import Context
from launcher.models import Model


class NoQuery(Model):
    """An operation without query parameters refuses any."""


@dataclass(frozen=True)
class Ask:
    """A request that was authenticated and whose parts fit their models."""

    ctx: Context
    path: Mapping[str, str]
    query: Any
    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """`body` is dumped with the endpoint's response type; None sends none."""

    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Endpoint:
    """`traced` operations begin or continue a trace of a launch."""

    method: str
    path: str
    handler: Callable[[Ask], Awaitable[Answer]]
    summary: str
    status: int = 200
    response: Any = None
    body: type[Model] | None = None
    query: type[Model] = NoQuery
    headers: tuple[str, ...] = ()
    content_type: str = "application/json"
    traced: bool = False
