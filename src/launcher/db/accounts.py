"""Projects, users, and the roles of users in projects. Both are named by id or by name; an id wins."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from launcher.accounts import Grant, Project, User, UserRole
from launcher.errors import Conflict, NotFound

_GRANTS = (
    "SELECT user_id, project_id, role FROM grants WHERE ? IN (user_id, '') AND ? IN (project_id, '') ORDER BY 1, 2, 3"
)


def create_project(db: sqlite3.Connection, project: Project) -> None:
    try:
        db.execute(
            "INSERT INTO projects VALUES (?, ?, ?, ?, ?)",
            (project.id, project.name, project.description, project.enabled, project.created_ms),
        )
    except sqlite3.IntegrityError:
        raise _taken("project", project.name) from None


def get_project(db: sqlite3.Connection, name_or_id: str) -> Project:
    row = _row(db, "SELECT * FROM projects WHERE ? IN (id, name) ORDER BY id != ?", name_or_id)
    if row is None:
        raise no_project(name_or_id)
    return _project(row)


def find_ids(db: sqlite3.Connection, names_or_ids: Sequence[str]) -> list[str]:
    """Of the projects among them that there are."""
    query = "SELECT id FROM projects WHERE EXISTS (SELECT 1 FROM json_each(?) WHERE value IN (id, name))"
    return [row["id"] for row in db.execute(query, (json.dumps(names_or_ids),))]


def list_projects(db: sqlite3.Connection, user_id: str | None) -> list[Project]:
    """All, or those in which the user has a role."""
    rows = db.execute(
        "SELECT * FROM projects WHERE ? = '' OR id IN (SELECT project_id FROM grants WHERE user_id = ?) ORDER BY name",
        (user_id or "", user_id or ""),
    ).fetchall()
    return [_project(row) for row in rows]


def update_project(db: sqlite3.Connection, project: Project) -> None:
    try:
        db.execute(
            "UPDATE projects SET name = ?, description = ?, enabled = ? WHERE id = ?",
            (project.name, project.description, project.enabled, project.id),
        )
    except sqlite3.IntegrityError:
        raise _taken("project", project.name) from None


def delete_project(db: sqlite3.Connection, project_id: str) -> None:
    """All that it has goes along; instances that it had stay in the records."""
    for statement in (
        "DELETE FROM security_group_rules WHERE source_id IN"
        " (SELECT id FROM security_groups WHERE project_id = :project)",
        "DELETE FROM security_groups WHERE project_id = :project",
        "DELETE FROM key_pairs WHERE project_id = :project",
        "DELETE FROM idempotency_keys WHERE project_id = :project",
        "DELETE FROM projects WHERE id = :project",
    ):
        db.execute(statement, {"project": project_id})


def create_user(db: sqlite3.Connection, user: User, password: str | None) -> None:
    """`password` is a hash."""
    try:
        db.execute(
            "INSERT INTO users VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                user.id,
                user.name,
                password,
                user.email,
                user.description,
                user.default_project_id,
                user.enabled,
                user.created_ms,
            ),
        )
    except sqlite3.IntegrityError:
        raise _taken("user", user.name) from None


def get_user(db: sqlite3.Connection, name_or_id: str) -> User:
    row = _row(db, "SELECT * FROM users WHERE ? IN (id, name) ORDER BY id != ?", name_or_id)
    if row is None:
        raise no_user(name_or_id)
    return _user(row)


def find_password(db: sqlite3.Connection, name_or_id: str) -> tuple[User, str] | None:
    """An enabled user and the hash of the password, if there is one."""
    row = _row(db, "SELECT * FROM users WHERE ? IN (id, name) AND enabled ORDER BY id != ?", name_or_id)
    return (_user(row), row["password"]) if row is not None and row["password"] else None


def list_users(db: sqlite3.Connection) -> list[User]:
    return [_user(row) for row in db.execute("SELECT * FROM users ORDER BY name").fetchall()]


def update_user(db: sqlite3.Connection, user: User) -> None:
    try:
        db.execute(
            "UPDATE users SET name = ?, email = ?, description = ?, default_project_id = ?, enabled = ? WHERE id = ?",
            (user.name, user.email, user.description, user.default_project_id, user.enabled, user.id),
        )
    except sqlite3.IntegrityError:
        raise _taken("user", user.name) from None


def set_password(db: sqlite3.Connection, user_id: str, password: str) -> None:
    """`password` is a hash."""
    db.execute("UPDATE users SET password = ? WHERE id = ?", (password, user_id))


def delete_user(db: sqlite3.Connection, user_id: str) -> None:
    """Roles and credentials go along; what the user has launched stays the project's."""
    db.execute("DELETE FROM users WHERE id = ?", (user_id,))


def grant(db: sqlite3.Connection, user_id: str, project_id: str, role: UserRole) -> None:
    """Repeating it is success."""
    db.execute("INSERT OR IGNORE INTO grants VALUES (?, ?, ?)", (user_id, project_id, role))


def withdraw(db: sqlite3.Connection, user_id: str, project_id: str, role: UserRole) -> bool:
    """Whether it was there."""
    found = db.execute(
        "DELETE FROM grants WHERE user_id = ? AND project_id = ? AND role = ?", (user_id, project_id, role)
    )
    return found.rowcount > 0


def list_grants(db: sqlite3.Connection, user_id: str | None, project_id: str | None) -> list[Grant]:
    """The user's, in the project; None: all."""
    rows = db.execute(_GRANTS, (user_id or "", project_id or "")).fetchall()
    return [
        Grant(user=get_user(db, row["user_id"]), project=get_project(db, row["project_id"]), role=row["role"])
        for row in rows
    ]


def list_roles(db: sqlite3.Connection, user_id: str, project_id: str) -> list[str]:
    return [row["role"] for row in db.execute(_GRANTS, (user_id, project_id)).fetchall()]


def no_project(name_or_id: str) -> NotFound:
    return NotFound(f"there is no project {name_or_id!r}", hint="see `launcher project list`", field="project")


def no_user(name_or_id: str) -> NotFound:
    return NotFound(f"there is no user {name_or_id!r}", hint="see `launcher user list`", field="user")


def _row(db: sqlite3.Connection, query: str, name_or_id: str) -> Any:
    return db.execute(query, (name_or_id, name_or_id)).fetchone()


def _taken(kind: str, name: str) -> Conflict:
    return Conflict(f"there is a {kind} {name!r} already", hint="take another name", field="name")


def _project(row: sqlite3.Row) -> Project:
    return Project(
        id=row["id"],
        name=row["name"],
        description=row["description"],
        enabled=bool(row["enabled"]),
        created_ms=row["created_ms"],
    )


def _user(row: sqlite3.Row) -> User:
    return User(
        id=row["id"],
        name=row["name"],
        email=row["email"],
        description=row["description"],
        default_project_id=row["default_project_id"],
        enabled=bool(row["enabled"]),
        has_password=row["password"] is not None,
        created_ms=row["created_ms"],
    )
