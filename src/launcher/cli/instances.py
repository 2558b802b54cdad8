"""The commands on existing instances: list, show, trace, console, delete."""

from __future__ import annotations

import argparse
import sys
import time

from launcher.cli import output, waterfall
from launcher.cli.client import Api, Exit, Failure, Json, find_endpoint, find_id, find_instance, list_instances

_POLL = 0.2
_CONSOLE_KEPT = 1024


def add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all-projects", action="store_true", help="of every project (administrators)")
    parser.add_argument("--status", help="only BUILD, ACTIVE, PAUSED, SUSPENDED, STOPPED, RESCUED, ERROR or DELETED")
    parser.add_argument("--name", help="only of this name")
    parser.add_argument("--host", help="only on this host")
    parser.add_argument("--limit", type=int, help="at most so many; without it, all pages are read")
    parser.add_argument("--marker", metavar="ID", help="only what follows this instance")
    parser.add_argument("--deleted", action="store_true", help="deleted ones, too")
    parser.set_defaults(run=list_)


def list_(args: argparse.Namespace) -> int:
    api = Api(find_endpoint(args.state))
    wanted = {name: getattr(args, name) for name in ("all_projects", "status", "name", "host", "deleted")}
    wanted["status"] = args.status and args.status.upper()
    if args.limit or args.marker:
        page = api.get("/instances", {**wanted, "limit": args.limit, "marker": args.marker})
    else:
        page = {"instances": list_instances(api, wanted), "next_marker": None}
    if args.json:
        output.print_json(page)
        return Exit.OK
    header = ("ID", "NAME", "STATUS", "ADDRESS", "FLAVOR", "IMAGE", "HOST", "AGE")
    output.print_table(header, map(_row, page["instances"]))
    if page["next_marker"]:
        print(f"there is more: --marker {page['next_marker']}", file=sys.stderr)
    return Exit.OK


def _row(instance: Json) -> tuple[str, ...]:
    return (
        instance["id"][:8],
        instance["name"],
        output.status(instance),
        ",".join(instance["addresses"]) or "-",
        instance["flavor"]["name"],
        instance["image_name"],
        instance["host"] or "-",
        output.age(instance["created_ms"]),
    )


