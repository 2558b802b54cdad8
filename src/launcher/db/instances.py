"""Instances: accepted, found, listed. How they move from state to state stands in `moves.py`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

from launcher.errors import Conflict, NotFound
from launcher.models import (
    Boot,
    Instance,
    InstanceId,
    LaunchOrder,
    Model,
    Personality,
    ShutdownBehaviour,
    TaskState,
    VmState,
)

BODY = """json_object(
    'id', id, 'number', number, 'generation', generation, 'project_id', project_id, 'user_id', user_id,
    'status', CASE WHEN task_state = 'deleting' THEN 'DELETING' WHEN vm_state = 'building' THEN 'BUILD'
    ELSE upper(vm_state) END, 'name', name, 'hostname', hostname, 'vm_state', vm_state, 'task_state', task_state,
    'state_since_ms', CAST(state_since_ms AS INTEGER), 'host', host,
    'nics', (SELECT json_group_array(json_object('mac', mac, 'network', network, 'address', address,
        'address6', address6)) FROM (SELECT * FROM nics WHERE nics.number = instances.number ORDER BY position)),
    'addresses', (SELECT json_group_array(address) FROM (
        SELECT address, position AS place FROM nics WHERE nics.number = instances.number AND address IS NOT NULL
        UNION ALL
        SELECT address6, position + 1000 FROM nics WHERE nics.number = instances.number AND address6 IS NOT NULL
        ORDER BY place)),
    'flavor', json(flavor), 'image_id', image_id, 'image_name', image_name, 'key_name', key_name,
    'security_groups', (SELECT json_group_array(name) FROM (
        SELECT security_groups.name FROM group_members JOIN security_groups ON security_groups.id = group_id
        WHERE group_members.number = instances.number ORDER BY position)),
    'availability_zone', availability_zone, 'metadata', json(metadata),
    'shutdown_behaviour', shutdown_behaviour, 'protected', json(iif(protected, 'true', 'false')),
    'locked', json(iif(locked IS NULL, 'false', 'true')), 'lock_reason', lock_reason,
    'description', description, 'labels', json(labels),
    'reservation_id', reservation_id, 'launch_index', launch_index, 'created_ms', CAST(created_ms AS INTEGER),
    'launched_ms', CAST(launched_ms AS INTEGER), 'deleted_ms', CAST(deleted_ms AS INTEGER),
    'fault', json(fault), 'trace_id', trace_id)"""

_INSTANCES = TypeAdapter(list[Instance])


class Usage(Model):
    """What a project's live instances hold of its quota."""

    instances: int
    vcpus: int
    memory_mb: int


def get_usage(db: sqlite3.Connection, project_id: str) -> Usage:
    row = db.execute(
        "SELECT count(*), coalesce(sum(vcpus), 0), coalesce(sum(memory_mb), 0) FROM instances"
        " WHERE project_id = ? AND vm_state != 'deleted'",
        (project_id,),
    ).fetchone()
    return Usage(instances=row[0], vcpus=row[1], memory_mb=row[2])


