"""The command `image build-tiny`: builds the image into the library, then registers it if a server runs."""

from __future__ import annotations

import argparse
import asyncio
import sys

from launcher.cli import output
from launcher.cli.client import Api, Exit, Failure, find_endpoint, find_state
from launcher.cli.launch import TINY
from launcher.drivers.images.tiny import Kernel, build_tiny
from launcher.errors import LauncherError


def run(args: argparse.Namespace) -> int:
    state = find_state(args.state)
    try:
        built = asyncio.run(
            build_tiny(
                args.library or state / "images", cache=state / "cache", name=TINY, kernel=_kernel(args), say=_say
            )
        )
    except LauncherError as error:
        raise Failure(error.message, hint=error.hint) from None
    except OSError as error:
        raise Failure(str(error), hint="the library must be writable; see --state and --library") from None
    _say(f"built {built}")
    found = _register(args.state)
    if args.json:
        output.print_json({"path": str(built), "registered": found})
    return Exit.OK


def _kernel(args: argparse.Namespace) -> Kernel | None:
    if not (args.vmlinuz or args.modules):
        return None
    if not (args.vmlinuz and args.modules):
        raise Failure("--vmlinuz and --modules go together", exit_code=Exit.USAGE)
    return Kernel(args.vmlinuz, args.modules)


def _register(state: str | None) -> bool:
    """A server that starts later finds the image by itself."""
    try:
        Api(find_endpoint(state)).post("/images", {"name": TINY})
    except Failure as failure:
        if failure.exit_code != Exit.UNREACHABLE:
            raise
        _say("no server runs; the next `launcher serve` will know the image")
        return False
    _say(f"registered; next: launcher run {TINY}")
    return True


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
