"""The API server role: listens, authenticates, turns requests into calls and errors into problem documents."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from launcher.accounts import UserRole
from launcher.auditing import ArtefactsRemoved, HostsAudited
from launcher.bus import Bus
from launcher.clock import Clock
from launcher.drivers.images.vault import Vault
from launcher.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    LauncherError,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from launcher.identity import new_request_id, new_span_id
from launcher.messages.access import Ping
from launcher.messages.catalogue import ListHosts
from launcher.messages.notices import InstanceChanged
from launcher.messaging import Context, Route
from launcher.models import Model, Span
from launcher.services.api import openapi, problems
from launcher.services.api.accounts import NativeAccounts
from launcher.services.api.attributes import NativeAttributes
from launcher.services.api.callers import REQUEST_ID, Callers
from launcher.services.api.credentials import NativeCredentials
from launcher.services.api.door import Door, DoorRules
from launcher.services.api.ec2.service import Ec2
from launcher.services.api.endpoint import Answer, Ask, Endpoint
from launcher.services.api.floating_ips import NativeFloatingIps
from launcher.services.api.groups import NativeGroups
from launcher.services.api.images import NativeImages
from launcher.services.api.life import NativeLife
from launcher.services.api.metadata.rooms import NoRooms, RoomDoors, Rooms
from launcher.services.api.metadata.service import Metadata, MetadataRules
from launcher.services.api.metadata.view import MetadataView
from launcher.services.api.metrics import Metrics
from launcher.services.api.native import Native
from launcher.services.api.networks import NativeNetworks
from launcher.services.api.openstack.service import OpenStack
from launcher.services.api.problems import HttpError
from launcher.services.api.rate import Rate
from launcher.services.api.tunnel import Tunnel
from launcher.services.api.uploads import Uploads
from launcher.services.api.volumes import NativeVolumes
from launcher.services.api.watch import LAST_EVENT_ID, EventsQuery, Watch
from launcher.services.role import Role

BODY_LIMIT = 256 * 1024
BODY_TIMEOUT = 10.0
HEALTH_TIMEOUT = 5.0
ROOMS_EVERY = 1.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
log = logging.getLogger(__name__)


class Health(Model):
    status: str
    bus_ms: float | None
    hosts: int
    dead_letters: int
    detail: str = ""


class ApiServer(Role):
    """Owns sockets and nothing else. `metadata_listener` is where guests reach the metadata service, if anywhere."""

    topic = "api"

    def __init__(
        self,
        *,
        host: str,
        bus: Bus,
        clock: Clock,
        rng: Random,
        listener: socket.socket,
        vault: Vault,
        metadata_listener: socket.socket | None,
        metadata_rules: MetadataRules | None = None,
        rooms: Rooms | None = None,
        region: str = "RegionOne",
        door: DoorRules | None = None,
        rate_per_second: float = 0.0,
        url: str = "",
    ) -> None:
        super().__init__(host=host, bus=bus, clock=clock, rng=rng)
        self.listener, self.metadata_listener = listener, metadata_listener
        rules = metadata_rules or MetadataRules()
        self.metadata = Metadata(bus=bus, clock=clock, rng=rng, rules=rules, context=self.own_context)
        self.door = Door(door or DoorRules())
        self.rooms = rooms or NoRooms()
        self.callers = Callers(bus=bus, rng=rng, rate=Rate(clock=clock, per_second=rate_per_second))
        self.rooms = rooms or NoRooms()
        self.ec2 = Ec2(bus=bus, clock=clock, rng=rng, callers=self.callers, region=region, traced=self._keep_span)
        uploads = Uploads(bus=bus, vault=vault)
        self.openstack = OpenStack(callers=self.callers, url=url, region=region, bus=bus, uploads=uploads)
        self.watch, self.tunnel, self.metrics = Watch(bus=bus), Tunnel(bus=bus, rooms=self.rooms), Metrics()
        parts = (
            Native(bus=bus),
            NativeLife(bus=bus),
            NativeAttributes(bus=bus),
            NativeAccounts(bus=bus),
            NativeCredentials(bus=bus),
            NativeGroups(bus=bus),
            NativeImages(bus=bus, uploads=uploads),
            NativeNetworks(bus=bus),
            NativeFloatingIps(bus=bus),
            NativeVolumes(bus=bus),
            MetadataView(bus=bus, metadata=self.metadata),
        )
        self.endpoints = [*(each for part in parts for each in part.endpoints), *self._own_endpoints()]
        self.open = AsyncExitStack()
        self.doors: RoomDoors | None = None

    @property
    def notices(self) -> Sequence[Route]:
        return [
            InstanceChanged.to(self.hear_event),
            HostsAudited.to(self.metrics.hear_audit),
            ArtefactsRemoved.to(self.metrics.hear_removal),
        ]

    async def hear_event(self, ctx: Context, message: InstanceChanged) -> None:
        await self.metrics.hear_event(ctx, message)
        await self.watch.hear_event(ctx, message)

    @property
    def recurring(self) -> Sequence[tuple[float, Callable[[], Awaitable[object]]]]:
        return [(ROOMS_EVERY, self.look_for_rooms)] if self.metadata_listener is not None else []

    async def look_for_rooms(self) -> None:
        if self.doors is not None:
            await self.doors.look()

    async def recover(self) -> None:
        """The door opens last, when everybody behind it is there."""
        await self.open.enter_async_context(self.door.open(self.application(), self.listener))
        if self.metadata_listener is not None:
            await self.open.enter_async_context(self.metadata.serving(self.metadata_listener))
            self.doors = RoomDoors(
                self.rooms, port=self.metadata_listener.getsockname()[1], serve=self.metadata.serving
            )
            self.open.push_async_callback(self.doors.close)
            await self.doors.look()

    async def stop(self) -> None:
        self.watch.close()
        await self.open.aclose()

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard], client_max_size=BODY_LIMIT)
        for endpoint in self.endpoints:
            for method in (endpoint.method, *(["HEAD"] if endpoint.method == "GET" else [])):
                application.router.add_route(method, endpoint.path, self._serve(endpoint))
        self.ec2.add_to(application)
        self.openstack.add_to(application)
        return application

    def _own_endpoints(self) -> Sequence[Endpoint]:
        """What is no translation of a message."""
        return [
            Endpoint(
                "GET",
                "/instances/{id}/tcp/{port}",
                self.tunnel.open,
                "A WebSocket of a TCP connection to the guest",
                status=101,
                raises=(Forbidden, Conflict, Unreachable),
                needs=UserRole.MEMBER,
            ),
            Endpoint(
                "GET",
                "/events",
                self.watch.stream,
                "The event log, first what was missed, then live",
                query=EventsQuery,
                headers={"Last-Event-ID": {"type": "string", "pattern": LAST_EVENT_ID}},
                response=str,
                content_type="text/event-stream",
                raises=(NotFound, Conflict),
            ),
            Endpoint("GET", "/healthz", self._healthz, "Whether it works", or_status=503, response=Health, public=True),
            Endpoint(
                "GET", "/metrics", self._metrics, "For Prometheus", response=str, content_type="text/plain", public=True
            ),
            Endpoint("GET", "/openapi.json", self._openapi, "This description", response=dict[str, Any], public=True),
        ]

    # --- one request ---------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every answer has a request id; every failure is a problem document; every request is counted."""
        self.door.heard(request.protocol)
        request[REQUEST_ID], started = new_request_id(self.rng), self.clock.now_ms()
        try:
            response = await handler(request)
        except LauncherError as error:
            response = self._problem(request, error)
        except web.HTTPException as error:
            response = self._problem(request, HttpError(_http_words(error, request), status=error.status))
            response.headers.update({name: error.headers[name] for name in ("Allow",) if name in error.headers})
        except Exception:
            log.exception("%s %r failed", request.method, request.path)
            response = self._problem(request, LauncherError("unexpected; see the server's log"))
        if not response.prepared:
            response.headers["X-Request-Id"] = request[REQUEST_ID]
        resource = request.match_info.route.resource
        endpoint = resource.canonical if resource else "unknown"
        self.metrics.requests.labels(request.method, endpoint, str(response.status)).inc()
        self.metrics.seconds.labels(request.method, endpoint).observe((self.clock.now_ms() - started) / 1000)
        return response

    def _problem(self, request: web.Request, error: LauncherError) -> web.Response:
        headers = {Unauthorized: {"WWW-Authenticate": "Bearer"}, TooManyRequests: {"Retry-After": "1"}}.get(type(error))
        return problems.answer(error, request[REQUEST_ID], headers=headers)

    def _serve(self, endpoint: Endpoint) -> Handler:
        dump = TypeAdapter(endpoint.response).dump_json if endpoint.response not in (None, str) else None

        async def handle(request: web.Request) -> web.StreamResponse:
            started = self.clock.now_ms()
            ctx = self.callers.nobody(request) if endpoint.public else await self.callers.by_bearer(request)
            if not ctx.role.covers(endpoint.needs):
                raise Forbidden(f"this needs the role {endpoint.needs} in the project, yours is {ctx.role}")
            try:
                query = endpoint.query.model_validate(dict(request.query))
                body = await _body(request, endpoint.body)
            except ValidationError as error:
                raise problems.from_validation(error) from None
            inner = ctx.within(new_span_id(self.rng)) if endpoint.traced else ctx
            answer = await endpoint.handler(Ask(request, inner, request.match_info, query, body, request.headers))
            if endpoint.traced:
                self._keep_span(f"{request.method} {request.path}", ctx, inner, started)
            if isinstance(answer, web.StreamResponse):
                return answer
            content = dump(answer.body) if dump else str(answer.body or "").encode()
            response = web.Response(body=content, status=answer.status or endpoint.status, headers=answer.headers)
            response.content_type, response.charset = endpoint.content_type, "utf-8"
            response.headers["X-Content-Type-Options"] = "nosniff"
            response.headers["traceparent"] = f"00-{inner.trace_id}-{inner.span_id or '0' * 15 + '1'}-01"
            return response

        return handle

    def _keep_span(self, name: str, ctx: Context, inner: Context, started: float) -> None:
        assert inner.span_id
        self.keep(
            Span(
                trace_id=ctx.trace_id,
                span_id=inner.span_id,
                parent_id=ctx.span_id,
                role=self.topic,
                host=self.host,
                name=name,
                kind="http",
                queued_ms=None,
                start_ms=started,
                end_ms=self.clock.now_ms(),
            )
        )

    # --- what is no translation of a message ------------------------------------------------------------

    async def _healthz(self, ask: Ask) -> Answer:
        """A round trip over the bus to the controller, and whether any host is alive."""
        ctx, started, dead = ask.ctx, self.clock.now_ms(), self.bus.dead.count
        try:
            await self.bus.call(ctx, Ping(), timeout=HEALTH_TIMEOUT)
            bus_ms = self.clock.now_ms() - started
            hosts = await self.bus.call(ctx, ListHosts(), timeout=HEALTH_TIMEOUT)
            status = "no host" if not hosts else "ok" if self.bus.ready else "degraded"
            detail = "" if self.bus.ready else "no broker; the roles in this process go on without it"
            health = Health(status=status, bus_ms=bus_ms, hosts=len(hosts), dead_letters=dead, detail=detail)
        except LauncherError as error:
            health = Health(status="bus down", bus_ms=None, hosts=0, dead_letters=dead, detail=str(error))
        return Answer(health, status=200 if health.status in ("ok", "degraded") else 503)

    async def _metrics(self, ask: Ask) -> Answer:
        self.metrics.dead.set(self.bus.dead.count)
        self.metrics.ready.set(self.bus.ready)
        return Answer(self.metrics.text().decode())

    async def _openapi(self, ask: Ask) -> Answer:
        return Answer(openapi.document(self.endpoints))


async def _body(request: web.Request, model: type[Model] | None) -> Model | None:
    """The JSON body as its model, strictly: a number in quotes is no number."""
    if model is None:
        return None
    if request.content_type not in ("application/json", "application/octet-stream"):
        raise HttpError(f"the body is {request.content_type}", status=415, hint="send application/json")
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            raw = await request.read()
    except TimeoutError:
        raise HttpError(f"the body did not arrive in {BODY_TIMEOUT:g} s", status=408) from None
    except web.RequestPayloadError:
        raise BadRequest("the body is not what its encoding says", hint="send it plain") from None
    if not raw:
        raise BadRequest("the body is empty", hint="send a JSON object")
    return model.model_validate_json(raw, strict=True)


def _http_words(error: web.HTTPException, request: web.Request) -> str:
    words = {
        404: f"there is nothing at {request.path}",
        405: f"{request.method} is not possible at {request.path}",
        413: f"the body is larger than {BODY_LIMIT} bytes",
    }
    return words.get(error.status, error.reason)
