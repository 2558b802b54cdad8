"""The image catalogue. A name may be given again to other content; the newest active one answers to it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

from launcher.errors import NotFound
from launcher.images import INSTANCE, CatalogueImage, ImageState
from launcher.models import Image, InstanceId

_VISIBLE = """(:admin OR public OR project_id = :project
    OR :project IN (SELECT value FROM json_each(coalesce(body ->> '$.projects', '[]'))))"""
_IN_USE = """EXISTS (SELECT 1 FROM instances WHERE vm_state != 'deleted'
    AND images.id IN (spec ->> '$.image.id', spec ->> '$.kernel.id', spec ->> '$.ramdisk.id'))"""


def register(db: sqlite3.Connection, found: Sequence[Image], now_ms: float, *, revive: bool = True) -> None:
    """Images of the library, for everybody. One that was deleted comes back only with `revive`."""
    for image in found:
        known = CatalogueImage(**image.model_dump(), created_ms=int(now_ms), updated_ms=int(now_ms))
        db.execute(
            "INSERT INTO images VALUES (:id, :name, :body, :now) ON CONFLICT (id) DO UPDATE"
            " SET body = excluded.body, registered_ms = excluded.registered_ms WHERE :revive OR state != 'deleted'",
            {"id": image.id, "name": image.name, "body": known.model_dump_json(), "now": now_ms, "revive": revive},
        )


def create(db: sqlite3.Connection, image: CatalogueImage, now_ms: float) -> CatalogueImage:
    db.execute("INSERT INTO images VALUES (?, ?, ?, ?)", (image.id, image.name, image.model_dump_json(), now_ms))
    return image


def change(
    db: sqlite3.Connection, image_id: str, expected: Collection[ImageState], now_ms: float, **changes: Any
) -> CatalogueImage | None:
    """Move an image on, if it is in one of these states; else None, and nothing has changed."""
    image = get_by_id(db, image_id)
    if image.state not in expected:
        return None
    changed = CatalogueImage.model_validate(dict(image) | changes | {"updated_ms": int(now_ms)})
    body = changed.model_dump_json()
    db.execute("UPDATE images SET name = ?, body = ? WHERE id = ?", (changed.name, body, image_id))
    return changed


def get(db: sqlite3.Connection, project_id: str, name_or_id: str, *, is_admin: bool = False) -> CatalogueImage:
    """By id first, then by name, as Nova resolved `ami-tiny`; the project's own before what others let it use.

    Raises NotFound for one that the project may not use, too.
    """
    row = db.execute(
        f"SELECT body FROM images WHERE (id = :key OR name = :key) AND state != 'deleted' AND {_VISIBLE}"  # noqa: S608
        " ORDER BY id = :key DESC, project_id = :project DESC, state = 'active' DESC, registered_ms DESC LIMIT 1",
        {"key": name_or_id, "project": project_id, "admin": is_admin},
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no image {name_or_id!r}", hint="see `launcher image list`", field="image")
    return CatalogueImage.model_validate_json(row["body"])


def get_by_id(db: sqlite3.Connection, image_id: str) -> CatalogueImage:
    """Whoever may use it, deleted or not."""
    row = db.execute("SELECT body FROM images WHERE id = ?", (image_id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no image {image_id!r}", field="image")
    return CatalogueImage.model_validate_json(row["body"])


def list_visible(db: sqlite3.Connection, project_id: str, *, is_admin: bool) -> list[CatalogueImage]:
    return _many(
        db,
        f"state != 'deleted' AND {_VISIBLE} ORDER BY name, registered_ms",
        {"project": project_id, "admin": is_admin},
    )


def list_in(db: sqlite3.Connection, *states: ImageState) -> list[CatalogueImage]:
    wanted = {"states": json.dumps(states)}
    return _many(db, "state IN (SELECT value FROM json_each(:states)) ORDER BY registered_ms", wanted)


def find_import(db: sqlite3.Connection, project_id: str, name: str, source: str) -> CatalogueImage | None:
    """The project's image of this name that came, or is coming, from there."""
    found = _many(
        db,
        "project_id = :project AND name = :name AND source = :source AND state IN ('importing', 'active')"
        " ORDER BY registered_ms DESC LIMIT 1",
        {"project": project_id, "name": name, "source": source},
    )
    return found[0] if found else None


def find_snapshot(db: sqlite3.Connection, instance_id: InstanceId) -> CatalogueImage | None:
    """The image that is being made of an instance's disk."""
    found = _many(db, "source = :source AND state = 'saving' LIMIT 1", {"source": INSTANCE + instance_id})
    return found[0] if found else None


def end_snapshot(db: sqlite3.Connection, instance_id: InstanceId, reason: str, now_ms: float) -> None:
    """Nobody makes it any more."""
    if (image := find_snapshot(db, instance_id)) is not None:
        change(db, image.id, {ImageState.SAVING}, now_ms, state=ImageState.ERROR, reason=reason)


def count(db: sqlite3.Connection, project_id: str) -> int:
    """What counts against the quota: all but the library's."""
    row = db.execute(
        "SELECT count(*) FROM images WHERE project_id = ? AND state != 'deleted' AND source != 'library'",
        (project_id,),
    ).fetchone()
    return int(row[0])


def count_users(db: sqlite3.Connection, image_id: str) -> int:
    """Instances that run, or may yet be launched, from it."""
    row = db.execute(
        "SELECT count(*) FROM instances WHERE vm_state != 'deleted'"
        " AND :id IN (spec ->> '$.image.id', spec ->> '$.kernel.id', spec ->> '$.ramdisk.id')",
        {"id": image_id},
    ).fetchone()
    return int(row[0])


def list_dependents(db: sqlite3.Connection, image_id: str) -> list[str]:
    """The names of the machine images that boot by it."""
    rows = db.execute(
        "SELECT name FROM images WHERE state != 'deleted' AND :id IN (body ->> '$.kernel_id', body ->> '$.ramdisk_id')",
        {"id": image_id},
    )
    return [row["name"] for row in rows]


def find_content(db: sqlite3.Connection, sha256: str) -> CatalogueImage | None:
    """An image that has this content, or had it and is still needed by an instance."""
    found = _many(db, f"sha256 = :sha256 AND (state != 'deleted' OR {_IN_USE}) LIMIT 1", {"sha256": sha256})
    return found[0] if found else None


def list_needed(db: sqlite3.Connection) -> set[str]:
    """The checksums of the contents that an image has, or an instance whose image was deleted still needs."""
    rows = db.execute(f"SELECT sha256 FROM images WHERE sha256 IS NOT NULL AND (state != 'deleted' OR {_IN_USE})")  # noqa: S608
    return {row["sha256"] for row in rows}


def is_empty(db: sqlite3.Connection) -> bool:
    """Whether no image was ever imported: its row would be there."""
    return db.execute("SELECT 1 FROM images WHERE source != 'library' LIMIT 1").fetchone() is None


def _many(db: sqlite3.Connection, condition: str, wanted: dict[str, Any]) -> list[CatalogueImage]:
    rows = db.execute(f"SELECT body FROM images WHERE {condition}", wanted)  # noqa: S608 - our own text
    return [CatalogueImage.model_validate_json(row["body"]) for row in rows]
