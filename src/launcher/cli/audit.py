"""The commands `audit` and `gc`: what the hosts have that no instance owns, and what instances lack."""

from __future__ import annotations

import argparse
import sys

from launcher.cli import output
from launcher.cli.client import Api, Exit, Json, find_endpoint


def add_audit(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=audit)


def audit(args: argparse.Namespace) -> int:
    """Exit code 1 when anything is found, and when a host did not answer: then nothing is known of it."""
    found = Api(find_endpoint(args.state)).get("/audit")
    if args.json:
        output.print_json(found)
    else:
        _show(found["findings"])
        for name in found["silent"]:
            print(f"{name} gives no answer: nothing is known of it", file=sys.stderr)
        counts = {name: found[name] for name in ("instances", "artefacts")} | {"differences": len(found["findings"])}
        print(", ".join(f"{name}: {count}" for name, count in counts.items()))
    return Exit.REFUSED if found["findings"] or found["silent"] else Exit.OK


def add_gc(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.set_defaults(run=gc)


def gc(args: argparse.Namespace) -> int:
    """Exit code 1 when something could not be removed."""
    found = Api(find_endpoint(args.state)).post("/gc", {"dry_run": args.dry_run})
    if args.json:
        output.print_json(found)
    else:
        _show(found["removed"])
        print(f"{len(found['removed']) or 'nothing'} {'to remove' if found['dry_run'] else 'removed'}")
        for each in found["failed"]:
            print(output.harmless(f"{each['kind']} {each['name']} is still there: {each['reason']}"), file=sys.stderr)
    return Exit.REFUSED if found["failed"] else Exit.OK


def _show(findings: list[Json]) -> None:
    if findings:
        header = ("TROUBLE", "KIND", "NAME", "HOST", "INSTANCE", "WHY")
        output.print_table(header, map(_row, findings))


def _row(finding: Json) -> tuple[str, ...]:
    return (
        finding["trouble"],
        finding["kind"],
        finding["name"],
        finding["host"] or "-",
        (finding["instance_id"] or "-")[:8],
        finding["reason"],
    )
