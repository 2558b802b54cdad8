"""A trace as text: one line a span, nested by its parents, what waited drawn apart from what worked.

    role        what                       0 ms                                    412 ms    start     took
    api         POST /instances            ██▌

`░` is the time in a queue (from being sent to the start of work), `█` the work itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from launcher.cli.client import Json

WIDTH = 100
QUEUED, WORKED = "░", "█"

_ROLE, _NUMBERS = 11, 20
_NAME = 30
_BAR = WIDTH - _ROLE - _NAME - _NUMBERS - 3


def draw(spans: Sequence[Json]) -> str:
    """One waterfall for each trace among the spans, in order of time; at most 100 columns wide."""
    traces: dict[str, list[Json]] = {}
    for span in sorted(spans, key=_begin):
        traces.setdefault(span["trace_id"], []).append(span)
    return "\n\n".join("\n".join(_one_trace(trace_id, trace)) for trace_id, trace in traces.items())


def _one_trace(trace_id: str, spans: list[Json]) -> Iterator[str]:
    first = min(map(_begin, spans))
    whole = max(span["end_ms"] for span in spans) - first
    yield f"trace {trace_id}: {whole:.1f} ms, {QUEUED} queued {WORKED} working"
    axis = "0" + f"{whole:.0f} ms".rjust(_BAR - 1)
    yield f"{'ROLE':{_ROLE}} {'WHAT':{_NAME}} {axis} {'START':>10}{'TOOK':>10}"
    for depth, span in _nested(spans):
        yield from _lines(span, depth, first, whole or 1.0)


def _nested(spans: list[Json]) -> Iterator[tuple[int, Json]]:
    """Depth first; a span whose parent is not among them, or that is its own ancestor, stands at the left."""
    known = {span["span_id"] for span in spans}
    children: dict[str | None, list[Json]] = {}
    for span in spans:
        parent = span["parent_id"]
        children.setdefault(parent if parent in known and parent != span["span_id"] else None, []).append(span)
    drawn: set[str] = set()
    waiting = [(0, span) for span in reversed([*children.get(None, []), *spans])]
    while waiting:
        depth, span = waiting.pop()
        if span["span_id"] not in drawn:
            drawn.add(span["span_id"])
            yield depth, span
            waiting += [(depth + 1, child) for child in reversed(children.get(span["span_id"], []))]


def _lines(span: Json, depth: int, first: float, whole: float) -> Iterator[str]:
    name = _fitted("  " * depth + span["name"], _NAME)
    start, took = span["start_ms"] - first, span["end_ms"] - span["start_ms"]
    yield f"{_fitted(span['role'], _ROLE)} {name} {_bar(span, first, whole)} {_number(start)}{_number(took)}"
    if span["error"]:
        yield f"{'':{_ROLE}} {'  ' * depth}└ failed: {span['error']}"[:WIDTH]


def _bar(span: Json, first: float, whole: float) -> str:
    """Cells of equal time; work always shows, however short it was."""
    begin, start, end = (int((at - first) / whole * _BAR) for at in (_begin(span), span["start_ms"], span["end_ms"]))
    start = min(start, _BAR - 1)
    end = max(end, start + 1)
    return (" " * min(begin, start) + QUEUED * max(0, start - begin) + WORKED * (end - start)).ljust(_BAR)


def _number(ms: float) -> str:
    """Ten columns; tenths as long as they matter."""
    return f"{ms:10.1f}" if ms < 1e7 else f"{ms:10.0f}"


def _begin(span: Json) -> float:
    """When it was sent, or when its work began if it was not sent."""
    queued: float | None = span["queued_ms"]
    start: float = span["start_ms"]
    return start if queued is None else min(queued, start)


def _fitted(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"
