"""The commands on security groups and their rules."""

from __future__ import annotations

import argparse
import re
from urllib.parse import quote

from launcher.cli import output
from launcher.cli.client import Api, Exit, Failure, Json, find_endpoint, find_id
from launcher.cli.resources import delete_each, show_rows

_GROUPS = "/security-groups"
_ANYWHERE = "0.0.0.0/0"
_RANGE = re.compile(r"([0-9.]*\.[0-9.]*|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)(/.*)?")
_RULE_SHAPE = "PROTOCOL[:PORT[-PORT]][@CIDR|@GROUP]"
_RULE_HELP = f"{_RULE_SHAPE}, as tcp:22, udp:5000-5010@10.0.0.0/8, tcp:5432@web, icmp; may be repeated"


def add_group(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    create = verbs.add_parser("create", help="a named set of rules; what no rule lets in is dropped")
    create.add_argument("name")
    create.add_argument("--description", default="")
    create.add_argument("--rule", action="append", type=parse_rule, default=[], metavar="RULE", help=_RULE_HELP)
    create.set_defaults(run=create_group)
    verbs.add_parser("list", help="those of the project").set_defaults(run=list_groups)
    show = verbs.add_parser("show", help="one group, with the ids of its rules")
    show.add_argument("group", help="name or id")
    show.set_defaults(run=show_group)
    delete = verbs.add_parser("delete", help="those that no instance is in and no rule names")
    delete.add_argument("groups", nargs="+", metavar="NAME")
    delete.set_defaults(run=delete_groups)
    allow = verbs.add_parser("allow", help="add a rule; running instances have it at once")
    _add_rule_words(allow)
    allow.set_defaults(run=allow_rule)
    revoke = verbs.add_parser("revoke", help="remove a rule; running instances lose it at once")
    _add_rule_words(revoke, by_id=True)
    revoke.set_defaults(run=revoke_rule)
    put = verbs.add_parser("set", help="put an instance, running or not, into these groups and no others")
    put.add_argument("instance", help="id, the beginning of one, or name")
    put.add_argument("groups", nargs="*", metavar="GROUP", help="none: default")
    put.set_defaults(run=set_groups)


def _add_rule_words(parser: argparse.ArgumentParser, *, by_id: bool = False) -> None:
    parser.add_argument("group", help="name or id")
    parser.add_argument("protocol", nargs="?" if by_id else None, help="tcp, udp, icmp, icmpv6 or any")
    parser.add_argument("ports", nargs="?", default="", help="22 or 5000-5010; for icmp type or type/code; none: all")
    ends = parser.add_mutually_exclusive_group()
    ends.add_argument("--from", dest="source", metavar="CIDR", help=f"let this range in (default {_ANYWHERE})")
    ends.add_argument("--from-group", metavar="GROUP", help="let the members of a group in")
    ends.add_argument("--to", metavar="CIDR", help="let traffic out to this range")
    ends.add_argument("--to-group", metavar="GROUP", help="let traffic out to the members of a group")
    parser.add_argument("--egress", action="store_true", help=f"let traffic out (default to {_ANYWHERE})")
    if by_id:
        parser.add_argument("--id", type=int, dest="rule_id", metavar="RULE", help="instead of the rule's words")


def parse_rule(word: str) -> Json:
    """A rule as the API wants it. Only the shape is checked here; the server judges the values."""
    what, _, end = word.partition("@")
    protocol, _, ports = what.partition(":")
    try:
        rule: Json = {"protocol": protocol, **_ports(ports)}
    except ValueError:
        rule = {}
    if not protocol or not rule:
        raise argparse.ArgumentTypeError(f"{word!r} is not {_RULE_SHAPE}")
    return {**rule, **_end(end)} if end else rule


def _ports(word: str) -> Json:
    """22, 5000-5010 or, of icmp, 8/0. Raises ValueError."""
    if not word:
        return {}
    first, mark, last = word.partition("/" if "/" in word else "-")
    if not all(port.isascii() and port.isdecimal() for port in (first, last if mark else first)):
        raise ValueError(word)
    ports: Json = {"from_port": int(first)}
    return {**ports, "to_port": int(last)} if mark else ports


def _end(word: str) -> Json:
    """What reads as addresses is a range, anything else a group."""
    return {"cidr" if _RANGE.fullmatch(word) else "group": word}


def create_group(args: argparse.Namespace) -> int:
    body = {"name": args.name, "description": args.description, "rules": args.rule}
    group = _api(args).post(_GROUPS, body)
    _show_groups([group], group, args)
    return Exit.OK


def list_groups(args: argparse.Namespace) -> int:
    found = _api(args).get(_GROUPS)
    _show_groups(found["security_groups"], found, args)
    return Exit.OK


def show_group(args: argparse.Namespace) -> int:
    group = _api(args).get(_path(args.group))
    if args.json:
        output.print_json(group)
        return Exit.OK
    output.print_fields((name, str(group[name])) for name in ("name", "id", "description"))
    _show_rules(group["rules"], group, args)
    return Exit.OK


def delete_groups(args: argparse.Namespace) -> int:
    return delete_each(_api(args), _GROUPS, args.groups)


def allow_rule(args: argparse.Namespace) -> int:
    added = _api(args).post(f"{_path(args.group)}/rules", {"rules": [_rule(args)]})
    _show_rules(added["rules"], added, args)
    return Exit.OK


def revoke_rule(args: argparse.Namespace) -> int:
    if (args.rule_id is None) == (args.protocol is None):
        raise Failure("name a rule by its words or by --id", exit_code=Exit.USAGE)
    if args.rule_id is not None:
        _api(args).delete(f"{_path(args.group)}/rules/{args.rule_id}")
    else:
        _api(args).delete(f"{_path(args.group)}/rules", {"rules": [_rule(args)]})
    return Exit.OK


def set_groups(args: argparse.Namespace) -> int:
    api = _api(args)
    instance = api.put(f"/instances/{find_id(api, args.instance)}/security-groups", {"security_groups": args.groups})
    if args.json:
        output.print_json(instance)
    else:
        print(output.harmless(f"{instance['name']}: {', '.join(instance['security_groups'])}"))
    return Exit.OK


def _api(args: argparse.Namespace) -> Api:
    return Api(find_endpoint(args.state))


def _path(group: str) -> str:
    return f"{_GROUPS}/{quote(group, safe='')}"


def _rule(args: argparse.Namespace) -> Json:
    """The rule that the words name."""
    out = bool(args.egress or args.to or args.to_group)
    if args.egress and (args.source or args.from_group):
        raise Failure("--egress goes with --to and --to-group", exit_code=Exit.USAGE)
    try:
        ports = _ports(args.ports)
    except ValueError:
        raise Failure(f"{args.ports!r} is no port, range or icmp type", exit_code=Exit.USAGE) from None
    ends = {"cidr": args.source or args.to, "group": args.from_group or args.to_group}
    given = {name: value for name, value in ends.items() if value}
    return {"direction": "egress" if out else "ingress", "protocol": args.protocol, **ports, **given}


def _show_groups(groups: list[Json], answer: object, args: argparse.Namespace) -> None:
    rows = [{**group, "rules": ", ".join(map(rule_words, group["rules"])) or "none"} for group in groups]
    show_rows(rows, answer, ("name", "rules", "description"), args)


def _show_rules(rules: list[Json], answer: object, args: argparse.Namespace) -> None:
    rows = [
        {**rule, "ports": _port_words(rule) or "all", "other end": rule["cidr"] or f"group {rule['group']}"}
        for rule in rules
    ]
    if rows or args.json:
        show_rows(rows, answer, ("id", "direction", "protocol", "ports", "other end"), args)


def rule_words(rule: Json) -> str:
    """A rule in the words of `--rule`; one that lets traffic out says so."""
    ports, end = _port_words(rule), rule["cidr"] or rule["group"]
    out = "out " if rule["direction"] == "egress" else ""
    return f"{out}{rule['protocol']}{':' if ports else ''}{ports}" + (f"@{end}" if end != _ANYWHERE else "")


def _port_words(rule: Json) -> str:
    first, last = rule["from_port"], rule["to_port"]
    if first is None:
        return ""
    if rule["protocol"] == "icmp":
        return f"{first}" if last is None else f"{first}/{last}"
    return f"{first}" if last in (None, first) else f"{first}-{last}"
