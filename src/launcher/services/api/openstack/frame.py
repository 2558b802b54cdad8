"""What OpenStack's services have in common: operations as data, X-Auth-Token, request ids, refusals in own words.

A service is a list of operations below a path such as /identity; the frame authenticates, checks bodies and queries
against their models, and turns errors into the service's body. Services translate and decide nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from aiohttp import web
from pydantic import ValidationError

from launcher.errors import BadRequest, LauncherError, Unauthorized
from launcher.messaging import Context
from launcher.models import Model
from launcher.services.api import problems
from launcher.services.api.callers import REQUEST_ID, Callers

BODY_TIMEOUT = 10.0
Json = dict[str, Any]
Serve = Callable[[web.Request], Awaitable[web.Response]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ask:
    """A request of somebody known, whose parts fit their models. `base` is the URL of the whole API."""

    request: web.Request
    ctx: Context
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    base: str


@dataclass(frozen=True)
class Reply:
    """`status` None is the operation's own; a body of None sends none."""

    body: Json | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """`public` ones need no token. `queries` are the names that the query may have; others are refused."""

    method: str
    path: str
    do: Callable[[Ask], Awaitable[Reply]]
    status: int = 200
    body: type[Model] | None = None
    queries: Sequence[str] = ()
    public: bool = False


class Service(Protocol):
    """`type` and `name` as the catalogue has them; `endpoint` is the path that it names, at or below `prefix`.

    `unscoped`: a token without a project will do.
    """

    type: str
    name: str
    prefix: str
    endpoint: str
    unscoped: bool

    @property
    def operations(self) -> Sequence[Operation]: ...

    def settle(self, request: web.Request) -> Mapping[str, str]:
        """Headers of every answer, by the version that was asked for. Raises what a wrong one deserves."""

    def refusal(self, error: LauncherError) -> Json:
        """The body that tells of the error."""


class Frame:
    """`url` is what clients are told; without it, where they have found the API."""

    def __init__(self, *, callers: Callers, url: str) -> None:
        self.callers, self.url = callers, url

    def serve(self, application: web.Application, service: Service) -> None:
        for operation in service.operations:
            paths = [f"{service.prefix}{operation.path}"]
            paths += [f"{paths[0]}/"] if operation.path.count("/") < 2 and not operation.path.endswith("/") else []
            for path in paths:
                application.router.add_route(operation.method, path, self._served(service, operation))
        application.router.add_route("*", service.prefix + "{rest:(/.*)?}", self._served(service, None))

    def _served(self, service: Service, operation: Operation | None) -> Serve:
        async def serve(request: web.Request) -> web.Response:
            headers = {"X-Openstack-Request-Id": request[REQUEST_ID], "Vary": "X-Auth-Token"}
            try:
                headers |= service.settle(request)
                reply = await self._answer(service, operation, request)
                status, body = reply.status or (operation.status if operation else 404), reply.body
                headers |= reply.headers
            except LauncherError as error:
                status, body = error.status, service.refusal(error)
                if isinstance(error, Unauthorized):
                    headers["WWW-Authenticate"] = f'Keystone uri="{self._base(request)}/identity"'
            except Exception:
                log.exception("%s %r failed", request.method, request.path)
                unexpected = LauncherError("unexpected; see the server's log")
                status, body = unexpected.status, service.refusal(unexpected)
            if body is None:
                return web.Response(status=status, headers=headers)
            return web.json_response(body, status=status, headers=headers)

        return serve

    async def _answer(self, service: Service, operation: Operation | None, request: web.Request) -> Reply:
        if operation is None:
            raise problems.HttpError(f"there is nothing at {request.path}", status=404)
        ctx = self.callers.nobody(request)
        if not operation.public:
            token = request.headers.get("X-Auth-Token", "")
            if not token:
                raise Unauthorized("the request needs a token: X-Auth-Token")
            ctx = await self.callers.by_token(request, token, unscoped=service.unscoped)
        unknown = set(request.query) - set(operation.queries)
        if unknown and not operation.public:
            raise BadRequest(f"there is no query parameter {sorted(unknown)[0]!r}")
        body = await _body(request, operation.body)
        ask = Ask(request, ctx, request.match_info, dict(request.query), body, self._base(request))
        return await operation.do(ask)

    def _base(self, request: web.Request) -> str:
        """Without a Host header that makes sense, links have none either."""
        try:
            return self.url or str(request.url.origin())
        except ValueError:
            return ""


async def _body(request: web.Request, model: type[Model] | None) -> Model | None:
    if model is None:
        return None
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return model.model_validate_json(await request.read(), strict=True)
    except TimeoutError:
        raise problems.HttpError(f"the body did not arrive in {BODY_TIMEOUT:g} s", status=408) from None
    except web.HTTPRequestEntityTooLarge as error:
        raise problems.HttpError("the body is too large", status=error.status) from None
    except web.RequestPayloadError:
        raise BadRequest("the body is not what its encoding says") from None
    except ValidationError as error:
        raise problems.from_validation(error) from None


def timestamp(ms: float) -> str:
    """As Keystone writes it."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
