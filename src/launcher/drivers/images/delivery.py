"""The way of an image's bytes from a compute host to the controller's vault: a file is moved, or sent by HTTP."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import aiohttp

from launcher.drivers.images.files import in_thread
from launcher.drivers.images.local_vault import LocalArrival
from launcher.errors import BadImage, HostResourceMissing, InsufficientSpace
from launcher.images import Received, Ticket

QUIET = 60.0
"""Seconds without an answer after which a send is given up."""


async def bring(file: Path, ticket: Ticket, *, vault: Path | None) -> Received:
    """To where the ticket leads; the file may be gone afterwards. What had come before is replaced.

    `vault` is the controller's on this host, if there is one. Raises InsufficientSpace, BadImage for too many bytes,
    and HostResourceMissing when the ticket leads nowhere, or nobody takes the bytes.
    """
    if (size := (await in_thread(file.stat)).st_size) > ticket.most:
        raise BadImage(f"the disk has {size} bytes, at most {ticket.most} are allowed", hint="see [images] largest_gb")
    if ticket.url:
        return await _send(file, ticket)
    place = await in_thread(_place, ticket, vault)
    await in_thread(_move, file, place)
    arrival = LocalArrival(place, sha512=False)
    try:
        await arrival.rehash()
        return await arrival.finish()
    finally:
        await arrival.close()


def _place(ticket: Ticket, vault: Path | None) -> Path:
    """Nowhere but where this host's vault lets bytes arrive."""
    place = ticket.path
    if place is None or vault is None or place.parent != vault.absolute() / "arriving" or not place.parent.is_dir():
        raise HostResourceMissing(
            f"the controller's vault is not on this host: {place}",
            hint="the controller takes images from other hosts when [images] listen is set there",
        )
    return place


def _move(file: Path, place: Path) -> None:
    """Over the border of a file system it is a copy, of which nothing stays when it fails."""
    with contextlib.suppress(OSError):
        file.replace(place)
        place.chmod(0o600)
        return
    try:
        shutil.copyfile(file, place)
    except BaseException:
        place.unlink(missing_ok=True)
        raise


async def _send(file: Path, ticket: Ticket) -> Received:
    limits = aiohttp.ClientTimeout(total=None, sock_connect=QUIET, sock_read=QUIET)
    headers = {"Authorization": f"Bearer {ticket.token}"}
    try:
        with file.open("rb") as body:
            async with (
                aiohttp.ClientSession(timeout=limits) as http,
                http.put(ticket.url, data=body, headers=headers) as answer,
            ):
                said = await answer.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise HostResourceMissing(f"the controller's host does not take the image: {error or 'no answer'}") from None
    if answer.status == 507:
        raise InsufficientSpace(f"the controller's host: {said}", hint="free space there")
    if answer.status != 200:
        raise HostResourceMissing(f"the controller's host answers {answer.status} {answer.reason} to the image")
    return Received.model_validate_json(said)
