"""To the controller, from the API server: images, flavors and hosts."""

from __future__ import annotations

from launcher.messaging import Call
from launcher.models import Flavor, HostState, Image, Name


class RegisterImage(Call[list[Image]]):
    """Enter the image of this name from the image library into the catalogue (admins). Same content, same ids."""

    topic = "controller"
    name: Name


class ListImages(Call[list[Image]]):
    topic = "controller"


class ListFlavors(Call[list[Flavor]]):
    topic = "controller"


class ListHosts(Call[list[HostState]]):
    topic = "controller"
