"""The text waterfall: a pure function with a golden file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.cli import waterfall

GOLDEN = Path(__file__).parents[1] / "golden" / "waterfall.txt"


def span(span_id: str, parent_id: str | None, role: str, name: str, *at: float | None, **more: Any) -> dict[str, Any]:
    queued_ms, start_ms, end_ms = at
    return {
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id": span_id,
        "parent_id": parent_id,
        "role": role,
        "host": "box",
        "name": name,
        "kind": "hop",
        "queued_ms": queued_ms,
        "start_ms": start_ms,
        "end_ms": end_ms,
        "instance_id": None,
        "error": None,
        **more,
    }


LAUNCH = [
    span("01", None, "api", "POST /instances", None, 1000.0, 1012.5),
    span("02", "01", "controller", "create_instances", 1001.0, 1002.0, 1011.0),
    span("03", "02", "scheduler", "run_instance", 1010.0, 1040.0, 1043.0),
    span("04", "03", "compute", "run_instance", 1042.0, 1060.0, 1410.0),
    span("05", "04", "compute", "networking", None, 1061.0, 1085.0),
    span("06", "05", "network", "allocate_fixed_ip", 1062.0, 1064.0, 1083.0),
    span("07", "04", "compute", "a step whose name does not fit its column", None, 1085.0, 1120.0),
    span("08", "04", "compute", "spawning", None, 1120.0, 1408.0, error="spawn_failed"),
]
DELETION = [
    span("11", "gone", "api", "DELETE /instances/{id}", None, 9000.0, 9000.0, trace_id="0" * 31 + "1"),
]


def test_a_launch_and_its_deletion_look_like_the_golden_file() -> None:
    """To renew it: print(waterfall.draw(LAUNCH + DELETION)), and look at it."""
    drawn = waterfall.draw([*DELETION, *reversed(LAUNCH)])

    assert drawn + "\n" == GOLDEN.read_text()


def test_no_line_is_wider_than_100_columns() -> None:
    long = span("09", "04", "a role of many letters", "x" * 200, 1000.0, 5e8, 9e8, error="y" * 200)

    assert max(map(len, waterfall.draw([*LAUNCH, long]).splitlines())) <= waterfall.WIDTH


def test_spans_that_are_each_others_parents_do_not_hang_it() -> None:
    drawn = waterfall.draw([span("01", "02", "api", "a", None, 1.0, 2.0), span("02", "01", "api", "b", None, 1.0, 2.0)])

    assert len(drawn.splitlines()) == 4


def test_clocks_that_disagree_do_not_break_the_bar() -> None:
    """A span of another host may seem to begin before it was sent, or to end before it began."""
    drawn = waterfall.draw([span("01", None, "compute", "spawning", 50.0, 10.0, 5.0)])

    assert waterfall.WORKED in drawn
