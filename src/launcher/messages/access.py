"""To the controller, from the API server: who asks, and is anybody there.

These are asked before anybody knows who it is. Whoever is not let in hears no more than that.
"""

from __future__ import annotations

from typing import Literal

from launcher.accounts import Identity, UserRole
from launcher.messaging import Call


class Ping(Call[None]):
    """Answered at once: the round trip behind /healthz."""

    topic = "controller"
    needs = UserRole.READER


class Authenticate(Call[Identity]):
    """Resolve a bearer token by its SHA-256; raises Unauthorized."""

    topic = "controller"
    needs = UserRole.READER
    token_sha256: str


class VerifySignature(Call[Identity]):
    """Who has made this signature with an access key's secret; raises Unauthorized, the same for whatever is wrong.

    Version 4: HMAC-SHA256 in hex, by the key that AWS derives for the scope, which is the third line of
    `string_to_sign`; it must be of the service `ec2`. Version 2: HMAC-SHA256 in base64, by the secret itself.
    Time stamps and repetitions are the caller's to look at. Too many failures in a row lock the key for a while.
    """

    topic = "controller"
    needs = UserRole.READER
    access_key: str
    version: Literal[2, 4]
    string_to_sign: str
    signature: str
