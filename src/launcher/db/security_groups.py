"""Security groups of a project. Every project has `default`, made when it is first needed, with no rules."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from pydantic import TypeAdapter

from launcher.errors import Conflict, NotFound
from launcher.models import Rule, SecurityGroup

DEFAULT = "default"

_RULES = TypeAdapter(tuple[Rule, ...])


def create(
    db: sqlite3.Connection, project_id: str, name: str, description: str, rules: Sequence[Rule]
) -> SecurityGroup:
    ensure_default(db, project_id)
    if _find(db, project_id, name) is not None:
        raise Conflict(f"there is a security group {name!r} already", field="name")
    return _insert(db, project_id, name, description, rules)


def ensure_default(db: sqlite3.Connection, project_id: str) -> SecurityGroup:
    return _find(db, project_id, DEFAULT) or _insert(db, project_id, DEFAULT, DEFAULT, ())


def get(db: sqlite3.Connection, project_id: str, name: str) -> SecurityGroup:
    group = ensure_default(db, project_id) if name == DEFAULT else _find(db, project_id, name)
    if group is None:
        raise NotFound(
            f"there is no security group {name!r}", hint="see `launcher group list`", field="security_groups"
        )
    return group


def list_all(db: sqlite3.Connection, project_id: str) -> list[SecurityGroup]:
    rows = db.execute("SELECT * FROM security_groups WHERE project_id = ? ORDER BY name", (project_id,)).fetchall()
    return [_group(row) for row in rows]


def delete(db: sqlite3.Connection, project_id: str, name: str) -> None:
    group = get(db, project_id, name)
    if name == DEFAULT:
        raise Conflict("the security group 'default' cannot be deleted", field="name")
    user = db.execute(
        "SELECT instances.name FROM instances, json_each(instances.security_groups)"
        " WHERE project_id = ? AND vm_state NOT IN ('deleted', 'error') AND json_each.value = ?",
        (project_id, name),
    ).fetchone()
    if user is not None:
        raise Conflict(f"the security group {name!r} is in use by instance {user[0]!r}", field="name")
    db.execute("DELETE FROM security_groups WHERE id = ?", (group.id,))


def _insert(
    db: sqlite3.Connection, project_id: str, name: str, description: str, rules: Sequence[Rule]
) -> SecurityGroup:
    row = db.execute(
        "INSERT INTO security_groups (project_id, name, description, rules) VALUES (?, ?, ?, ?) RETURNING *",
        (project_id, name, description, _RULES.dump_json(tuple(rules)).decode()),
    ).fetchone()
    return _group(row)


def _find(db: sqlite3.Connection, project_id: str, name: str) -> SecurityGroup | None:
    row = db.execute("SELECT * FROM security_groups WHERE project_id = ? AND name = ?", (project_id, name)).fetchone()
    return _group(row) if row else None


def _group(row: sqlite3.Row) -> SecurityGroup:
    rules = _RULES.validate_json(row["rules"])
    return SecurityGroup(id=row["id"], name=row["name"], description=row["description"], rules=rules)
