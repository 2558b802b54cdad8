"""Tags: an instance's in its own row, all others in a table of theirs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from launcher.errors import NotFound, QuotaExceeded
from launcher.tagging import Tag, Tagged, Target


def put(db: sqlite3.Connection, project_id: str, target: Target, tags: Mapping[str, str], *, quota: int) -> None:
    if target.kind is Tagged.INSTANCE:
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
    if target.kind is Tagged.INSTANCE:
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
    rows = db.execute(
        "SELECT kind, id, key, value FROM tags WHERE project_id = :project AND kind = coalesce(:kind, kind)"
        " UNION ALL SELECT 'instance', instances.id, tag.key, tag.value"
        " FROM instances, json_each(metadata) AS tag WHERE project_id = :project AND vm_state != 'deleted'"
        " AND coalesce(:kind, 'instance') = 'instance' ORDER BY 1, 2, 3",
        {"project": project_id, "kind": kind},
    )
    return [Tag(**dict(row)) for row in rows]


def _meant(tags: Mapping[str, str | None], key: str, value: str) -> bool:
    return key in tags and tags[key] in (None, value)


def _metadata(db: sqlite3.Connection, project_id: str, target: Target) -> dict[str, str]:
    row = db.execute(
        "SELECT metadata FROM instances WHERE id = ? AND project_id = ? AND vm_state != 'deleted'",
        (target.id, project_id),
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no instance {target.id!r}", hint="see `launcher list`", field="instance_id")
    found: dict[str, str] = json.loads(row["metadata"])
    return found


def _keep(db: sqlite3.Connection, target: Target, metadata: Mapping[str, str]) -> None:
    db.execute("UPDATE instances SET metadata = ? WHERE id = ?", (json.dumps(dict(metadata)), target.id))


def _check(target: Target, count: int, quota: int) -> None:
    if count > quota:
        raise QuotaExceeded(
            f"at most {quota} tags are allowed, {target.kind} {target.id} would have {count}", field="tags"
        )
