"""The commands on what a launch needs, beside images: key pairs, flavors, hosts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from urllib.parse import quote

from launcher.cli import output
from launcher.cli.client import Api, Exit, Failure, Json, find_endpoint
from launcher.cli.login import key_path, write_key


def add_keypair(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    create = verbs.add_parser("create", help="make a pair; the private key goes to stdout or --file, once")
    create.add_argument("name")
    create.add_argument("--file", type=Path, help="write the private key here, mode 0600")
    create.set_defaults(run=create_keypair)
    imported = verbs.add_parser("import", help="make a public key known")
    imported.add_argument("name")
    imported.add_argument("file", help="public key file, or - for stdin")
    imported.set_defaults(run=import_keypair)
    verbs.add_parser("list", help="those of the project").set_defaults(run=list_keypairs)
    delete = verbs.add_parser("delete", help="forget public keys; running guests keep theirs")
    delete.add_argument("keypairs", nargs="+", metavar="NAME")
    delete.set_defaults(run=delete_keypairs)


def create_keypair(args: argparse.Namespace) -> int:
    remembered = key_path(args.name)
    pair = _api(args).post("/keypairs", {"name": args.name})
    write_key(remembered, pair["private_key"])
    if args.file:
        write_key(args.file, pair["private_key"])
    if args.json:
        output.print_json(pair)
    elif not args.file:
        print(pair["private_key"].strip())
    print(f"{pair['name']} {pair['fingerprint']}; `launcher ssh` finds it in {remembered}", file=sys.stderr)
    return Exit.OK


def import_keypair(args: argparse.Namespace) -> int:
    try:
        public_key = sys.stdin.read() if args.file == "-" else Path(args.file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{args.file}: {error}", exit_code=Exit.USAGE) from None
    pair = _api(args).post("/keypairs", {"name": args.name, "public_key": public_key.strip()})
    show_rows([pair], pair, ("name", "type", "fingerprint"), args)
    return Exit.OK


def list_keypairs(args: argparse.Namespace) -> int:
    found = _api(args).get("/keypairs")
    show_rows(found["keypairs"], found, ("name", "type", "fingerprint"), args)
    return Exit.OK


def delete_keypairs(args: argparse.Namespace) -> int:
    return delete_each(_api(args), "/keypairs", args.keypairs)


def add_flavor(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verbs.add_parser("list", help="the sizes").set_defaults(run=list_flavors)


def list_flavors(args: argparse.Namespace) -> int:
    found = _api(args).get("/flavors")
    show_rows(found["flavors"], found, ("name", "vcpus", "memory_mb", "root_gb"), args)
    return Exit.OK


def add_host(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    verbs.add_parser("list", help="the compute hosts and what they have left").set_defaults(run=list_hosts)


def list_hosts(args: argparse.Namespace) -> int:
    found = _api(args).get("/hosts")
    rows = [
        {
            **host,
            "zone": host["availability_zone"],
            "vcpus": f"{host['vcpus_used']}/{host['vcpus']}",
            "memory": f"{host['memory_used_mb']}/{host['memory_mb']} MiB",
            "disk free": f"{host['disk_free_mb']} MiB",
            "virt": host["virt_type"],
            "seen": f"{output.age(host['seen_ms'])} ago",
        }
        for host in found["hosts"]
    ]
    show_rows(rows, found, ("name", "zone", "instances", "vcpus", "memory", "disk free", "virt", "seen"), args)
    return Exit.OK


def _api(args: argparse.Namespace) -> Api:
    return Api(find_endpoint(args.state))


def show_rows(rows: list[Json], answer: object, columns: tuple[str, ...], args: argparse.Namespace) -> None:
    """The answer itself as JSON, or these columns of the rows."""
    if args.json:
        output.print_json(answer)
    else:
        output.print_table(
            [name.upper().replace("_", " ") for name in columns], [[str(row[name]) for name in columns] for row in rows]
        )


def delete_each(api: Api, path: str, names: list[str], part: str = "") -> int:
    """Every one is tried; the exit code is the first failure's."""
    worst = Exit.OK
    for name in names:
        try:
            api.delete(f"{path}/{quote(name, safe='')}{part}")
        except Failure as failure:
            output.print_failure(failure)
            worst = worst or failure.exit_code
    return worst
