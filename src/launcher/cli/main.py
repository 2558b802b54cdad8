"""The entry of the command line: the table of commands, and what an exit code means."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from launcher import __version__
from launcher.cli import (
    accounts,
    attributes,
    audit,
    completion,
    environment,
    events,
    expose,
    floating_ips,
    groups,
    images,
    instances,
    launch,
    life,
    login,
    metadata,
    networks,
    output,
    resources,
    volumes,
)
from launcher.cli.client import Failure

_EXIT_CODES = (
    "exit codes: 0 done, 1 the server refused, 2 wrong usage, 3 not found, "
    "4 no server answers, 5 late, 6 ended in ERROR"
)
_INTERRUPTED, _PIPE_CLOSED = 130, 141
"""What a shell reports of a program ended by SIGINT or SIGPIPE."""


class Parser(argparse.ArgumentParser):
    """Takes --json and --state before and after every command. A command may define them anew."""

    def __init__(self, **options: Any) -> None:
        super().__init__(conflict_handler="resolve", allow_abbrev=False, **options)
        self.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="answer in JSON")
        self.add_argument(
            "--state", metavar="DIR", default=argparse.SUPPRESS, help="state directory of the server to talk to"
        )


def _add_serve(parser: argparse.ArgumentParser) -> None:
    from launcher.cli import serve  # noqa: PLC0415 - it loads the whole server

    serve.add_arguments(parser)
    parser.set_defaults(run=serve.run)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from launcher.cli import doctor  # noqa: PLC0415 - it runs programs, which needs asyncio

    return doctor.run(args)


def _add_complete(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_complete)


def _complete(args: argparse.Namespace) -> int:
    return completion.complete(build_parser(args.rest[:-1]), args)


COMMANDS: dict[str, tuple[str | None, Callable[[argparse.ArgumentParser], None]]] = {
    "serve": ("start the server", _add_serve),
    "run": ("launch instances and show each step", launch.add_run),
    "list": ("the instances", instances.add_list),
    "show": ("all about an instance", instances.add_show),
    "trace": ("where the time of a launch went", instances.add_trace),
    "console": ("what the guest wrote to its console", instances.add_console),
    "metadata": ("what the guest is told about itself", metadata.add_metadata),
    "ssh": ("log in, or run a command in the guest", login.add_ssh),
    "expose": ("a loopback port here that leads to a guest's port", expose.add_expose),
    **life.commands(),
    "set": ("change what may be changed of an instance", attributes.add_set),
    "lock": ("keep others from an instance", functools.partial(attributes.add_lock, True)),
    "unlock": ("let them at it again", functools.partial(attributes.add_lock, False)),
    "delete": ("end instances, whatever they are doing", instances.add_delete),
    "events": ("the event log", events.add_events),
    "keypair": ("keys that may log in", resources.add_keypair),
    "network": ("networks", networks.add_network),
    "floating-ip": ("addresses that lead to an instance from outside", floating_ips.add_floating_ip),
    "volume": ("disks with a life of their own", volumes.add_volume),
    "snapshot": ("what was in a volume at one moment", volumes.add_snapshot),
    "group": ("security groups", groups.add_group),
    "project": ("projects, and what they may hold", accounts.add_project),
    "user": ("users and their roles", accounts.add_user),
    "credentials": ("access keys, tokens and application credentials", accounts.add_credentials),
    "env": ("variables for EC2's and OpenStack's clients", environment.add_env),
    "image": ("images", images.add_image),
    "flavor": ("sizes", resources.add_flavor),
    "host": ("compute hosts", resources.add_host),
    "audit": ("what the hosts have and should not, or lack (administrators)", audit.add_audit),
    "gc": ("remove what no instance owns (administrators)", audit.add_gc),
    "doctor": ("what this machine can and cannot do", _add_doctor),
    "completion": ("a script for your shell", completion.add_completion),
    "_complete": (None, _add_complete),
}


def build_parser(words: Sequence[str]) -> Parser:
    """A parser for these words: it has the commands named in them with their options, else all of them without.

    Building every option of every command would take longer than `launcher list` itself.
    """
    parser = Parser(prog="launcher", description="Launch virtual machines as Nova does.", epilog=_EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"launcher {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    named = [] if words[:1] in (["-h"], ["--help"]) else [name for name in COMMANDS if name in words]
    for name in named or COMMANDS:
        text, add = COMMANDS[name]
        command = commands.add_parser(name, help=text) if text else commands.add_parser(name)
        if name in named:
            add(command)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    parser = build_parser(words[:cut])
    args = argparse.Namespace(json=False, state=None, rest=words[cut + 1 :])
    parser.parse_args(words[:cut], args)
    if args.rest and args.run not in (login.ssh, _complete):
        parser.error("nothing may follow -- except in `launcher ssh ID -- COMMAND`")
    return _guarded(args)


def _guarded(args: argparse.Namespace) -> int:
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except Failure as failure:
        output.print_failure(failure)
        return failure.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left unsaid has no reader
        return _PIPE_CLOSED
    return code


if __name__ == "__main__":
    sys.exit(main())
