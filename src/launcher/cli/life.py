"""The commands between a launch and its end: stop, start, reboot, pause, rescue and the like."""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable

from launcher.cli import output
from launcher.cli.client import Api, Exit, Failure, Json, find_endpoint, find_id
from launcher.cli.login import forget_host

_POLL = 0.2
HELP = {
    "stop": "end machines; disks and addresses stay",
    "start": "start stopped instances",
    "reboot": "shut machines down and start them again",
    "pause": "stop the processors of machines",
    "unpause": "let them run again",
    "suspend": "write the memory of machines to files and end them",
    "resume": "go on with suspended instances",
    "rebuild": "make the disks of instances anew; addresses and volumes stay",
    "rescue": "boot instances from another root, with their own beside it",
    "unrescue": "boot them from their own again",
}
_FORCED = {"stop": "--force", "reboot": "--hard"}
_OF_IMAGES = {"rebuild", "rescue"}


def commands() -> dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]]:
    """What the main parser has to know of each."""
    return {verb: (text, functools.partial(_add, verb)) for verb, text in HELP.items()}


def _add(verb: str, parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instances", nargs="+", metavar="ID", help="ids, beginnings of ids, or names")
    parser.add_argument("--wait", action="store_true", help="return when it is done")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="seconds for --wait (120)")
    if verb in _FORCED:
        parser.add_argument(_FORCED[verb], dest="force", action="store_true", help="do not ask the guest to shut down")
        parser.add_argument("--grace", type=float, metavar="S", help="seconds that the guest may take to shut down")
    if verb in _OF_IMAGES:
        parser.add_argument("--image", help="name or id; else the one that each was made of")
    if verb == "rebuild":
        parser.add_argument("--key", dest="key_name", metavar="NAME", help="another key pair for the guest")
    parser.set_defaults(run=functools.partial(_run, verb))


def _run(verb: str, args: argparse.Namespace) -> int:
    """One that is refused does not keep the others from it."""
    api = Api(find_endpoint(args.state))
    body = _body(verb, args)
    worst = Exit.OK
    begun: list[Json] = []
    for word in args.instances:
        try:
            begun.append(api.post(f"/instances/{find_id(api, word)}/{verb}", body))
            if verb in _OF_IMAGES:
                forget_host(begun[-1]["id"], rescued=verb == "rescue")
        except Failure as failure:
            output.print_failure(failure)
            worst = worst or failure.exit_code
    deadline = time.monotonic() + args.timeout
    shown = [at_rest(api, each, deadline) if args.wait else each for each in begun]
    if args.json:
        output.print_json({"instances": shown})
    else:
        for each in shown:
            print(f"{each['id'][:8]}  {output.harmless(each['name'])}  {output.status(each)}")
    return worst


def _body(verb: str, args: argparse.Namespace) -> Json:
    if verb in _FORCED:
        return {"force": args.force, "timeout_s": args.grace}
    told = {"image": args.image} if verb in _OF_IMAGES else {}
    return told | ({"key_name": args.key_name} if verb == "rebuild" else {})


def at_rest(api: Api, instance: Json, deadline: float) -> Json:
    """Wait until nothing is under way any more. Raises Failure when it is late or has failed."""
    verb = instance["task_state"]
    while instance["task_state"]:
        if time.monotonic() > deadline:
            raise Failure(
                f"{instance['name']} is still {instance['task_state']}",
                exit_code=Exit.LATE,
                hint=f"the server goes on with it; see `launcher events {instance['id'][:8]}`",
            )
        time.sleep(_POLL)
        instance = api.get(f"/instances/{instance['id']}")
    if fault := instance["fault"]:
        raise Failure(
            f"{instance['name']}: {verb} failed, it is {instance['status']}",
            exit_code=Exit.FAULT,
            detail=f"{fault['step']}: {fault['message']} [{fault['code']}, {fault['request_id']}]",
            hint=fault["hint"],
        )
    return instance
