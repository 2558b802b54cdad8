"""What a host filters by: the policy of an instance, what changed since the host asked last, and whom that concerns.

The answers are JSON at once: a host of a thousand members asks often.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from launcher.db import members, versions
from launcher.errors import StaleGeneration
from launcher.models import InstanceId
from launcher.policy import Rule, SecurityGroup


def get_of_instance(db: sqlite3.Connection, instance_id: InstanceId) -> bytes:
    """A Policy in JSON. Raises StaleGeneration when the instance is on its way out, or gone."""
    row = db.execute("SELECT number FROM filtered_instances WHERE id = ?", (instance_id,)).fetchone()
    if row is None:
        raise StaleGeneration(f"instance {instance_id} is on its way out")
    return _policy(db, members.list_groups(db, row["number"]))


def get_changes(db: sqlite3.Connection, host: str, since: int) -> bytes:
    """PolicyChanges in JSON: what a host must do anew to be up to date.

    The version is read first: what comes after it is asked for again.
    """
    version = versions.get(db)
    groups = db.execute(
        "SELECT DISTINCT security_groups.id FROM filtered_instances JOIN group_members USING (number)"
        " JOIN security_groups ON security_groups.id = group_id"
        " WHERE host = ? AND version > ? ORDER BY security_groups.id",
        (host, since),
    ).fetchall()
    regrouped = db.execute(
        "SELECT id FROM filtered_instances WHERE host = ? AND regrouped > 0 AND regrouped > ? ORDER BY number",
        (host, since),
    ).fetchall()
    policy = _policy(db, [row["id"] for row in groups]).decode()
    ids = json.dumps([row["id"] for row in regrouped])
    return f'{{"version":{version},"policy":{policy},"regrouped":{ids}}}'.encode()


def list_hosts(db: sqlite3.Connection, since: int, *, host: str | None = None) -> dict[str, int]:
    """The hosts that something after this version concerns, each with the last version that does."""
    rows = db.execute(
        "SELECT host, max(last) AS last FROM ("
        "SELECT host, version AS last FROM security_groups JOIN group_members ON group_id = security_groups.id"
        " JOIN filtered_instances USING (number) WHERE version > :since UNION ALL"
        " SELECT host, regrouped FROM filtered_instances WHERE regrouped > 0 AND regrouped > :since)"
        " WHERE :host IS NULL OR host = :host GROUP BY host ORDER BY host",
        {"since": since, "host": host},
    ).fetchall()
    return {row["host"]: row["last"] for row in rows}


def _policy(db: sqlite3.Connection, group_ids: Sequence[int]) -> bytes:
    groups = [_group(db, group_id) for group_id in group_ids]
    named = sorted({rule.group_id for group in groups for rule in group.rules if rule.group_id is not None})
    members_of = ",".join(f'"{each}":{members.list_addresses(db, each)}' for each in named)
    return f'{{"groups":[{",".join(group.model_dump_json() for group in groups)}],"members":{{{members_of}}}}}'.encode()


def _group(db: sqlite3.Connection, group_id: int) -> SecurityGroup:
    row = db.execute("SELECT name, description FROM security_groups WHERE id = ?", (group_id,)).fetchone()
    rules = db.execute(
        "SELECT direction, protocol, from_port, to_port, cidr, source_id AS group_id FROM security_group_rules"
        " WHERE group_id = ? ORDER BY id",
        (group_id,),
    ).fetchall()
    return SecurityGroup(
        id=group_id,
        name=row["name"],
        description=row["description"],
        rules=tuple(Rule(**rule) for rule in map(dict, rules)),
    )
