"""The event log and the spans of the traces, each kept for a bounded time."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from launcher.models import Event, Instance, InstanceId, Span


def add(
    db: sqlite3.Connection, instance: Instance, *, request_id: str, trace_id: str, at_ms: float, message: str = ""
) -> Event:
    """A line saying where the instance stands now; call it in the transaction that moved it."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    event = Event(
        seq=(row[0] if row else 0) + 1,
        at_ms=int(at_ms),
        project_id=instance.project_id,
        instance_id=instance.id,
        name=instance.name,
        vm_state=instance.vm_state,
        task_state=instance.task_state,
        host=instance.host,
        request_id=request_id,
        trace_id=trace_id,
        message=message,
    )
    db.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?)",
        (event.seq, event.project_id, event.instance_id, event.model_dump_json()),
    )
    return event


def list_after(
    db: sqlite3.Connection, after: int, *, project_id: str | None, instance_id: InstanceId | None, limit: int = 1000
) -> list[Event]:
    rows = db.execute(
        "SELECT body FROM events WHERE seq > :after AND (:project IS NULL OR project_id = :project)"
        " AND (:instance IS NULL OR instance_id = :instance) ORDER BY seq LIMIT :limit",
        {"after": after, "project": project_id, "instance": instance_id, "limit": limit},
    ).fetchall()
    return [Event.model_validate_json(row["body"]) for row in rows]


def add_spans(db: sqlite3.Connection, spans: Sequence[Span]) -> None:
    """Repeating a span is success."""
    db.executemany(
        "INSERT OR IGNORE INTO spans VALUES (?, ?, ?, ?, ?)",
        [(span.trace_id, span.span_id, span.instance_id, span.start_ms, span.model_dump_json()) for span in spans],
    )


def list_spans(db: sqlite3.Connection, traces: Sequence[str], instance_id: InstanceId) -> list[Span]:
    """Those of the traces that concern the instance or nobody else, by start."""
    rows = [
        row
        for trace in traces
        for row in db.execute(
            "SELECT body FROM spans WHERE trace_id = ? AND (instance_id IS NULL OR instance_id = ?)",
            (trace, instance_id),
        )
    ]
    return sorted((Span.model_validate_json(row["body"]) for row in rows), key=lambda span: span.start_ms)


def prune(db: sqlite3.Connection, *, spans_before_ms: float, events_kept: int) -> None:
    db.execute("DELETE FROM spans WHERE start_ms < ?", (spans_before_ms,))
    db.execute("DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?", (events_kept,))
