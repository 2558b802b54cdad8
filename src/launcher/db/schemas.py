"""The numbered migrations of each owner's file; new steps are appended, old ones never edited once released."""

from __future__ import annotations

from importlib.resources import files

_HERE = files("launcher.db")

CONTROLLER = (
    _HERE.joinpath("controller.sql").read_text(),
    "ALTER TABLE instances ADD COLUMN tried_hosts TEXT NOT NULL DEFAULT '[]'",
)
NETWORK = (_HERE.joinpath("network.sql").read_text(),)
