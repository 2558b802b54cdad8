"""Security groups of a project. Every project has `default`, made when it is first needed, with no rules."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from pydantic import TypeAdapter

from launcher.errors import Conflict, NotFound
from launcher.models import InstanceId
from launcher.policy import Policy, Rule, SecurityGroup

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


def get_policy(db: sqlite3.Connection, group_ids: Sequence[int]) -> Policy:
    """These groups, and the addresses of the live instances in the groups that their rules name."""
    groups = tuple(group for group_id in group_ids if (group := _find_by_id(db, group_id)))
    named = {rule.group_id for group in groups for rule in group.rules if rule.group_id is not None}
    return Policy(groups=groups, members={group_id: _members(db, group_id) for group_id in sorted(named)})


def list_ids_of(db: sqlite3.Connection, instance_id: InstanceId) -> list[int]:
    """The groups that the instance is in, in the order in which they were named."""
    rows = db.execute(
        "SELECT security_groups.id FROM instances, json_each(instances.security_groups) AS named"
        " JOIN security_groups ON security_groups.project_id = instances.project_id"
        " AND security_groups.name = named.value WHERE instances.id = ? ORDER BY named.key",
        (instance_id,),
    ).fetchall()
    return [row["id"] for row in rows]


def _members(db: sqlite3.Connection, group_id: int) -> tuple[IPv4Address | IPv6Address, ...]:
    rows = db.execute(
        "SELECT address, address6 FROM nics JOIN instances USING (number),"
        " json_each(instances.security_groups) AS named, security_groups AS groups"
        " WHERE groups.id = ? AND instances.project_id = groups.project_id AND named.value = groups.name"
        " AND address IS NOT NULL ORDER BY number, position",
        (group_id,),
    ).fetchall()
    return tuple(ip_address(text) for row in rows for text in row if text)


def _find_by_id(db: sqlite3.Connection, group_id: int) -> SecurityGroup | None:
    row = db.execute("SELECT * FROM security_groups WHERE id = ?", (group_id,)).fetchone()
    return _group(row) if row else None


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
