"""To the controller, from the API server: who asks, and is anybody there."""

from __future__ import annotations

from launcher.messaging import Call
from launcher.models import Identity


class Ping(Call[None]):
    """Answered at once: the round trip behind /healthz."""

    topic = "controller"


class Authenticate(Call[Identity]):
    """Resolve a bearer token by its SHA-256; raises Unauthorized."""

    topic = "controller"
    token_sha256: str
