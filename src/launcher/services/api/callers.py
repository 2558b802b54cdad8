"""Who asks: what a request carries becomes the context that every message of its work takes along."""

from __future__ import annotations

import hashlib
import re
from random import Random
from typing import Literal

from aiohttp import web

from launcher.accounts import Identity
from launcher.bus import Bus
from launcher.errors import Unauthorized
from launcher.identity import new_trace_id
from launcher.messages.access import Authenticate, VerifySignature
from launcher.messaging import Context
from launcher.services.api.rate import Rate

REQUEST_ID = web.RequestKey("request_id", str)
TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")


class Callers:
    """The controller says who it is; its answer holds for one request."""

    def __init__(self, *, bus: Bus, rng: Random, rate: Rate) -> None:
        self.bus, self.rng, self.rate = bus, rng, rate

    def nobody(self, request: web.Request) -> Context:
        """The context of a request before it is known who asks: in its trace, and with no project."""
        parent = TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
        return Context(
            request_id=request[REQUEST_ID],
            project_id="",
            user_id="",
            trace_id=parent[1] if parent else new_trace_id(self.rng),
            span_id=parent[2] if parent else None,
        )

    async def by_bearer(self, request: web.Request) -> Context:
        """By the native dialect's header. Raises Unauthorized."""
        return await self.by_token(request, bearer(request))

    async def by_token(self, request: web.Request, token: str, *, unscoped: bool = False) -> Context:
        """With `unscoped` one for no project will do. Raises Unauthorized, TooManyRequests."""
        ctx = self.nobody(request)
        return self._known(ctx, await self.bus.call(ctx, Authenticate(token_sha256=sha256(token), unscoped=unscoped)))

    async def by_signature(
        self,
        request: web.Request,
        *,
        access_key: str,
        version: Literal[2, 4],
        string_to_sign: str,
        or_string: str | None,
        signature: str,
        service: str,
    ) -> Context:
        """As EC2's dialect has it (`VerifySignature`). Raises Unauthorized, the same for whatever is wrong."""
        ctx = self.nobody(request)
        signed = VerifySignature(
            access_key=access_key,
            version=version,
            string_to_sign=string_to_sign,
            or_string=or_string,
            signature=signature,
            service=service,
        )
        return self._known(ctx, await self.bus.call(ctx, signed))

    def _known(self, ctx: Context, who: Identity) -> Context:
        self.rate.admit(who.credential_id)
        return ctx.model_copy(update=dict(who))


def bearer(request: web.Request) -> str:
    """The native dialect's token. Raises Unauthorized."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("a bearer token is needed", hint="Authorization: Bearer … (admin.json has one)")
    return token.strip()


def sha256(token: str) -> str:
    """What of a token leaves this process."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
