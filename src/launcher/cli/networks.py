"""The command `network`: create, list, show, delete."""

from __future__ import annotations

import argparse
from urllib.parse import quote

from launcher.cli import output
from launcher.cli.client import Api, Exit, Json, find_endpoint, find_id
from launcher.cli.resources import delete_each, show_rows


def add_network(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    create = verbs.add_parser("create", help="a bridge with a range of addresses (administrators)")
    create.add_argument("name")
    create.add_argument("cidr", help="the range, as 10.1.0.0/24")
    create.add_argument("--project", metavar="ID", help="whose it is; without it, everybody's")
    create.add_argument("--gateway", metavar="ADDR", help="the first address")
    create.add_argument("--bridge", help="the device; without it, one is named")
    create.add_argument("--segment", type=int, metavar="N", help="mode vlan: its VLAN id or VXLAN network identifier")
    create.add_argument("--cidr6", metavar="RANGE", help="a /64 of IPv6 that guests make their addresses in")
    create.add_argument("--dns", action="append", metavar="ADDR", help="name server told to guests; may be repeated")
    create.set_defaults(run=create_network)
    verbs.add_parser("list", help="the project's and everybody's").set_defaults(run=list_networks)
    show = verbs.add_parser("show", help="one network")
    show.add_argument("network", help="name or id")
    show.set_defaults(run=show_network)
    delete = verbs.add_parser("delete", help="those that no instance is in (administrators)")
    delete.add_argument("networks", nargs="+", metavar="NETWORK")
    delete.set_defaults(run=delete_networks)
    explain = verbs.add_parser("explain", help="would a packet pass an instance's filters, and by which rule")
    explain.add_argument("instance", help="id, the beginning of one, or name")
    ends = explain.add_mutually_exclusive_group(required=True)
    ends.add_argument("--from", dest="source", metavar="ADDR", help="it comes from here")
    ends.add_argument("--to", metavar="ADDR", help="it goes there")
    explain.add_argument("--proto", default="tcp", choices=["tcp", "udp", "icmp", "other"])
    explain.add_argument("--port", type=int, metavar="N", help="of tcp and udp, where it goes")
    explain.add_argument("--type", type=int, metavar="N", help="of icmp; without it, an echo request")
    explain.add_argument("--code", type=int, default=0, metavar="N", help="of icmp")
    explain.add_argument("--nic", type=int, default=0, metavar="N", help="of the instance, the first being 0")
    explain.set_defaults(run=explain_traffic)


def create_network(args: argparse.Namespace) -> int:
    named = ("name", "cidr", "gateway", "bridge", "segment", "cidr6", "dns")
    body = {"project_id": args.project, **{name: getattr(args, name) for name in named}}
    made = _api(args).post("/networks", {name: value for name, value in body.items() if value is not None})
    _show([made], made, args)
    return Exit.OK


def list_networks(args: argparse.Namespace) -> int:
    found = _api(args).get("/networks")
    _show(found["networks"], found, args)
    return Exit.OK


def show_network(args: argparse.Namespace) -> int:
    network = _api(args).get(f"/networks/{quote(args.network, safe='')}")
    if args.json:
        output.print_json(network)
    else:
        output.print_fields((name, _words(value)) for name, value in network.items())
    return Exit.OK


def delete_networks(args: argparse.Namespace) -> int:
    return delete_each(_api(args), "/networks", args.networks)


def _show(networks: list[Json], answer: object, args: argparse.Namespace) -> None:
    rows = [
        {**each, "project": each["project_id"] or "everybody", "segment": each["segment"] or "-"} for each in networks
    ]
    show_rows(rows, answer, ("id", "name", "project", "cidr", "gateway", "bridge", "segment"), args)


def _words(value: object) -> str:
    return "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _api(args: argparse.Namespace) -> Api:
    return Api(find_endpoint(args.state))


def explain_traffic(args: argparse.Namespace) -> int:
    """Exits with 1 when the packet would be dropped."""
    api = _api(args)
    asked = {
        "direction": "egress" if args.to else "ingress",
        "address": args.to or args.source,
        "protocol": args.proto,
        "port": None if args.port is None else str(args.port),
        "icmp_type": None if args.type is None else str(args.type),
        "icmp_code": args.code,
        "nic": args.nic,
    }
    decision = api.get(f"/instances/{find_id(api, args.instance)}/explain", asked)
    if args.json:
        output.print_json(decision)
    else:
        print(output.harmless(f"{'passes' if decision['passes'] else 'dropped'}: {decision['rule']}"))
    return Exit.OK if decision["passes"] else Exit.REFUSED
