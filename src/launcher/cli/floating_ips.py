"""The command `floating-ip`: create, list, associate, disassociate, delete."""

from __future__ import annotations

import argparse
from urllib.parse import quote

from launcher.cli.client import Api, Exit, Json, find_endpoint, find_id
from launcher.cli.resources import delete_each, show_rows

_PATH = "/floating-ips"


def add_floating_ip(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    create = verbs.add_parser("create", help="hold an address of a pool for the project")
    create.add_argument("--pool", metavar="NAME", help="without it, the first of the server's settings")
    create.add_argument("--address", metavar="ADDR", help="this one; without it, the lowest free one")
    create.set_defaults(run=create_floating_ip)
    verbs.add_parser("list", help="those of the project").set_defaults(run=list_floating_ips)
    associate = verbs.add_parser("associate", help="let one lead to an instance")
    associate.add_argument("floating_ip", metavar="ADDR")
    associate.add_argument("instance", metavar="ID", help="an id, the beginning of one, or a name")
    associate.add_argument("--fixed", metavar="ADDR", help="which of its addresses; without it, its first NIC's")
    associate.add_argument("--reassociate", action="store_true", help="also if it leads elsewhere now")
    associate.set_defaults(run=associate_floating_ip)
    disassociate = verbs.add_parser("disassociate", help="let them lead nowhere; the project keeps them")
    disassociate.add_argument("floating_ips", nargs="+", metavar="ADDR")
    disassociate.set_defaults(run=disassociate_floating_ips)
    delete = verbs.add_parser("delete", help="give back those that lead nowhere")
    delete.add_argument("floating_ips", nargs="+", metavar="ADDR")
    delete.set_defaults(run=delete_floating_ips)


def create_floating_ip(args: argparse.Namespace) -> int:
    body = {"pool": args.pool, "address": args.address}
    made = _api(args).post(_PATH, {name: value for name, value in body.items() if value is not None})
    _show([made], made, args)
    return Exit.OK


def list_floating_ips(args: argparse.Namespace) -> int:
    found = _api(args).get(_PATH)
    _show(found["floating_ips"], found, args)
    return Exit.OK


def associate_floating_ip(args: argparse.Namespace) -> int:
    api = _api(args)
    body: Json = {"instance": find_id(api, args.instance), "reassociate": args.reassociate}
    if args.fixed:
        body["fixed"] = args.fixed
    made = api.post(f"{_PATH}/{quote(args.floating_ip, safe='')}/association", body)
    _show([made], made, args)
    return Exit.OK


def disassociate_floating_ips(args: argparse.Namespace) -> int:
    return delete_each(_api(args), _PATH, args.floating_ips, "/association")


def delete_floating_ips(args: argparse.Namespace) -> int:
    return delete_each(_api(args), _PATH, args.floating_ips)


def _show(found: list[Json], answer: object, args: argparse.Namespace) -> None:
    rows = [{**each, "fixed": each["fixed"] or "-", "instance": each["instance_id"] or "-"} for each in found]
    show_rows(rows, answer, ("address", "pool", "fixed", "instance"), args)


def _api(args: argparse.Namespace) -> Api:
    return Api(find_endpoint(args.state))
