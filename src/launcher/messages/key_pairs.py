"""To the controller, from the API server: key pairs."""

from __future__ import annotations

from launcher.accounts import UserRole
from launcher.messaging import Call
from launcher.models import CreatedKeyPair, KeyPair, Name


class CreateKeyPair(Call[CreatedKeyPair]):
    """Make a pair, or with `public_key` import one; raises Conflict when the name is taken."""

    topic = "controller"
    name: Name
    public_key: str | None = None


class ListKeyPairs(Call[list[KeyPair]]):
    topic = "controller"
    needs = UserRole.READER


class DeleteKeyPair(Call[None]):
    topic = "controller"
    name: str
