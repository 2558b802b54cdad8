"""Where compute hosts fetch the bytes of images, and bring those of their instances: HTTP, by a ticket that came over
the bus and opens one content, or lets one arrive.

Without a listener there is no door, and hosts can launch only what lies on a file system of their own, and bring what
they have to the vault of the same machine.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from random import Random
from typing import NamedTuple

from aiohttp import web

from launcher.clock import Clock
from launcher.db import images
from launcher.db.database import Database
from launcher.drivers.images.vault import Vault
from launcher.errors import NotFound
from launcher.identity import new_token
from launcher.images import Ticket
from launcher.messages.images import OpenContent
from launcher.messaging import Context, Route

PIECE = 2**20
KEPT_MS = 6 * 3600 * 1000
"""How long a ticket is good for: a large image over a slow line, with all its retries."""


class _Opening(NamedTuple):
    """What a ticket opens, and until when."""

    sha256: str
    path: Path
    until_ms: float


class _Expected(NamedTuple):
    """What a ticket lets arrive, of how many bytes at most, and until when."""

    name: str
    most: int
    until_ms: float


class ImageDoor:
    """Tickets live in memory: after a restart a host asks for another one."""

    def __init__(
        self, *, db: Database, clock: Clock, rng: Random, vault: Vault, listener: socket.socket | None
    ) -> None:
        self.db, self.clock, self.rng, self.vault, self.listener = db, clock, rng, vault, listener
        self.tickets: dict[str, _Opening] = {}
        self.expected: dict[str, _Expected] = {}
        self.given = 0
        self.runner: web.AppRunner | None = None

    @property
    def routes(self) -> list[Route]:
        return [OpenContent.to(self.open_content)]

    async def start(self) -> None:
        if self.listener is None:
            return
        application = web.Application()
        application.router.add_get("/{sha256}", self._give)
        application.router.add_put("/arriving/{name}", self._take)
        self.runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self.runner.setup()
        await web.SockSite(self.runner, self.listener).start()

    async def stop(self) -> None:
        if self.runner is not None:
            await self.runner.cleanup()

    async def open_content(self, ctx: Context, message: OpenContent) -> Ticket:
        sha256, path = message.sha256, self.vault.path(message.sha256)
        content = await self.db.read(lambda db: images.find_content(db, sha256))
        if content is None:
            raise NotFound(f"no image and no instance has the content {sha256}")
        found = Ticket(image_id=content.id, most=content.size or 0, sha256=sha256, path=content.path or path)
        if self.listener is None:
            return found
        now, token = self.clock.now_ms(), new_token(self.rng)
        self.tickets = {known: opening for known, opening in self.tickets.items() if opening.until_ms > now}
        self.tickets[token] = _Opening(sha256, found.path or path, now + KEPT_MS)
        host, port = self.listener.getsockname()[:2]
        return found.model_copy(update={"url": f"http://{host}:{port}/{sha256}", "token": token})

    def expect(self, name: str, *, most: int) -> Ticket:
        """For a host that is to bring an arrival of this name."""
        found = Ticket(image_id=name, most=most, path=self.vault.arrival(name))
        if self.listener is None:
            return found
        now, token = self.clock.now_ms(), new_token(self.rng)
        self.expected = {known: each for known, each in self.expected.items() if each.until_ms > now}
        self.expected[token] = _Expected(name, most, now + KEPT_MS)
        host, port = self.listener.getsockname()[:2]
        return found.model_copy(update={"url": f"http://{host}:{port}/arriving/{name}", "token": token})

    async def _take(self, request: web.Request) -> web.StreamResponse:
        expected = self.expected.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if expected is None or expected.name != request.match_info["name"] or expected.until_ms < self.clock.now_ms():
            raise web.HTTPUnauthorized
        arrival = await self.vault.open_arrival(expected.name, resume=False)
        try:
            async for piece in request.content.iter_chunked(PIECE):
                await arrival.append(piece)
                if arrival.size > expected.most:
                    raise web.HTTPRequestEntityTooLarge(max_size=expected.most, actual_size=arrival.size)
            received = await arrival.finish()
        except OSError as error:
            raise web.HTTPInsufficientStorage(text=str(error)) from None
        finally:
            await arrival.close()
        return web.json_response(received.model_dump())

    async def _give(self, request: web.Request) -> web.StreamResponse:
        opening = self.tickets.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if opening is None or opening.sha256 != request.match_info["sha256"] or opening.until_ms < self.clock.now_ms():
            raise web.HTTPUnauthorized
        if not await asyncio.to_thread(opening.path.is_file):
            raise web.HTTPNotFound
        self.given += 1
        return web.FileResponse(opening.path, chunk_size=2**20)