def add_one(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instance", metavar="ID", help="an id, the beginning of one, or a name")


def add_show(parser: argparse.ArgumentParser) -> None:
    add_one(parser)
    parser.set_defaults(run=show)


def show(args: argparse.Namespace) -> int:
    instance = find_instance(Api(find_endpoint(args.state)), args.instance)
    if args.json:
        output.print_json(instance)
        return Exit.OK
    output.print_fields((*_identity(instance), *_placement(instance), *_history(instance)))
    return Exit.OK


def _identity(instance: Json) -> tuple[tuple[str, str], ...]:
    flavor = instance["flavor"]
    return (
        ("id", instance["id"]),
        ("name", instance["name"]),
        ("status", output.status(instance)),
        ("addresses", ", ".join(instance["addresses"])),
        (
            "flavor",
            f"{flavor['name']}: {flavor['vcpus']} vCPU, {flavor['memory_mb']} MiB, {flavor['root_gb']} GiB disk",
        ),
        ("image", f"{instance['image_name']} ({instance['image_id']})"),
        ("key", instance["key_name"] or "none"),
        ("groups", ", ".join(instance["security_groups"])),
        ("metadata", ", ".join(f"{key}={value}" for key, value in instance["metadata"].items())),
    )


def _placement(instance: Json) -> tuple[tuple[str, str], ...]:
    return (
        ("host", instance["host"] or "not chosen"),
        ("zone", instance["availability_zone"] or ""),
        ("hostname", instance["hostname"]),
        ("nics", "; ".join(map(_nic, instance["nics"]))),
        ("on the host", f"instance-{instance['number']:08x}"),
        ("reservation", f"{instance['reservation_id']}, launch index {instance['launch_index']}"),
    )


def _nic(nic: Json) -> str:
    return " ".join(str(nic[name]) for name in ("network", "mac", "address", "address6") if nic[name])


def _history(instance: Json) -> tuple[tuple[str, str], ...]:
    launched, fault = instance["launched_ms"], instance["fault"] or {}
    after = f", {output.duration(launched - instance['created_ms'])} after its creation" if launched else ""
    return (
        ("created", output.moment(instance["created_ms"])),
        ("launched", output.moment(launched) + after),
        ("deleted", output.moment(instance["deleted_ms"])),
        ("fault", "" if not fault else f"{fault['step']}: {fault['message']} [{fault['code']}, {fault['request_id']}]"),
        ("hint", fault.get("hint", "")),
        ("trace", instance["trace_id"]),
    )


def add_trace(parser: argparse.ArgumentParser) -> None:
    add_one(parser)
    parser.set_defaults(run=trace)


def trace(args: argparse.Namespace) -> int:
    api = Api(find_endpoint(args.state))
    found = api.get(f"/instances/{find_id(api, args.instance)}/trace")
    if args.json:
        output.print_json(found)
    elif found["spans"]:
        print(output.harmless(waterfall.draw(found["spans"])))
    else:
        print("nothing has been recorded of this instance yet", file=sys.stderr)
    return Exit.OK


def add_console(parser: argparse.ArgumentParser) -> None:
    add_one(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the guest writes")
    parser.add_argument("--bytes", type=int, help="at most the last so many")
    parser.set_defaults(run=console)


def console(args: argparse.Namespace) -> int:
    api = Api(find_endpoint(args.state))
    instance_id = find_id(api, args.instance)
    path = f"/instances/{instance_id}/console"
    text = api.get_text(path, {"bytes": args.bytes})
    if args.json and not args.follow:
        output.print_json({"instance_id": instance_id, "console": text})
        return Exit.OK
    _write_console(text)
    while args.follow:
        time.sleep(_POLL)
        try:
            current = api.get_text(path)
        except Failure as failure:
            if failure.exit_code == Exit.NOT_FOUND:
                return Exit.OK
            raise
        _write_console(added(text, current))
        text = current
    return Exit.OK


def added(before: str, now: str) -> str:
    """What the console's end says now that it did not say before; its beginning may have been cut off."""
    if now.startswith(before):
        return now[len(before) :]
    known = before[-_CONSOLE_KEPT:]
    at = now.rfind(known)
    return now if at < 0 else now[at + len(known) :]


def _write_console(text: str) -> None:
    """As it is into a file or pipe; without control sequences to a terminal."""
    text = text.replace("\r\n", "\n")
    sys.stdout.write(output.harmless(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def add_delete(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instances", nargs="+", metavar="ID", help="ids, beginnings of ids, or names")
    parser.add_argument("--wait", action="store_true", help="return when nothing of them is left")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds for --wait (60)")
    parser.set_defaults(run=delete)


def delete(args: argparse.Namespace) -> int:
    api = Api(find_endpoint(args.state))
    worst = Exit.OK
    asked: list[Json] = []
    for word in args.instances:
        try:
            asked.append(api.delete(f"/instances/{find_id(api, word)}"))
        except Failure as failure:
            output.print_failure(failure)
            worst = worst or failure.exit_code
    deadline = time.monotonic() + args.timeout
    shown = [_gone(api, each, deadline) if args.wait else each for each in asked]
    if args.json:
        output.print_json({"instances": shown})
    else:
        for each in shown:
            print(f"{each['id'][:8]}  {output.harmless(each['name'])}  {each['status']}")
    return worst


def _gone(api: Api, instance: Json, deadline: float) -> Json:
    """Wait until the instance is deleted."""
    while instance["status"] != "DELETED":
        if time.monotonic() > deadline:
            raise Failure(
                f"{instance['name']} is not gone in time",
                exit_code=Exit.LATE,
                detail=f"it is {output.status(instance)} on {instance['host'] or 'no host'}",
                hint=f"the server goes on deleting it; see `launcher events {instance['id'][:8]}`",
            )
        time.sleep(_POLL)
        try:
            instance = api.get(f"/instances/{instance['id']}")
        except Failure as failure:
            if failure.exit_code != Exit.NOT_FOUND:
                raise
            return {**instance, "status": "DELETED"}
    return instance
