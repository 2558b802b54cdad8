"""To the controller, from the API server: key pairs."""

from __future__ import annotations

from typing import Literal

from launcher.accounts import UserRole
from launcher.messaging import Call
from launcher.models import CreatedKeyPair, KeyPair, Name


class CreateKeyPair(Call[CreatedKeyPair]):
    """Make a pair, or with `public_key` import one; raises Conflict when the name is taken.

    `type` is of the pair to make; an RSA key has 2048 bits.
    """

    topic = "controller"
    name: Name
    public_key: str | None = None
    type: Literal["ed25519", "rsa"] = "ed25519"


class ListKeyPairs(Call[list[KeyPair]]):
    topic = "controller"
    needs = UserRole.READER


class DeleteKeyPair(Call[None]):
    topic = "controller"
    name: str
