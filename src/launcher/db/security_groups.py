"""Security groups of a project and their rules. Every project has `default`, made when it is first needed.

As in EC2, `default` lets its own members in and nobody else.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from launcher.db import members, versions
from launcher.errors import Conflict, NotFound, QuotaExceeded
from launcher.groups import Group, GroupRef, GroupRule
from launcher.policy import Protocol, Rule

DEFAULT = "default"
NAMED = 3
"""So many users of a group are named to whoever wants to delete it."""

_RULES = (
    "SELECT rules.id, group_id, direction, protocol, from_port, to_port, cidr, source_id, source.name AS source"
    " FROM security_group_rules AS rules LEFT JOIN security_groups AS source ON source.id = source_id"
)


def create(db: sqlite3.Connection, project_id: str, name: str, description: str) -> Group:
    ensure_default(db, project_id)
    if _find_row(db, project_id, "name", name) is not None:
        raise Conflict(f"there is a security group {name!r} already", field="name")
    return _insert(db, project_id, name, description)


def ensure_default(db: sqlite3.Connection, project_id: str) -> Group:
    found = _find(db, project_id, DEFAULT)
    if found is not None:
        return found
    made = _insert(db, project_id, DEFAULT, DEFAULT)
    add_rule(db, made, Rule(protocol=Protocol.ANY, group_id=made.id))
    return get(db, project_id, DEFAULT)


def get(db: sqlite3.Connection, project_id: str, wanted: GroupRef) -> Group:
    """A name comes before an id that reads the same."""
    group = ensure_default(db, project_id) if wanted == DEFAULT else _find(db, project_id, wanted)
    if group is None:
        raise NotFound(
            f"there is no security group {wanted!r}", hint="see `launcher group list`", field="security_groups"
        )
    return group


def choose(db: sqlite3.Connection, project_id: str, wanted: Sequence[GroupRef], quota: int) -> tuple[int, ...]:
    """The ids of an instance's groups, each once, in the order in which they are named; none means `default`."""
    found = tuple(dict.fromkeys(get(db, project_id, each).id for each in wanted or (DEFAULT,)))
    if len(found) > quota:
        raise QuotaExceeded(f"an instance is in at most {quota} security groups", field="security_groups")
    return found


def list_all(db: sqlite3.Connection, project_id: str) -> list[Group]:
    """By name."""
    rows = db.execute("SELECT * FROM security_groups WHERE project_id = ? ORDER BY name", (project_id,)).fetchall()
    rules = db.execute(
        f"{_RULES} WHERE group_id IN (SELECT id FROM security_groups WHERE project_id = ?)"  # noqa: S608 - our own text
        " ORDER BY rules.id",
        (project_id,),
    ).fetchall()
    return [_group(row, [rule for rule in rules if rule["group_id"] == row["id"]]) for row in rows]


def count(db: sqlite3.Connection, project_id: str) -> int:
    found: int = db.execute("SELECT count(*) FROM security_groups WHERE project_id = ?", (project_id,)).fetchone()[0]
    return found


def delete(db: sqlite3.Connection, group: Group) -> None:
    if group.name == DEFAULT:
        raise Conflict("the security group 'default' cannot be deleted", field="group")
    instances = members.list_names(db, group.id, NAMED)
    if instances:
        raise Conflict(
            f"the security group {group.name!r} is in use by instance {_named(instances)}",
            hint="delete them, or see `launcher group set`",
            field="group",
        )
    rows = db.execute(
        "SELECT DISTINCT name FROM security_group_rules JOIN security_groups ON security_groups.id = group_id"
        " WHERE source_id = :id AND group_id != :id ORDER BY name LIMIT :limit",
        {"id": group.id, "limit": NAMED},
    ).fetchall()
    if rows:
        raise Conflict(
            f"the security group {group.name!r} is named by a rule of group {_named([row['name'] for row in rows])}",
            hint="see `launcher group revoke`",
            field="group",
        )
    db.execute("DELETE FROM security_groups WHERE id = ?", (group.id,))


# --- rules ---------------------------------------------------------------------------------------


