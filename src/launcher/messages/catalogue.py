"""To the controller, from the API server: flavors and hosts."""

from __future__ import annotations

from launcher.accounts import UserRole
from launcher.messaging import Call
from launcher.models import Flavor, HostState


class ListFlavors(Call[list[Flavor]]):
    topic = "controller"
    needs = UserRole.READER


class ListHosts(Call[list[HostState]]):
    topic = "controller"
    needs = UserRole.READER
