"""A table of iptables as data: what is in it, and the lines for iptables-restore that change it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Chains = dict[str, list[str]]
"""A table: each chain's rules in order, without the leading `-A chain`."""


def play(chains: Chains, text: str) -> Chains:
    """What `chains` becomes by `text`, which is a transaction for iptables-restore or the output of iptables-save."""
    after = {chain: list(rules) for chain, rules in chains.items()}
    for line in text.splitlines():
        verb, chain, rule = ([*line.split(maxsplit=2), "", "", ""])[:3]
        rule = " ".join(rule.split())
        if verb.startswith(":"):
            after[verb[1:]] = []
        elif verb == "-A":
            after.setdefault(chain, []).append(rule)
        elif verb == "-I":
            after.setdefault(chain, []).insert(0, rule)
        elif verb == "-D":
            after[chain].remove(rule)
        elif verb == "-X":
            del after[chain]
    return after


def transaction(table: str, lines: Iterable[str]) -> str:
    return "\n".join((f"*{table}", *lines, "COMMIT\n"))


def whole(chain: str, rules: Iterable[str]) -> list[str]:
    """The lines that make these the chain's only rules."""
    return [f":{chain} - [0:0]", *(f"-A {chain} {rule}" for rule in rules)]


def on_top(found: Chains, chain: str, rule: str) -> list[str]:
    """The lines that make `rule` the chain's first; none when it is."""
    rules = found.get(chain, [])
    if rules[:1] == [rule]:
        return []
    return [*(f"-D {chain} {old}" for old in rules if old == rule), f"-I {chain} {rule}"]


def replace(found: Chains, chain: str, words: set[str], rules: Sequence[str], *, check: bool = True) -> list[str]:
    """The lines that leave `rules` as the chain's only ones that name any of `words` or match what one of them does."""
    matches = {rule.rpartition(" ")[0] for rule in rules}
    old = [rule for rule in found.get(chain, ()) if words & set(rule.split()) or rule.rpartition(" ")[0] in matches]
    if old == list(rules):
        return [f"-C {chain} {rule}" for rule in rules] if check else []
    return [*(f"-D {chain} {each}" for each in old), *(f"-A {chain} {rule}" for rule in rules)]


def naming(found: Chains, chain: str, words: set[str]) -> list[str]:
    """The chain's rules with one of `words` as a whole word: nova-inst-1 is no part of nova-inst-10."""
    return [rule for rule in found.get(chain, ()) if words & set(rule.split())]
