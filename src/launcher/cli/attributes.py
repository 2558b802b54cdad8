"""The commands set, lock and unlock: what may be changed of an instance beside its state."""

from __future__ import annotations

import argparse
import base64
import functools
from pathlib import Path

from launcher.cli import output
from launcher.cli.client import Api, Exit, Failure, Json, find_endpoint, find_id


def add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instance", metavar="ID", help="an id, the beginning of one, or a name")
    parser.add_argument("--name")
    parser.add_argument("--flavor", help="another size; it must be stopped")
    parser.add_argument("--user-data", type=Path, metavar="FILE", help="other user data; it must be stopped")
    parser.add_argument("--on-shutdown", choices=("stop", "terminate"), help="when its guest powers itself off")
    parser.add_argument("--protect", action=argparse.BooleanOptionalAction, help="refuse to delete it")
    parser.set_defaults(run=set_)


def set_(args: argparse.Namespace) -> int:
    api = Api(find_endpoint(args.state))
    given = {
        "name": args.name,
        "flavor": args.flavor,
        "user_data": _encoded(args.user_data),
        "shutdown_behaviour": args.on_shutdown,
        "protected": args.protect,
    }
    body = {name: value for name, value in given.items() if value is not None}
    return _show(args, api.patch(f"/instances/{find_id(api, args.instance)}", body))


def _encoded(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return base64.b64encode(file.read_bytes()).decode()
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}", exit_code=Exit.USAGE) from None


def add_lock(locked: bool, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instance", metavar="ID", help="an id, the beginning of one, or a name")
    parser.set_defaults(run=functools.partial(_lock, locked))


def _lock(locked: bool, args: argparse.Namespace) -> int:
    api = Api(find_endpoint(args.state))
    path = f"/instances/{find_id(api, args.instance)}/lock"
    return _show(args, api.put(path, {}) if locked else api.delete(path))


def _show(args: argparse.Namespace, instance: Json) -> int:
    if args.json:
        output.print_json(instance)
    else:
        print(f"{instance['id'][:8]}  {output.harmless(instance['name'])}  {output.status(instance)}")
    return Exit.OK
