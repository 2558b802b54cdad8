"""Tags: those of instances, volumes and snapshots are their metadata, in their own rows; all others have a table."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from launcher.errors import NotFound, QuotaExceeded
from launcher.tagging import Tag, Tagged, Target

ROWS: Mapping[Tagged, tuple[str, str]] = {
    Tagged.INSTANCE: ("instances", "vm_state != 'deleted'"),
    Tagged.VOLUME: ("volumes", "snapshot_of IS NULL AND status != 'deleted'"),
    Tagged.SNAPSHOT: ("volumes", "snapshot_of IS NOT NULL AND status != 'deleted'"),
}
"""The tables that have their things' tags, and which of their rows are live."""


def put(db: sqlite3.Connection, project_id: str, target: Target, tags: Mapping[str, str], *, quota: int) -> None:
    if target.kind in ROWS:
        kept = {**_metadata(db, project_id, target), **tags}
        _check(target, len(kept), quota)
        _keep(db, target, kept)
        return
    db.executemany(
        "INSERT INTO tags VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        [(project_id, target.kind, target.id, key, value) for key, value in tags.items()],
    )
    count = db.execute(
        "SELECT count(*) FROM tags WHERE project_id = ? AND kind = ? AND id = ?", (project_id, target.kind, target.id)
    ).fetchone()[0]
    _check(target, count, quota)


def remove(db: sqlite3.Connection, project_id: str, target: Target, tags: Mapping[str, str | None]) -> None:
    """With no keys, all of them."""
    if target.kind in ROWS:
        known = _metadata(db, project_id, target)
        _keep(db, target, {key: value for key, value in known.items() if tags and not _meant(tags, key, value)})
        return
    db.execute(
        "DELETE FROM tags WHERE project_id = :project AND kind = :kind AND id = :id AND (:tags = '{}' OR EXISTS"
        " (SELECT 1 FROM json_each(:tags) AS meant WHERE meant.key = tags.key AND coalesce(meant.value, tags.value)"
        " = tags.value))",
        {"project": project_id, "kind": target.kind, "id": target.id, "tags": json.dumps(dict(tags))},
    )


def list_all(db: sqlite3.Connection, project_id: str, kind: Tagged | None) -> list[Tag]:
    inside = (
        f" UNION ALL SELECT '{name}', things.id, tag.key, tag.value FROM {table} AS things,"  # noqa: S608 - as above
        f" json_each(metadata) AS tag WHERE project_id = :project AND {living} AND coalesce(:kind, '{name}') = '{name}'"
        for name, (table, living) in ROWS.items()
    )
    table = "SELECT kind, id, key, value FROM tags WHERE project_id = :project AND kind = coalesce(:kind, kind)"
    query = f"{table}{''.join(inside)} ORDER BY 1, 2, 3"
    return [Tag(**dict(row)) for row in db.execute(query, {"project": project_id, "kind": kind})]


def _meant(tags: Mapping[str, str | None], key: str, value: str) -> bool:
    return key in tags and tags[key] in (None, value)


def _metadata(db: sqlite3.Connection, project_id: str, target: Target) -> dict[str, str]:
    table, living = ROWS[target.kind]
    row = db.execute(
        f"SELECT metadata FROM {table} WHERE id = ? AND project_id = ? AND {living}",  # noqa: S608 - our own names
        (target.id, project_id),
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no {target.kind} {target.id!r}", field=target.kind)
    found: dict[str, str] = json.loads(row["metadata"])
    return found


def _keep(db: sqlite3.Connection, target: Target, metadata: Mapping[str, str]) -> None:
    table, _ = ROWS[target.kind]
    metadata_now = json.dumps(dict(metadata))
    db.execute(f"UPDATE {table} SET metadata = ? WHERE id = ?", (metadata_now, target.id))  # noqa: S608 - our own names


def _check(target: Target, count: int, quota: int) -> None:
    if count > quota:
        raise QuotaExceeded(
            f"at most {quota} tags are allowed, {target.kind} {target.id} would have {count}", field="tags"
        )
