"""Completion for shells: small static scripts that ask `launcher _complete` for the words that fit.

The candidates come from the parser itself and, where a thing is named, from the server.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from launcher.cli.client import Api, Exit, Failure, find_endpoint

SCRIPTS = {
    "bash": """\
_launcher() {
    local IFS=$'\\n'
    COMPREPLY=($(launcher _complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _launcher launcher
""",
    "zsh": """\
#compdef launcher
_launcher() {
    local -a found
    found=("${(@f)$(launcher _complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -a found
}
compdef _launcher launcher
""",
    "fish": """\
function __launcher
    set -l words (commandline -opc) (commandline -ct)
    launcher _complete -- $words[2..] 2>/dev/null
end
complete -c launcher -f -a '(__launcher)'
""",
}

_PATIENCE = 2.0
"""Seconds a completion may keep a shell waiting."""

_SOURCES: dict[str, tuple[str, str]] = {
    "instance": ("/instances", "instances"),
    "instances": ("/instances", "instances"),
    "image": ("/images", "images"),
    "flavor": ("/flavors", "flavors"),
    "key": ("/keypairs", "keypairs"),
    "keypairs": ("/keypairs", "keypairs"),
    "network": ("/networks", "networks"),
    "networks": ("/networks", "networks"),
    "group": ("/security-groups", "security_groups"),
    "groups": ("/security-groups", "security_groups"),
    "floating_ip": ("/floating-ips", "floating_ips"),
    "floating_ips": ("/floating-ips", "floating_ips"),
    "from_group": ("/security-groups", "security_groups"),
    "to_group": ("/security-groups", "security_groups"),
}
"""By the argument's name: the path that lists what may stand there, and the list's name in the answer."""


def add_completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=sorted(SCRIPTS), help='for bash: eval "$(launcher completion bash)"')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    print(SCRIPTS[args.shell], end="")
    return Exit.OK


def complete(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Print what the last word may become; nothing, silently, when the server cannot be asked."""

    def names(argument: str) -> list[str]:
        path, noun = _SOURCES[argument]
        found = Api(find_endpoint(args.state)).get(path, timeout=_PATIENCE)[noun]
        return [word for each in found for word in _names(each, *args.rest[-1:])]

    try:
        for word in candidates(parser, args.rest or [""], names):
            print(word)
    except Failure:
        return Exit.OK
    return Exit.OK


def _names(noun: dict[str, Any], begun: str = "") -> Sequence[str]:
    """A thing's name, or the address that it is called by; its id, too, for those who have begun to type one."""
    name, known = noun.get("name") or noun["address"], str(noun.get("id", ""))
    return (name, known) if begun and known.startswith(begun) else (name,)


def candidates(
    parser: argparse.ArgumentParser, words: Sequence[str], names: Callable[[str], Sequence[str]]
) -> list[str]:
    """What fits in place of the last word; `names` lists the live things an argument may name."""
    *before, begun = words
    for word in before:
        parser = _commands(parser).get(word, parser)
    return sorted({word for word in _fitting(parser, before, begun, names) if word.startswith(begun)})


def _fitting(
    parser: argparse.ArgumentParser, before: Sequence[str], begun: str, names: Callable[[str], Sequence[str]]
) -> Sequence[str]:
    option = parser._option_string_actions.get(before[-1]) if before else None
    if option and option.nargs != 0:
        return _values(option, names)
    if begun.startswith("-"):
        return [word for word in parser._option_string_actions if word.startswith("--")]
    commands = _commands(parser)
    if commands:
        return [word for word in commands if not word.startswith("_")]
    return [word for action in parser._get_positional_actions() for word in _values(action, names)]


def _values(action: argparse.Action, names: Callable[[str], Sequence[str]]) -> Sequence[str]:
    if action.choices:
        return [str(choice) for choice in action.choices]
    return names(action.dest) if action.dest in _SOURCES else ()


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}
