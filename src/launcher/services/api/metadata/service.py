"""The metadata service on its own port: it knows who asks by `door.py`, never by a header."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from random import Random

from aiohttp import web

from launcher.bus import Bus
from launcher.clock import Clock
from launcher.errors import LauncherError, NotFound
from launcher.guestdata import ec2, openstack
from launcher.guestdata.guest import Guest
from launcher.guestdata.tree import Node, answer, find, split
from launcher.messaging import Context
from launcher.services.api.metadata.door import Allowance, Door, by_a_bridge, on, source_of
from launcher.services.api.metadata.guests import Guests, Source
from launcher.services.api.metadata.tokens import LONGEST, Tokens

TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"  # noqa: S105 - the header's name
TOKEN_PATH = ["latest", "api", "token"]
SHUTDOWN_TIMEOUT = 1.0

Who = Callable[[socket.socket], Source]

log = logging.getLogger(__name__)
MUTE = logging.getLogger(f"{__name__}.http")
MUTE.setLevel(logging.CRITICAL)
"""A guest that sends what is no HTTP must not fill the log."""


@dataclass(frozen=True)
class MetadataRules:
    """Whether a request needs a token, whether EC2's tree shows the instance's metadata as tags, and who may come."""

    token_required: bool = False
    tags: bool = True
    admits: Callable[[Source], bool] = by_a_bridge


class Refusal(Exception):
    def __init__(self, status: HTTPStatus, **headers: str) -> None:
        super().__init__(status.phrase)
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}


class Metadata:
    """`look_up` is the whole tree; around it is what a service needs that strangers talk to."""

    def __init__(
        self, *, bus: Bus, clock: Clock, rng: Random, rules: MetadataRules, context: Callable[[], Context]
    ) -> None:
        self.rng, self.rules, self.context = rng, rules, context
        self.guests = Guests(bus=bus, clock=clock)
        self.tokens = Tokens(clock=clock, rng=rng)
        self.requests, self.connections = Allowance(clock=clock), Allowance(clock=clock)

    @contextlib.asynccontextmanager
    async def serving(self, listener: socket.socket, room: str | None = None) -> AsyncIterator[None]:
        """`room` is the bridge of a network whose guests, and nobody else, reach this listener."""
        who, admits = (source_of, self.rules.admits) if room is None else (on(room), lambda _: True)
        server = web.Server(partial(self._answer, who), access_log=None, logger=MUTE)
        try:
            async with Door(server, allowance=self.connections, who=who, admits=admits).open(listener):
                yield
        finally:
            await server.shutdown(SHUTDOWN_TIMEOUT)

    def look_up(self, guest: Guest, path: str) -> Node:
        """Raises NotFound."""
        parts = split(path)
        if parts[:1] == ["openstack"]:
            return find(openstack.root(guest, rng=self.rng), parts[1:])
        return find(ec2.root(guest, tags=self.rules.tags), parts)

    async def _answer(self, who: Who, request: web.BaseRequest) -> web.Response:
        try:
            return await self._respond(request, _source(who, request))
        except Refusal as refusal:
            return _refused(refusal)
        except NotFound:
            return _refused(Refusal(HTTPStatus.NOT_FOUND))
        except LauncherError as error:
            log.warning("metadata for %s: %s", request.remote, error)
            return _refused(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, Retry_After="2"))
        except Exception:
            log.exception("metadata for %s failed", request.remote)
            return _refused(Refusal(HTTPStatus.INTERNAL_SERVER_ERROR))

    async def _respond(self, request: web.BaseRequest, source: Source) -> web.Response:
        if not self.requests.take(source):
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, Retry_After="1")
        about_token = split(request.path) == TOKEN_PATH
        if request.method not in (("PUT",) if about_token else ("GET", "HEAD")):
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, Allow="PUT" if about_token else "GET, HEAD")
        if about_token and "X-Forwarded-For" in request.headers:
            raise Refusal(HTTPStatus.FORBIDDEN)
        guest = await self.guests.find(self.context(), source)
        if about_token:
            return self._issue(request, guest)
        headers = self._check(request, guest)
        leaf = answer(self.look_up(guest, request.path))
        return web.Response(body=leaf.body, content_type=leaf.content_type, headers=headers)

    def _issue(self, request: web.BaseRequest, guest: Guest) -> web.Response:
        wanted = request.headers.get(TTL, "")
        if not (wanted.isascii() and wanted.isdigit() and len(wanted) <= 5 and 1 <= int(wanted) <= LONGEST):
            raise Refusal(HTTPStatus.BAD_REQUEST)
        token = self.tokens.issue(guest.told.instance.id, int(wanted))
        return web.Response(text=token, headers={TTL: wanted})

    def _check(self, request: web.BaseRequest, guest: Guest) -> dict[str, str]:
        """A token that is sent must be good; whether one must be sent is a setting."""
        token = request.headers.get(TOKEN)
        if token is None and not self.rules.token_required:
            return {}
        left = self.tokens.seconds_left(token or "", guest.told.instance.id)
        if not left:
            raise Refusal(HTTPStatus.UNAUTHORIZED)
        return {TTL: str(left)}


def _source(who: Who, request: web.BaseRequest) -> Source:
    connection = request.transport.get_extra_info("socket") if request.transport else None
    try:
        if connection is not None:
            return who(connection)
    except OSError as error:
        log.info("who asks is gone: %s", error)
    raise Refusal(HTTPStatus.BAD_REQUEST)


def _refused(refusal: Refusal) -> web.Response:
    """In EC2's words."""
    title = f"{refusal.status.value} - {refusal.status.phrase}"
    body = (
        '<?xml version="1.0" encoding="iso-8859-1"?>\n'
        '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"\n'
        '\t"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">\n'
        '<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">\n'
        f" <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n\n </body>\n</html>\n"
    )
    return web.Response(text=body, status=refusal.status, content_type="text/html", headers=refusal.headers)