def next_number(db: sqlite3.Connection) -> int:
    """The number that the next row gets; true within the transaction that also creates it."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'instances'").fetchone()
    return (row[0] if row else 0) + 1


def skip_numbers(db: sqlite3.Connection, highest: int) -> None:
    """Give no number up to this one: a database that was lost or put back had given it to somebody."""
    if next_number(db) <= highest:
        db.execute("DELETE FROM sqlite_sequence WHERE name = 'instances'")
        db.execute("INSERT INTO sqlite_sequence VALUES ('instances', ?)", (highest,))


def mac_taken(db: sqlite3.Connection, mac: str) -> bool:
    return db.execute("SELECT 1 FROM nics WHERE mac = ?", (mac,)).fetchone() is not None


def create(
    db: sqlite3.Connection,
    order: LaunchOrder,
    *,
    name: str,
    user_id: str,
    key_name: str | None,
    metadata: dict[str, str],
    personality: Personality,
    shutdown_behaviour: ShutdownBehaviour,
    protected: bool,
    words: Mapping[str, str | None],
    reservation_id: str,
    launch_index: int,
    request_id: str,
    trace_id: str,
    now_ms: float,
    next_check_ms: float,
    deadline_ms: float,
) -> None:
    """The row of an accepted instance, in `building`/`scheduling`. `words`: user_data, description, labels (JSON)."""
    columns = {
        "number": order.number,
        "id": order.instance_id,
        "generation": order.generation,
        "project_id": order.project_id,
        "user_id": user_id,
        "name": name,
        "hostname": order.hostname,
        "vm_state": VmState.BUILDING,
        "task_state": TaskState.SCHEDULING,
        "state_since_ms": now_ms,
        "vcpus": order.flavor.vcpus,
        "memory_mb": order.flavor.memory_mb,
        "flavor": order.flavor.model_dump_json(),
        "image_id": order.image.id,
        "image_name": order.image.name,
        "key_name": key_name,
        "availability_zone": order.availability_zone,
        "metadata": json.dumps(metadata),
        "personality": personality.model_dump_json() if order.personal else None,
        "shutdown_behaviour": shutdown_behaviour,
        "protected": protected,
        **words,
        "reservation_id": reservation_id,
        "launch_index": launch_index,
        "spec": order.model_dump_json(),
        "request_id": request_id,
        "trace_id": trace_id,
        "created_ms": now_ms,
        "next_check_ms": next_check_ms,
        "deadline_ms": deadline_ms,
    }
    places = ", ".join(f":{column}" for column in columns)
    db.execute(f"INSERT INTO instances ({', '.join(columns)}) VALUES ({places})", columns)  # noqa: S608 - our names
    db.executemany(
        "INSERT INTO nics (mac, number, position, network) VALUES (?, ?, ?, ?)",
        [(nic.mac, order.number, position, nic.network) for position, nic in enumerate(order.nics)],
    )


def get(db: sqlite3.Connection, instance_id: InstanceId) -> Instance:
    return _one(db, "id = ?", (instance_id,), f"instance {instance_id}")


def resolve(db: sqlite3.Connection, project_id: str | None, name_or_id: str) -> Instance:
    """By id, or by a name that one live instance of the project has; `project_id` None looks everywhere."""
    mine = "(:project IS NULL OR project_id = :project)"
    wanted = {"project": project_id, "key": name_or_id}
    by_id = _many(db, f"id = :key AND {mine}", wanted)
    found = by_id or _many(db, f"name = :key AND vm_state != 'deleted' AND {mine}", wanted)
    if not found:
        raise NotFound(f"there is no instance {name_or_id!r}", hint="see `launcher list`", field="instance_id")
    if len(found) > 1:
        raise Conflict(f"{len(found)} instances are called {name_or_id!r}", hint="use the id", field="instance_id")
    return found[0]


def find_live(db: sqlite3.Connection, instance_id: InstanceId) -> Instance | None:
    found = _many(db, "id = ? AND vm_state != 'deleted'", (instance_id,))
    return found[0] if found else None


def list_page(
    db: sqlite3.Connection,
    *,
    project_id: str | None,
    marker: str | None,
    limit: int,
    deleted: bool,
    name: str | None,
    states: Sequence[VmState],
    host: str | None,
    numbers: Sequence[int] = (),
    deleted_after_ms: int | None = None,
) -> bytes:
    """A JSON list of instances in order of number, after the instance `marker`; empty filters let all through."""
    after = 0
    if marker is not None:
        row = db.execute("SELECT number FROM instances WHERE id = ?", (marker,)).fetchone()
        if row is None:
            raise NotFound(f"there is no instance {marker!r} to go on after", field="marker")
        after = row[0]
    filters = {"project_id": project_id, "name": name, "host": host}
    given = {column: value for column, value in filters.items() if value is not None}
    terms = ["number > :after", *(f"{column} = :{column}" for column in given)]
    if states:
        terms.append("vm_state IN (SELECT value FROM json_each(:states))")
    elif not deleted:
        terms.append("(vm_state != 'deleted' OR deleted_ms > :deleted_after)")
    if numbers:
        terms.append("number IN (SELECT value FROM json_each(:numbers))")
    wanted = {
        **given,
        "after": after,
        "states": json.dumps(list(states)),
        "numbers": json.dumps(list(numbers)),
        "deleted_after": deleted_after_ms,
        "limit": limit,
    }
    return _json(db, " AND ".join(terms) + " ORDER BY number LIMIT :limit", wanted)


def get_order(db: sqlite3.Connection, instance_id: InstanceId) -> LaunchOrder:
    """The order of its present generation."""
    row = db.execute(
        "SELECT spec, generation, tried_hosts, iif(task_state = 'rescuing', rescue, NULL) AS rescue,"
        " launched_ms IS NOT NULL OR EXISTS"
        " (SELECT 1 FROM volumes WHERE instance_id = instances.id) AS volumes FROM instances WHERE id = ?",
        (instance_id,),
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no instance {instance_id}")
    moved: dict[str, Any] = {
        "generation": row["generation"],
        "tried_hosts": tuple(json.loads(row["tried_hosts"])),
        "volumes": bool(row["volumes"]),
    }
    if row["rescue"]:
        moved |= {**dict(Boot.model_validate_json(row["rescue"])), "rescue": True}
    return LaunchOrder.model_validate_json(row["spec"]).model_copy(update=moved)


def get_user_data(db: sqlite3.Connection, instance_id: InstanceId) -> str | None:
    """Base64."""
    found: str | None = db.execute("SELECT user_data FROM instances WHERE id = ?", (instance_id,)).fetchone()[0]
    return found


def get_personality(db: sqlite3.Connection, instance_id: InstanceId) -> Personality:
    found = db.execute("SELECT personality FROM instances WHERE id = ?", (instance_id,)).fetchone()[0]
    return Personality() if found is None else Personality.model_validate_json(found)


def get_traces(db: sqlite3.Connection, instance_id: InstanceId) -> list[str]:
    """The trace of its launch, of the last thing that was done to it, and of its deletion, as far as there are such."""
    row = db.execute(
        "SELECT trace_id, task_trace_id, delete_trace_id FROM instances WHERE id = ?", (instance_id,)
    ).fetchone()
    return [trace for trace in row if trace]


def get_injection(db: sqlite3.Connection, instance_id: InstanceId) -> str | None:
    found: str | None = db.execute("SELECT injection FROM instances WHERE id = ?", (instance_id,)).fetchone()[0]
    return found


def get_request_id(db: sqlite3.Connection, instance_id: InstanceId) -> str:
    """Of the last thing that was asked for: its launch, or what was done to it since."""
    asked = "SELECT coalesce(task_request_id, request_id) FROM instances WHERE id = ?"
    found: str = db.execute(asked, (instance_id,)).fetchone()[0]
    return found


def _one(db: sqlite3.Connection, condition: str, wanted: Any, what: str) -> Instance:
    found = _many(db, condition, wanted)
    if not found:
        raise NotFound(f"there is no {what}")
    return found[0]


def _many(db: sqlite3.Connection, condition: str, wanted: Any) -> list[Instance]:
    return _INSTANCES.validate_json(_json(db, condition, wanted))


def _json(db: sqlite3.Connection, condition: str, wanted: Any) -> bytes:
    rows = db.execute(f"SELECT {BODY} AS body FROM instances WHERE {condition}", wanted).fetchall()  # noqa: S608
    return f"[{','.join(row['body'] for row in rows)}]".encode()
