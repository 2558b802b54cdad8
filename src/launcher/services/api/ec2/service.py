"""The way of an EC2 request: its parameters, whose signature it has, its model, what it asks for, and the answer."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from random import Random

from aiohttp import web

from launcher.accounts import UserRole
from launcher.bus import Bus
from launcher.clock import Clock
from launcher.errors import LauncherError
from launcher.identity import new_span_id
from launcher.messaging import Context
from launcher.services.api.callers import REQUEST_ID, Callers
from launcher.services.api.ec2 import query, signature, xml
from launcher.services.api.ec2.operation import Ask, Operation, dry_run
from launcher.services.api.ec2.operations import operations
from launcher.services.api.ec2.query import Request
from launcher.services.api.ec2.refusals import Refusal, missing, translated
from launcher.services.api.ec2.signature import Pairs, Received, Signed

PATHS = ("/", "/services/Cloud", "/services/Cloud/")
FORM = "application/x-www-form-urlencoded"
VERSION = re.compile(r"20(0[6-9]|1[0-6])-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])")
LAST_VERSION = "2016-11-15"
PROTOCOL = frozenset(
    (
        *("Action", "Version", "AWSAccessKeyId", "SignatureVersion", "SignatureMethod", "Signature", "Timestamp"),
        *("Expires", "SecurityToken"),
    )
)
"""Parameters that are about the request itself, with those of a signature in the query. A token of a session that some
clients send along tells nothing here."""
BODY_TIMEOUT = 10.0
SEEN_KEPT = 100_000
SEEN_AGAIN = 5.0
"""Seconds in which a signature may come twice: a client's second of the same time stamp, and its way here."""

log = logging.getLogger(__name__)
Finish = Callable[[str, Context, Context, float], None]


class Seen:
    """Signatures of requests that changed something, so that a recorded one does not change it again."""

    def __init__(self) -> None:
        self.known: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def check(self, signed: Signed, now: float) -> None:
        """Raises Refusal for a repetition that no client makes: it signs anew for every try."""
        key = hashlib.sha256(f"{signed.access_key}/{signed.signature}".encode()).digest()[:16]
        first, _ = self.known.setdefault(key, (now, signed.ends))
        if now - first > SEEN_AGAIN:
            raise Refusal("RequestExpired", "Request has expired: it has been answered before.")
        while len(self.known) > SEEN_KEPT or next(iter(self.known.values()))[1] < now:
            self.known.popitem(last=False)


class Ec2:
    """`traced` keeps the span of a request."""

    def __init__(self, *, bus: Bus, clock: Clock, callers: Callers, rng: Random, region: str, traced: Finish) -> None:
        self.bus, self.clock, self.callers, self.region, self.traced = bus, clock, callers, region, traced
        self.rng = rng
        self.operations: Mapping[str, Operation] = {each.name: each for each in operations()}
        self.seen = Seen()

    def add_to(self, application: web.Application) -> None:
        for path in PATHS:
            for method in ("GET", "POST"):
                application.router.add_route(method, path, self.serve)

    async def serve(self, request: web.Request) -> web.Response:
        """An answer, or a refusal, in XML."""
        request_id = _shown(request[REQUEST_ID])
        try:
            status, body = 200, await self._answer(request)
        except Refusal as refusal:
            status, body = refusal.status, xml.refused(refusal, request_id)
        except web.HTTPException as error:
            status, body = error.status, xml.refused(Refusal("InvalidRequest", f"HTTP: {error.reason}"), request_id)
        return web.Response(body=body, status=status, content_type="text/xml", charset="utf-8")

    async def _answer(self, request: web.Request) -> bytes:
        received = await _received(request)
        parameters = query.pairs("&".join(filter(None, (received.query, _form(received)))))
        named = dict(parameters)
        operation, version = self._operation(named), _version(named)
        signed = signature.read(received, parameters)
        now = self.clock.now_ms() / 1000
        signed.check_time(now)
        try:
            ctx = await self.callers.by_signature(
                request,
                access_key=signed.access_key,
                version=signed.version,
                string_to_sign=signed.string_to_sign,
                or_string=signed.or_string,
                signature=signed.signature,
                service=signed.service,
            )
            if operation.changes:
                self.seen.check(signed, now)
            wanted = query.parse(operation.request, _own(parameters))
            ask = Ask(
                self.bus,
                ctx.within(new_span_id(self.rng)),
                version,
                self.region,
                request.host,
                now * 1000,
                wanted.dry_run,
            )
            return await self._do(operation, ask, wanted, ctx)
        except LauncherError as error:
            raise translated(error, operation.names) from error
        except Refusal:
            raise
        except Exception:
            log.exception("%s failed", operation.name)
            raise Refusal("InternalError", "An internal error has occurred") from None

    async def _do(self, operation: Operation, ask: Ask, wanted: Request, ctx: Context) -> bytes:
        if operation.changes and not ctx.role.covers(UserRole.MEMBER):
            raise Refusal("UnauthorizedOperation", "You are not authorized to perform this operation.")
        shape = await operation.do(ask, wanted)
        if wanted.dry_run:
            raise dry_run()
        if operation.changes:
            self.traced(f"POST {operation.name}", ctx, ask.ctx, ask.now_ms)
        return xml.answer(operation.name, ask.version, _shown(ctx.request_id), shape)

    def _operation(self, named: Mapping[str, str]) -> Operation:
        if not named.get("Action"):
            raise Refusal("MissingAction", "The request must contain the parameter Action")
        if named["Action"] not in self.operations:
            raise Refusal("InvalidAction", f"The action {named['Action']} is not valid for this web service.")
        return self.operations[named["Action"]]


def _shown(request_id: str) -> str:
    """As EC2's are, a UUID alone."""
    return request_id.removeprefix("req-")


def _version(named: Mapping[str, str]) -> str:
    version = named.get("Version")
    if not version:
        raise missing("Version")
    if not VERSION.fullmatch(version) or version > LAST_VERSION:
        raise Refusal("NoSuchVersion", f"The requested version ({version}) of service AmazonEC2 does not exist")
    return version


def _own(parameters: Pairs) -> Sequence[tuple[str, str]]:
    return [(name, value) for name, value in parameters if name not in PROTOCOL and not name.startswith("X-Amz-")]


def _form(received: Received) -> str:
    if not received.body:
        return ""
    if (received.header("content-type") or FORM).partition(";")[0].strip().lower() != FORM:
        raise Refusal("InvalidRequest", f"The body of a request is {FORM}")
    try:
        return received.body.decode("ascii")
    except UnicodeDecodeError:
        raise Refusal("MalformedQueryString", "The body has what a form cannot have") from None


async def _received(request: web.Request) -> Received:
    path, _, raw = request.raw_path.partition("?")
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.raw_headers]
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return Received(request.method, path, raw, headers, await request.read())
    except TimeoutError:
        raise Refusal("RequestTimeout", f"The body did not arrive in {BODY_TIMEOUT:g} s") from None
