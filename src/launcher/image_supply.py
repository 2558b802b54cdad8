"""The part of the composition root that images need: the library, the vault, the network, the list of known images."""

from __future__ import annotations

import asyncio
import socket
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from ipaddress import ip_network
from pathlib import Path
from random import Random

from pydantic import ValidationError

from launcher.clock import Clock
from launcher.config import Config
from launcher.drivers.images import library
from launcher.drivers.images.download import HttpDownloads
from launcher.drivers.images.fake import FAKE_IMAGES
from launcher.drivers.images.local_vault import LocalVault
from launcher.errors import BadRequest
from launcher.images import KnownImage, check_url
from launcher.models import Image
from launcher.services.controller.images import ImageSupply


def library_path(config: Config, state: Path) -> Path:
    return Path(config.images.library) if config.images.library else state / "images"


def vault_path(state: Path) -> Path:
    return state / "vault"


def image_supply(config: Config, state: Path, *, clock: Clock, rng: Random) -> ImageSupply:
    """With the fake drivers the library is a fake, too; imports are real, as nothing of them needs the host."""
    path = library_path(config, state)

    async def read_image(name: str) -> Sequence[Image]:
        return await asyncio.to_thread(library.read_image, path, name)

    return ImageSupply(
        read_image=read_image,
        library=FAKE_IMAGES if config.virt.driver == "fake" else library.list_images(path),
        known=known_images(Path(config.images.known) if config.images.known else None),
        vault=LocalVault(vault_path(state)),
        downloads=HttpDownloads(clock=clock, rng=rng, allowed=config.images.fetch_from),
        most=config.images.largest_gb * 2**30,
        listener=_listener(config.images.listen) if config.images.listen else None,
    )


def host_downloads(*, clock: Clock, rng: Random) -> HttpDownloads:
    """For a compute host, which fetches from the controller wherever that is: the address came over the bus."""
    return HttpDownloads(clock=clock, rng=rng, allowed=(ip_network("0.0.0.0/0"), ip_network("::/0")))


def _listener(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    return socket.create_server((host, int(port)))


def known_images(path: Path | None = None) -> Mapping[str, KnownImage]:
    """By name; the package's own list without a `path`. Raises BadRequest that names what is wrong."""
    place = path or files("launcher").joinpath("known_images.toml")
    try:
        told = tomllib.loads(place.read_text())
        found = [KnownImage.model_validate({"name": name, **facts}) for name, facts in told.items()]
    except (OSError, ValueError, TypeError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise BadRequest(f"{place}: {why}", hint="see [images] known") from None
    return {image.name: image.model_copy(update={"url": check_url(image.url)}) for image in found}
