"""The image catalogue. A name may be registered again with other content; the newest one answers to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from launcher.errors import NotFound
from launcher.models import Image


def register(db: sqlite3.Connection, images: Sequence[Image], now_ms: float) -> None:
    for image in images:
        db.execute(
            "INSERT INTO images VALUES (?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET body = excluded.body, registered_ms = excluded.registered_ms",
            (image.id, image.name, image.model_dump_json(), now_ms),
        )


def get(db: sqlite3.Connection, name_or_id: str) -> Image:
    """By id first, then by name, as Nova resolved `ami-tiny`."""
    row = db.execute(
        "SELECT body FROM images WHERE id = :key OR name = :key ORDER BY id = :key DESC, registered_ms DESC LIMIT 1",
        {"key": name_or_id},
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no image {name_or_id!r}", hint="see `launcher image list`", field="image")
    return Image.model_validate_json(row["body"])


def list_all(db: sqlite3.Connection) -> list[Image]:
    rows = db.execute("SELECT body FROM images ORDER BY name, registered_ms").fetchall()
    return [Image.model_validate_json(row["body"]) for row in rows]
