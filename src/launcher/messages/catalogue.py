"""To the controller, from the API server: images, flavors and hosts."""

from __future__ import annotations

from launcher.accounts import UserRole
from launcher.messaging import Call
from launcher.models import Flavor, HostState, Image, Name


class RegisterImage(Call[list[Image]]):
    """Enter the image of this name from the image library into the catalogue (admins). Same content, same ids."""

    topic = "controller"
    needs = UserRole.ADMIN
    name: Name


class ListImages(Call[list[Image]]):
    topic = "controller"
    needs = UserRole.READER


class ListFlavors(Call[list[Flavor]]):
    topic = "controller"
    needs = UserRole.READER


class ListHosts(Call[list[HostState]]):
    topic = "controller"
    needs = UserRole.READER
