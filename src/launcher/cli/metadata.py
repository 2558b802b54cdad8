"""`launcher metadata`: the metadata service as an instance's guest sees it."""

from __future__ import annotations

import argparse
import base64
import sys
from urllib.parse import quote

from launcher.cli import output
from launcher.cli.client import Api, Exit, find_endpoint, find_id
from launcher.cli.instances import add_one

_WIDTH = 100
"""Characters of a value that the table shows."""


def add_metadata(parser: argparse.ArgumentParser) -> None:
    add_one(parser)
    parser.add_argument(
        "path",
        nargs="?",
        metavar="PATH",
        help="print exactly what the guest is sent there; without it, a table of all below /latest",
    )
    parser.set_defaults(run=show)


def show(args: argparse.Namespace) -> int:
    api = Api(find_endpoint(args.state))
    path = "latest" if args.path is None else args.path
    page = api.get(f"/instances/{find_id(api, args.instance)}/metadata-service/{quote(path.lstrip('/'))}")
    if args.json:
        output.print_json(page)
    elif args.path is None:
        names = ((name.removeprefix("latest/"), _line(value)) for name, value in page["leaves"].items())
        output.print_table(("PATH", "VALUE"), list(names))
    else:
        _write(base64.b64decode(page["body"]))
    return Exit.OK


def _line(value: str) -> str:
    joined = " ".join(value.split())
    return joined if len(joined) <= _WIDTH else f"{joined[:_WIDTH]}…"


def _write(body: bytes) -> None:
    """As it is into a file or pipe; readable, and without control sequences, on a terminal."""
    if sys.stdout.isatty():
        print(output.harmless(body.decode(errors="replace")))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(body)
