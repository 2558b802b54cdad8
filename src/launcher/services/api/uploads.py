"""Images' bytes on their way in and out, for every dialect: nothing is decided about them."""

from __future__ import annotations

import asyncio

from aiohttp import web

from launcher.bus import Bus
from launcher.drivers.images.vault import Vault
from launcher.errors import BadImage, BadRequest, Conflict, LauncherError
from launcher.images import CatalogueImage, Received, Ticket
from launcher.messages.images import BeginUpload, EndUpload, OpenImage
from launcher.messaging import Context

PIECE = 2**18
QUIET = 60.0
"""Seconds without a byte after which an uploader is given up."""


class Uploads:
    """From a request's body to the vault, and back."""

    def __init__(self, *, bus: Bus, vault: Vault) -> None:
        self.bus, self.vault = bus, vault

    async def receive(self, ctx: Context, request: web.Request, image: str) -> CatalogueImage:
        """Whatever becomes of the bytes, the image is told: it ends active, or in error with the reason."""
        ticket = await self.bus.call(ctx, BeginUpload(image=image))
        try:
            received = await self._receive(request, ticket)
        except BaseException as error:  # noqa: BLE001 - the row must not wait for ever
            named = LauncherError.named(error) if isinstance(error, Exception) else None
            failure = str(named) if named else "the upload was cut off"
            await asyncio.shield(self.bus.call(ctx, EndUpload(image_id=ticket.image_id, failure=failure)))
            raise named or error from None
        return await self.bus.call(ctx, EndUpload(image_id=ticket.image_id, received=received))

    async def _receive(self, request: web.Request, ticket: Ticket) -> Received:
        arrival = await self.vault.open_arrival(ticket.image_id, resume=False, sha512=ticket.sha512)
        try:
            _check_size(request.content_length or 0, ticket)
            pieces = request.content.iter_chunked(PIECE)
            while True:
                async with asyncio.timeout(QUIET):
                    piece = await anext(pieces, None)
                if not piece:
                    break
                await arrival.append(piece)
                _check_size(arrival.size, ticket)
            if arrival.size != (request.content_length or arrival.size):
                raise BadRequest(f"the upload was cut off: {arrival.size} of {request.content_length} bytes came")
            return await arrival.finish()
        except web.RequestPayloadError:
            raise BadRequest("the body is not what its encoding says", hint="send it plain") from None
        except TimeoutError:
            raise BadRequest(f"nothing came for {QUIET:g} s, after {arrival.size} bytes") from None
        finally:
            await arrival.close()

    async def send(self, ctx: Context, image: str) -> web.StreamResponse:
        """Parts of it by Range."""
        ticket = await self.bus.call(ctx, OpenImage(image=image))
        assert ticket.path
        headers = {"X-Content-Type-Options": "nosniff", "X-Checksum-Sha256": ticket.sha256 or ""}
        headers |= {"Content-Type": "application/octet-stream", "Content-Disposition": "attachment"}
        if not await asyncio.to_thread(ticket.path.is_file):
            raise Conflict(f"{ticket.path} is not on this host")
        return web.FileResponse(ticket.path, headers=headers)


def _check_size(size: int, ticket: Ticket) -> None:
    if size > ticket.most:
        raise BadImage(
            f"the image has {size} bytes or more, at most {ticket.most} are allowed", hint="see [images] largest_gb"
        )
