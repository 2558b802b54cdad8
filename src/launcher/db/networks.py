"""Networks: kept, found by whoever may use them, and gone when nobody has an address of them."""

from __future__ import annotations

import sqlite3
from typing import Any

from launcher.errors import Conflict, NotFound
from launcher.networks import Network

BODY = "json_set(networks.body, '$.id', networks.id)"
"""A network as JSON; the row's number is a part of it."""

_VISIBLE = "(?1 IS NULL OR project_id IS NULL OR project_id = ?1) AND NOT deleting"


def network_of(body: str) -> Network:
    return Network.model_validate_json(body)


def keep(db: sqlite3.Connection, network: Network) -> Network:
    """Everybody's network of this name, made or brought up to date. Raises Conflict when another has its bridge."""
    found = _many(db, "name = ? AND project_id IS NULL", network.name)
    if not found:
        return create(db, network)
    body = network.model_copy(update={"id": found[0].id})
    _check_alone(db, body)
    db.execute(
        "UPDATE networks SET bridge = ?, segment = ?, body = ?, deleting = FALSE WHERE id = ?",
        (body.bridge, body.segment, body.model_dump_json(exclude={"id"}), body.id),
    )
    return body


def create(db: sqlite3.Connection, network: Network) -> Network:
    """Raises Conflict when the name, bridge or segment is in use."""
    _check_alone(db, network)
    row = db.execute(
        "INSERT INTO networks (project_id, name, bridge, segment, body) VALUES (?, ?, ?, ?, ?) RETURNING id",
        (
            network.project_id,
            network.name,
            network.bridge,
            network.segment,
            network.model_dump_json(exclude={"id"}),
        ),
    ).fetchone()
    return network.model_copy(update={"id": row["id"]})


def get(db: sqlite3.Connection, project_id: str | None, name_or_id: str) -> Network:
    """By name, the project's own before everybody's, or by id; `project_id` None sees all."""
    number = int(name_or_id) if name_or_id.isdecimal() and len(name_or_id) < 19 else 0
    found = _many(
        db,
        f"(name = ?2 OR id = ?3) AND {_VISIBLE} ORDER BY name != ?2, project_id IS NULL",
        project_id,
        name_or_id,
        number,
    )
    if not found:
        raise NotFound(f"there is no network {name_or_id!r}", hint="see `launcher network list`", field="networks")
    if project_id is None and len(found) > 1 and found[1].name == name_or_id:
        raise Conflict(f"{len(found)} networks are called {name_or_id!r}", hint="use the id", field="networks")
    return found[0]


def find_own(db: sqlite3.Connection, project_id: str) -> Network | None:
    """The project's first."""
    return next(iter(_many(db, "project_id = ? AND NOT deleting ORDER BY id LIMIT 1", project_id)), None)


def list_visible(db: sqlite3.Connection, project_id: str | None) -> list[Network]:
    """`project_id` None sees all."""
    return _many(db, f"{_VISIBLE} ORDER BY id", project_id)


def list_all(db: sqlite3.Connection) -> list[Network]:
    """Those that are being deleted, too."""
    return _many(db, "TRUE ORDER BY id")


def is_deleting(db: sqlite3.Connection, network: Network) -> bool:
    return db.execute("SELECT 1 FROM networks WHERE id = ? AND deleting", (network.id,)).fetchone() is not None


def begin_deleting(db: sqlite3.Connection, network: Network) -> None:
    """From now on it gives out no address. Raises Conflict while it has given one."""
    leased = db.execute("SELECT count(*) FROM fixed_ips WHERE network = ?", (network.id,)).fetchone()[0]
    if leased:
        raise Conflict(
            f"network {network.name} has {leased} addresses in use",
            hint="delete their instances first",
            field="network",
        )
    db.execute("UPDATE networks SET deleting = TRUE WHERE id = ?", (network.id,))


def delete(db: sqlite3.Connection, network: Network) -> None:
    db.execute("DELETE FROM networks WHERE id = ?", (network.id,))


def _check_alone(db: sqlite3.Connection, network: Network) -> None:
    for other in list_all(db):
        if other.id == network.id:
            continue
        if other.name == network.name and other.project_id == network.project_id:
            raise Conflict(f"there is a network {network.name!r} already", field="name")
        if other.bridge == network.bridge:
            raise Conflict(f"the bridge {network.bridge} is network {other.name}'s", field="bridge")
        if network.segment is not None and other.segment == network.segment:
            raise Conflict(f"the segment {network.segment} is network {other.name}'s", field="segment")


def _many(db: sqlite3.Connection, condition: str, *wanted: Any) -> list[Network]:
    rows = db.execute(f"SELECT {BODY} AS body FROM networks WHERE {condition}", wanted).fetchall()  # noqa: S608
    return [network_of(row["body"]) for row in rows]
