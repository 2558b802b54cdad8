"""Ids, MACs and secrets from a random source that is passed in: SystemRandom in the product, seeded in tests."""

from __future__ import annotations

import string
from random import Random
from uuid import UUID

from launcher.models import InstanceId, MacAddress

LOWER = string.ascii_lowercase + string.digits


def new_uuid(rng: Random) -> InstanceId:
    return str(UUID(int=rng.getrandbits(128), version=4))


def new_request_id(rng: Random) -> str:
    return f"req-{new_uuid(rng)}"


def new_reservation_id(rng: Random) -> str:
    return "r-" + "".join(rng.choices(LOWER, k=8))


def new_trace_id(rng: Random) -> str:
    """32 hex digits, as W3C trace context has them."""
    return f"{rng.getrandbits(128):032x}"


def new_span_id(rng: Random) -> str:
    return f"{rng.getrandbits(64):016x}"


def new_mac(rng: Random) -> MacAddress:
    """Nova's prefix 02:16:3e (locally administered), then 23 random bits."""
    return f"02:16:3e:{rng.getrandbits(7):02x}:{rng.getrandbits(8):02x}:{rng.getrandbits(8):02x}"


def new_account_id(rng: Random) -> str:
    """Of a project, a user or an application credential: 32 hex digits, as Keystone's are."""
    return f"{rng.getrandbits(128):032x}"


def new_access_key(rng: Random) -> tuple[str, str]:
    """An access key's id and secret, as long as EC2's; the id begins otherwise, so that nobody takes it for one."""
    key = "LA" + "".join(rng.choices(string.ascii_uppercase + "234567", k=18))
    return key, "".join(rng.choices(string.ascii_letters + string.digits, k=40))


def new_token(rng: Random) -> str:
    """A bearer token of 256 bits."""
    return f"lt_{rng.getrandbits(256):064x}"
