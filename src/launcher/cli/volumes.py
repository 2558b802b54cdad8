"""The commands `volume` and `snapshot`: disks with a life of their own, and what was in them."""

from __future__ import annotations

import argparse
import time
from urllib.parse import quote

from launcher.cli import output
from launcher.cli.client import Api, Exit, Failure, Json, find_endpoint, find_id
from launcher.cli.resources import delete_each, show_rows

_PATH, _SNAPSHOTS = "/volumes", "/snapshots"
_POLL = 0.2
_AT_REST = ("available", "in-use", "error", "deleted")


def add_volume(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_create(verbs.add_parser("create", help="make one: empty, of a snapshot or of an image"))
    listing = verbs.add_parser("list", help="those of the project")
    listing.add_argument("--all-projects", action="store_true", help="of every project (administrators)")
    listing.set_defaults(run=list_volumes)
    show = verbs.add_parser("show", help="all about one")
    show.add_argument("volume", metavar="VOLUME", help="a name or an id")
    show.set_defaults(run=show_volume)
    _add_attachments(verbs)
    extend = verbs.add_parser("extend", help="make it larger, attached or not")
    extend.add_argument("volume", metavar="VOLUME", help="a name or an id")
    extend.add_argument("size_gb", type=int, metavar="GB")
    _add_wait(extend)
    extend.set_defaults(run=extend_volume)
    snapshot = verbs.add_parser("snapshot", help="keep what is in it now")
    snapshot.add_argument("volume", metavar="VOLUME", help="a name or an id")
    snapshot.add_argument("--name")
    snapshot.add_argument("--force", action="store_true", help="pause the machine that has it while it is copied")
    _add_wait(snapshot)
    snapshot.set_defaults(run=create_snapshot)
    delete = verbs.add_parser("delete", help="delete them and what is in them")
    delete.add_argument("volumes", nargs="+", metavar="VOLUME")
    delete.set_defaults(run=delete_volumes)


def _add_attachments(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    attach = verbs.add_parser("attach", help="let an instance have it, running or stopped")
    attach.add_argument("volume", metavar="VOLUME", help="a name or an id")
    attach.add_argument("instance", metavar="ID", help="an id, the beginning of one, or a name")
    attach.add_argument("--device", metavar="DEV", help="vdb to vdy; without it, the first free one")
    attach.add_argument("--delete-on-termination", action="store_true", help="it ends with the instance")
    _add_wait(attach)
    attach.set_defaults(run=attach_volume)
    detach = verbs.add_parser("detach", help="take it away from its instance")
    detach.add_argument("volume", metavar="VOLUME", help="a name or an id")
    detach.add_argument("--force", action="store_true", help="reset the machine if its guest does not let go")
    _add_wait(detach)
    detach.set_defaults(run=detach_volume)


def add_snapshot(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="those of the project's volumes")
    listing.add_argument("--all-projects", action="store_true", help="of every project (administrators)")
    listing.set_defaults(run=list_snapshots)
    delete = verbs.add_parser("delete", help="delete them; volumes that were made of them stay")
    delete.add_argument("snapshots", nargs="+", metavar="SNAPSHOT")
    delete.set_defaults(run=delete_snapshots)


def _add_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="without it, one is made up")
    parser.add_argument("--size", type=int, metavar="GB", help="without it, that of what it is made of")
    parser.add_argument("--snapshot", metavar="SNAPSHOT", help="what it is made of")
    parser.add_argument("--image", metavar="IMAGE", help="what it is made of")
    parser.add_argument("--near", metavar="ID", help="on the host of this instance")
    parser.add_argument("--zone", help="in this availability zone")
    _add_wait(parser)
    parser.set_defaults(run=create_volume)


def _add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-wait", action="store_true", help="return when it is accepted")
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="seconds to wait (60)")


def create_volume(args: argparse.Namespace) -> int:
    api = _api(args)
    near = find_id(api, args.near) if args.near else None
    asked = {"name": args.name, "size_gb": args.size, "snapshot": args.snapshot, "image": args.image}
    body = {**asked, "near": near, "availability_zone": args.zone}
    made = api.post(_PATH, {name: value for name, value in body.items() if value is not None})
    return _ended(api, made, args)


def list_volumes(args: argparse.Namespace) -> int:
    found = _api(args).get(_PATH, {"all_projects": args.all_projects})
    _show(found["volumes"], found, args)
    return Exit.OK


