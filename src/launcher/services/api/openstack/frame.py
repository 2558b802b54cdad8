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

from launcher.accounts import UserRole
from launcher.errors import BadRequest, Forbidden, LauncherError, Unauthorized
from launcher.messaging import Context
from launcher.models import Model
from launcher.services.api import problems
from launcher.services.api.callers import REQUEST_ID, Callers
from launcher.services.api.openstack.versions import ALWAYS, OLDEST, Ages, Version, check, unexpected

BODY_TIMEOUT = 10.0
Json = dict[str, Any]
Serve = Callable[[web.Request], Awaitable[web.StreamResponse]]
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
    version: Version


@dataclass(frozen=True)
class Reply:
    """`status` None is the operation's own; a body of None sends none. `response` is one that has its own way."""

    body: Json | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    response: web.StreamResponse | None = None


@dataclass(frozen=True)
class Settled:
    """The version that a request is answered in, and the headers that say so."""

    version: Version = OLDEST
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Operation:
    """`public` ones need no token. `queries` are the names that the query may have; others are refused.

    `aged` are such names that only some versions have, `ages` the versions that have the operation at all.
    `needs` is looked at before anything else, for what is no single message.
    `why` it is refused, whoever asks, or what of it is not done, stands in `docs/openstack.md`.
    """

    method: str
    path: str
    do: Callable[[Ask], Awaitable[Reply]]
    status: int = 200
    body: type[Model] | None = None
    queries: Sequence[str] = ()
    public: bool = False
    aged: Mapping[str, Ages] = field(default_factory=dict)
    ages: Ages = ALWAYS
    why: str = ""
    needs: UserRole = UserRole.READER


def refused(method: str, path: str, why: str, *, status: int = 501, ages: Ages = ALWAYS) -> Operation:
    """What clients may ask for and do not get. The answer is the same whatever they send."""

    async def refuse(ask: Ask) -> Reply:
        raise problems.HttpError(why, status=status)

    return Operation(method, path, refuse, status=status, queries=("*",), ages=ages, why=why)


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

    def settle(self, request: web.Request) -> Settled:
        """By the version that was asked for. Raises what a wrong one deserves."""

    def refusal(self, error: LauncherError) -> tuple[int, Json]:
        """The status and the body that tell of the error."""


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
        async def serve(request: web.Request) -> web.StreamResponse:
            headers = {"X-Openstack-Request-Id": request[REQUEST_ID], "Vary": "X-Auth-Token"}
            try:
                settled = service.settle(request)
                headers |= settled.headers
                reply = await self._answer(service, operation, request, settled.version)
                if reply.response is not None:
                    reply.response.headers.update(headers)
                    return reply.response
                status, body = reply.status or (operation.status if operation else 404), reply.body
                headers |= reply.headers
            except LauncherError as error:
                status, body = service.refusal(error)
                if isinstance(error, Unauthorized):
                    headers["WWW-Authenticate"] = f'Keystone uri="{self._base(request)}/identity"'
            except Exception:
                log.exception("%s %r failed", request.method, request.path)
                status, body = service.refusal(LauncherError("unexpected; see the server's log"))
            if body is None:
                return web.Response(status=status, headers=headers)
            return web.json_response(body, status=status, headers=headers)

        return serve

    async def _answer(
        self, service: Service, operation: Operation | None, request: web.Request, version: Version
    ) -> Reply:
        if operation is None or version not in operation.ages:
            raise problems.HttpError(f"there is nothing at {request.path}", status=404)
        ctx = self.callers.nobody(request)
        if not operation.public:
            token = request.headers.get("X-Auth-Token", "")
            if not token:
                raise Unauthorized("the request needs a token: X-Auth-Token")
            ctx = await self.callers.by_token(request, token, unscoped=service.unscoped)
        if not ctx.role.covers(operation.needs):
            raise Forbidden(f"this needs the role {operation.needs} in the project, yours is {ctx.role}")
        _check_query(request, operation, version)
        body = await _body(request, operation.body)
        check(body, version)
        ask = Ask(request, ctx, request.match_info, dict(request.query), body, self._base(request), version)
        return await operation.do(ask)

    def _base(self, request: web.Request) -> str:
        """Without a Host header that makes sense, links have none either."""
        try:
            return self.url or str(request.url.origin())
        except ValueError:
            return ""


def _check_query(request: web.Request, operation: Operation, version: Version) -> None:
    if operation.public or "*" in operation.queries:
        return
    known = {*operation.queries, *(name for name, ages in operation.aged.items() if version in ages)}
    unknown = set(request.query) - known
    if unknown:
        raise BadRequest(f"there is no query parameter {sorted(unknown)[0]!r}")


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
        raise misfit(error) from None


def misfit(error: ValidationError) -> LauncherError:
    """What of a body is not as its model says; unknown fields in the words of JSON schema's validators."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "extra_forbidden":
        return BadRequest(unexpected(str(first["loc"][-1])), field=str(first["loc"][-1]))
    return problems.from_validation(error)


def timestamp(ms: float) -> str:
    """As Keystone writes it."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