def add_rule(db: sqlite3.Connection, group: Group, rule: Rule) -> GroupRule:
    """Raises Conflict when the group has it."""
    if _matching(db, group, rule) is not None:
        raise Conflict(f"the security group {group.name!r} has the rule {rule} already", field="rules")
    made = db.execute(
        "INSERT INTO security_group_rules (group_id, direction, protocol, from_port, to_port, cidr, source_id)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (group.id, *_columns(rule)),
    ).fetchone()
    versions.touch(db, group.id)
    return _rule(db.execute(f"{_RULES} WHERE rules.id = ?", (made["id"],)).fetchone())


def remove_rule(db: sqlite3.Connection, group: Group, rule: Rule) -> None:
    found = _matching(db, group, rule)
    if found is None:
        raise NotFound(f"the security group {group.name!r} has no rule {rule}", field="rules")
    _delete_rule(db, found, group.id)


def remove_rule_by_id(db: sqlite3.Connection, project_id: str, group: Group | None, rule_id: int) -> None:
    """From this group, or from any of the project."""
    row = db.execute(
        "SELECT group_id FROM security_group_rules JOIN security_groups ON security_groups.id = group_id"
        " WHERE security_group_rules.id = ? AND project_id = ? AND coalesce(?, group_id) = group_id",
        (rule_id, project_id, group.id if group else None),
    ).fetchone()
    if row is None:
        where = f"the security group {group.name!r}" if group else "the project"
        raise NotFound(f"{where} has no rule {rule_id}", hint="see `launcher group show`", field="ids")
    _delete_rule(db, rule_id, row["group_id"])


def _matching(db: sqlite3.Connection, group: Group, rule: Rule) -> int | None:
    """The id of the group's rule with these values."""
    row = db.execute(
        "SELECT id FROM security_group_rules WHERE group_id = ? AND direction = ? AND protocol = ?"
        " AND from_port IS ? AND to_port IS ? AND cidr IS ? AND source_id IS ?",
        (group.id, *_columns(rule)),
    ).fetchone()
    return row["id"] if row else None


def _columns(rule: Rule) -> tuple[str | int | None, ...]:
    cidr = None if rule.cidr is None else str(rule.cidr)
    return rule.direction, rule.protocol, rule.from_port, rule.to_port, cidr, rule.group_id


def _delete_rule(db: sqlite3.Connection, rule_id: int, group_id: int) -> None:
    db.execute("DELETE FROM security_group_rules WHERE id = ?", (rule_id,))
    versions.touch(db, group_id)


# --- rows ----------------------------------------------------------------------------------------


def _insert(db: sqlite3.Connection, project_id: str, name: str, description: str) -> Group:
    row = db.execute(
        "INSERT INTO security_groups (project_id, name, description, version) VALUES (?, ?, ?, ?) RETURNING *",
        (project_id, name, description, versions.get(db)),
    ).fetchone()
    return _group(row, ())


def _find(db: sqlite3.Connection, project_id: str, wanted: GroupRef) -> Group | None:
    row = _find_row(db, project_id, "name", wanted) if isinstance(wanted, str) else None
    if row is None and (number := _number(wanted)) is not None:
        row = _find_row(db, project_id, "id", number)
    if row is None:
        return None
    return _group(row, db.execute(f"{_RULES} WHERE group_id = ? ORDER BY rules.id", (row["id"],)).fetchall())


def _find_row(db: sqlite3.Connection, project_id: str, column: str, value: GroupRef) -> sqlite3.Row | None:
    wanted = f"SELECT * FROM security_groups WHERE project_id = ? AND {column} = ?"  # noqa: S608 - our own text
    found: sqlite3.Row | None = db.execute(wanted, (project_id, value)).fetchone()
    return found


def _number(wanted: GroupRef) -> int | None:
    """An id that SQLite can hold."""
    if isinstance(wanted, str) and not (wanted.isascii() and wanted.isdecimal() and len(wanted) < 19):
        return None
    return int(wanted) if abs(int(wanted)) < 1 << 63 else None


def _group(row: sqlite3.Row, rules: Sequence[sqlite3.Row]) -> Group:
    return Group(
        id=row["id"],
        project_id=row["project_id"],
        name=row["name"],
        description=row["description"],
        rules=tuple(_rule(rule) for rule in rules),
    )


def _rule(row: sqlite3.Row) -> GroupRule:
    return GroupRule(
        id=row["id"],
        direction=row["direction"],
        protocol=row["protocol"],
        from_port=row["from_port"],
        to_port=row["to_port"],
        cidr=row["cidr"],
        group_id=row["source_id"],
        group=row["source"],
    )


def _named(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
