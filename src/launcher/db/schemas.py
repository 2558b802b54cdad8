"""The numbered migrations of each owner's file; new steps are appended, old ones never edited once released."""

from __future__ import annotations

from importlib.resources import files

_HERE = files("launcher.db")

_CONTROLLER = (
    "controller.sql",
    "nics.sql",
    "tried_hosts.sql",
    "accounts.sql",
    "personality.sql",
    "key_pairs.sql",
    "tags.sql",
    "images.sql",
    "life.sql",
    "attributes.sql",
    "volumes.sql",
    "rescue.sql",
    "words.sql",
    "extensions.sql",
)
_NETWORK = ("network.sql", "networks.sql", "floating_ips.sql")

CONTROLLER = tuple(_HERE.joinpath(name).read_text() for name in _CONTROLLER)
NETWORK = tuple(_HERE.joinpath(name).read_text() for name in _NETWORK)
