"""What an administrator has allowed a project beside the settings."""

from __future__ import annotations

import sqlite3

from launcher.models import Quotas


def get(db: sqlite3.Connection, project_id: str, usual: Quotas) -> Quotas:
    """The project's quotas: its own where it has some, else the usual ones of the settings."""
    rows = db.execute("SELECT name, most FROM quotas WHERE project_id = ?", (project_id,)).fetchall()
    own = {row["name"]: row["most"] for row in rows if row["name"] in Quotas.model_fields}
    return usual.model_copy(update=own) if own else usual


def put(db: sqlite3.Connection, project_id: str, name: str, most: int) -> None:
    db.execute("INSERT OR REPLACE INTO quotas VALUES (?, ?, ?)", (project_id, name, most))


def clear(db: sqlite3.Connection, project_id: str) -> None:
    """The settings' hold again."""
    db.execute("DELETE FROM quotas WHERE project_id = ?", (project_id,))
