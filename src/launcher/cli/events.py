"""The event log as it grows: server-sent events, and the command `events`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator

from launcher.cli import output
from launcher.cli.client import Api, Exit, Failure, Json, find_endpoint, find_id

FOREVER = 10 * 365 * 86400.0
_RECONNECT = 0.5
"""Seconds before the stream is opened again, when the server ended it (it may be restarting)."""


def parse(lines: Iterable[str]) -> Iterator[Json]:
    """The events of a stream (HTML standard, section 9.2.6); only `data` matters to us, comments keep it alive."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield _event("\n".join(data))
            data.clear()


def _event(text: str) -> Json:
    try:
        event: Json = json.loads(text)
        if isinstance(event["seq"], int):
            return event
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise Failure("the server's answer is no event", detail=text[:300])


def follow(api: Api, deadline: float, *, after: int = 0, instance_id: str | None = None) -> Iterator[Json]:
    """Events after `after`, each once, across restarts of the server; ends at `deadline` (of time.monotonic)."""
    opened = False
    while time.monotonic() < deadline:
        try:
            with api.stream("/events", {"after": after, "instance_id": instance_id}, deadline) as lines:
                opened = True
                for event in parse(lines):
                    after = event["seq"]
                    yield event
        except Failure as failure:
            if not opened or failure.exit_code not in (Exit.UNREACHABLE, Exit.LATE):
                raise
        time.sleep(max(0.0, min(_RECONNECT, deadline - time.monotonic())))


def past(api: Api, instance_id: str | None) -> Iterator[Json]:
    """The event log up to now."""
    with api.stream("/events", {"follow": "false", "instance_id": instance_id}, time.monotonic() + 30.0) as lines:
        yield from parse(lines)


def add_events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instance", nargs="?", metavar="ID", help="only this instance's")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as events happen")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    api = Api(find_endpoint(args.state))
    instance_id = find_id(api, args.instance) if args.instance else None
    forever = time.monotonic() + FOREVER
    for event in follow(api, forever, instance_id=instance_id) if args.follow else past(api, instance_id):
        if args.json:
            output.print_json_line(event)
        else:
            print(output.painted(output.harmless(_line(event))), flush=True)
    return Exit.OK


def _line(event: Json) -> str:
    state = event["task_state"] or event["vm_state"].upper()
    words = (output.moment(event["at_ms"]), event["instance_id"][:8], f"{state:12}", event["name"], event["message"])
    return "  ".join(word for word in words if word)