def show_volume(args: argparse.Namespace) -> int:
    volume = _api(args).get(_one(args.volume))
    if args.json:
        output.print_json(volume)
        return Exit.OK
    there, fault = volume["attachment"], volume["fault"] or {}
    output.print_fields(
        (
            ("id", volume["id"]),
            ("name", volume["name"]),
            ("description", volume["description"]),
            ("status", volume["status"]),
            ("size", f"{volume['size_gb']} GiB"),
            ("host", volume["host"] or "not chosen"),
            ("attached", f"{there['instance_id']} as /dev/{there['device']}" if there else ""),
            ("ends with it", "yes" if there and there["delete_on_termination"] else ""),
            ("of snapshot", volume["snapshot_id"] or ""),
            ("of image", volume["image_id"] or ""),
            ("metadata", ", ".join(f"{key}={value}" for key, value in volume["metadata"].items())),
            ("on the host", f"volume-{volume['number']:08x}"),
            ("created", output.moment(volume["created_ms"])),
            ("fault", f"{fault['step']}: {fault['message']} [{fault['code']}]" if fault else ""),
            ("hint", fault.get("hint", "")),
        )
    )
    return Exit.OK


def attach_volume(args: argparse.Namespace) -> int:
    api = _api(args)
    body: Json = {"instance": find_id(api, args.instance), "delete_on_termination": args.delete_on_termination}
    if args.device:
        body["device"] = args.device.removeprefix("/dev/")
    return _ended(api, api.post(f"{_one(args.volume)}/attachment", body), args)


def detach_volume(args: argparse.Namespace) -> int:
    api = _api(args)
    query = "?force=true" if args.force else ""
    return _ended(api, api.delete(f"{_one(args.volume)}/attachment{query}"), args)


def extend_volume(args: argparse.Namespace) -> int:
    api = _api(args)
    return _ended(api, api.post(f"{_one(args.volume)}/size", {"size_gb": args.size_gb}), args)


def create_snapshot(args: argparse.Namespace) -> int:
    api, body = _api(args), {"volume": args.volume, "force": args.force}
    made = api.post(_SNAPSHOTS, {**body, **({"name": args.name} if args.name else {})})
    return _ended(api, made, args)


def delete_volumes(args: argparse.Namespace) -> int:
    return delete_each(_api(args), _PATH, args.volumes)


def list_snapshots(args: argparse.Namespace) -> int:
    found = _api(args).get(_SNAPSHOTS, {"all_projects": args.all_projects})
    _show(found["snapshots"], found, args)
    return Exit.OK


def delete_snapshots(args: argparse.Namespace) -> int:
    return delete_each(_api(args), _SNAPSHOTS, args.snapshots)


def _ended(api: Api, thing: Json, args: argparse.Namespace) -> int:
    """Wait until nothing is under way with it; what failed is told with its reason."""
    path = f"{_SNAPSHOTS if 'volume_id' in thing else _PATH}/{thing['id']}"
    deadline = time.monotonic() + args.timeout
    while not args.no_wait and thing["status"] not in _AT_REST:
        if time.monotonic() > deadline:
            raise _failure(thing, f"{thing['name']} is still {thing['status']}", Exit.LATE)
        time.sleep(_POLL)
        thing = api.get(path)
    _show([thing], thing, args)
    if thing["fault"] and not args.no_wait:
        raise _failure(thing, f"{thing['name']}: {thing['fault']['step']} failed", Exit.FAULT)
    return Exit.OK


def _failure(thing: Json, title: str, exit_code: Exit) -> Failure:
    fault = thing["fault"] or {}
    hint = fault.get("hint", "") or "the server goes on with it"
    return Failure(title, exit_code=exit_code, detail=fault.get("message", ""), hint=hint)


def _show(found: list[Json], answer: object, args: argparse.Namespace) -> None:
    """Snapshots have no attachment, but a volume."""
    rows = [{**each, "size": f"{each['size_gb']} GiB", "attached": _attached(each)} for each in found]
    last = "volume_id" if any("volume_id" in each for each in found) else "attached"
    show_rows(rows, answer, ("id", "name", "status", "size", last), args)


def _attached(volume: Json) -> str:
    there = volume.get("attachment")
    return f"{there['instance_id'][:8]} /dev/{there['device']}" if there else "-"


def _one(name: str) -> str:
    return f"{_PATH}/{quote(name, safe='')}"


def _api(args: argparse.Namespace) -> Api:
    return Api(find_endpoint(args.state))
