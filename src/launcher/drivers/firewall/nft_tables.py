"""Our tables of nftables as data: what is in them, and the commands that change it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Place = tuple[str, str]
"""A family, and the name of a chain or a set in our table of that family."""

Rules = tuple[str, ...]


@dataclass(frozen=True)
class Element:
    """What stands in a set or, with a verdict, in a map. `tap` is the NIC that it is there for, "" for none."""

    verdict: str = ""
    tap: str = ""


Elements = dict[tuple[Place, str], Element]


@dataclass(frozen=True)
class Base:
    """What is the same for all instances."""

    families: tuple[str, ...]
    sets: Mapping[Place, str]
    chains: Mapping[Place, Rules]
    hooks: Mapping[Place, str]


class Tables:
    """What is in our tables. Each change is remembered as a command; `take_commands` gives them as one transaction.

    Of rules that were read only the references are known, after an ellipsis; they never equal what is wanted. When a
    transaction fails, the object is wrong and has to be read anew.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.chains: dict[Place, Rules] = {}
        self.elements: dict[Place, dict[str, Element]] = {}
        self._uses: Counter[str] = Counter()  # by how many rules and elements a chain or, after an @, a set is named
        self._suspects: dict[str, None] = {}  # what may have lost the last of them
        self._given: dict[Place, tuple[object, ...]] = {}
        self._owned: dict[str, dict[tuple[Place, str], None]] = {}
        self._commands: list[str] = []

    @classmethod
    def read(cls, name: str, entries: Iterable[Mapping[str, Any]]) -> Tables:
        """From `nft -j list table` of the tables with this name."""
        found = cls(name)
        for entry in entries:
            ((kind, content),) = entry.items()
            if kind in ("set", "map"):
                place = (content["family"], content["name"])
                found.elements[place] = {}
                for word, element in map(_element, content.get("elem", ())):
                    found._keep(place, word, element)
            elif kind == "chain":
                found.chains.setdefault((content["family"], content["name"]), ())
            elif kind == "rule":
                place = (content["family"], content["chain"])
                rule = " ".join(["…", *_references(content["expr"])])
                found.chains[place] = (*found.chains.get(place, ()), rule)
                found._uses.update(rule.split())
        found._suspects = dict.fromkeys([name for _, name in found.chains] + [f"@{name}" for _, name in found.elements])
        return found

    def take_commands(self) -> str:
        commands, self._commands = self._commands, []
        return "".join(f"{command}\n" for command in commands)

    def put_base(self, base: Base) -> None:
        """Whatever was found."""
        self._commands += [f"add table {family} {self.name}" for family in base.families]
        for place, kind in base.sets.items():
            self.put_set(place, kind)
        for place in [place for place in base.chains if place not in self.chains]:
            self.put_chain(place, (), base.hooks.get(place, ""))
        for place, rules in base.chains.items():
            self.put_chain(place, rules)

    def ensure_base(self, base: Base) -> None:
        """Nothing where all is there, to the number of each chain's rules."""
        if not self.has_base(base):
            self.put_base(base)

    def has_base(self, base: Base) -> bool:
        whole = all(len(self.chains.get(place, ())) == len(rules) for place, rules in base.chains.items())
        return whole and base.sets.keys() <= self.elements.keys()

    def put_set(self, place: Place, kind: str) -> None:
        """`kind` is its declaration: `set { … }` or `map { … }`."""
        if place not in self.elements:
            self.elements[place] = {}
            word, _, content = kind.partition(" ")
            self._commands.append(f"add {word} {self._at(place)} {content}")

    def put_chain(self, place: Place, rules: Rules, hook: str = "") -> None:
        found = self.chains.get(place)
        if found == rules:
            return
        if found is None:
            self._commands.append(f"add chain {self._at(place)} {hook}".rstrip())
        elif found:
            self._commands.append(f"flush chain {self._at(place)}")
            self._let_go(word for rule in found for word in rule.split())
        self._commands += [f"add rule {self._at(place)} {rule}" for rule in rules]
        self._uses.update(word for rule in rules for word in rule.split())
        self.chains[place] = rules

    def put_element(self, place: Place, name: str, element: Element) -> None:
        found = self.elements[place].get(name)
        if found == element:
            return
        if found is not None:
            self.drop_element(place, name)
        self._keep(place, name, element)
        comment = f' comment "{element.tap}"' if element.tap else ""
        verdict = f" : {element.verdict}" if element.verdict else ""
        self._commands.append(f"add element {self._at(place)} {{ {name}{comment}{verdict} }}")

    def drop_element(self, place: Place, name: str) -> None:
        element = self.elements[place].pop(name)
        self._let_go([_target(element)])
        if element.tap:
            owned = self._owned[_first(element.tap)]
            del owned[place, name]
            if not owned:
                del self._owned[_first(element.tap)]
        self._commands.append(f"delete element {self._at(place)} {{ {name} }}")

    def drop_chain(self, place: Place) -> None:
        """Whatever leads to it must have gone before."""
        self._let_go(word for rule in self.chains.pop(place) for word in rule.split())
        self._commands.append(f"delete chain {self._at(place)}")

    def drop_set(self, place: Place) -> None:
        """Whatever looks it up must have gone before."""
        del self.elements[place]
        self._given.pop(place, None)
        self._commands.append(f"delete set {self._at(place)}")

    def drop_unused(self, family: str, prefixes: tuple[str, ...]) -> None:
        """The chains and, with an @, the sets so named that nothing names any more; what that leaves unused, too."""
        while self._suspects:
            word, _ = self._suspects.popitem()
            place = (family, word.removeprefix("@"))
            if self._uses[word] or not word.startswith(prefixes):
                continue
            if word.startswith("@") and place in self.elements:
                self.drop_set(place)
            elif place in self.chains:
                self.drop_chain(place)

    def put_all(self, place: Place, wanted: tuple[object, ...]) -> None:
        """Make these the set's elements; nothing to compare where they are what they were the last time."""
        if self._given.get(place) == wanted:
            return
        names = set(map(str, wanted))
        for name in self.elements[place].keys() - names:
            self.drop_element(place, name)
        for name in sorted(names):
            self.put_element(place, name, Element())
        self._given[place] = wanted

    def put_owned(self, tap: str, wanted: Elements) -> None:
        """Make these the elements of the instance whose first NIC is `tap`."""
        for place, name in self.owned(tap):
            if (place, name) not in wanted:
                self.drop_element(place, name)
        for (place, name), element in wanted.items():
            self.put_element(place, name, element)

    def owned(self, tap: str) -> list[tuple[Place, str]]:
        """Where there are elements for the instance whose first NIC is `tap`."""
        return list(self._owned.get(tap, ()))

    def owners(self) -> list[str]:
        """The first NICs of all instances that there are elements for."""
        return list(self._owned)

    def _at(self, place: Place) -> str:
        family, name = place
        return f"{family} {self.name} {name}"

    def _keep(self, place: Place, name: str, element: Element) -> None:
        self.elements[place][name] = element
        self._uses[_target(element)] += 1
        if element.tap:
            self._owned.setdefault(_first(element.tap), {})[place, name] = None

    def _let_go(self, words: Iterable[str]) -> None:
        words = list(words)
        self._uses.subtract(words)
        self._suspects.update(dict.fromkeys(words))


def _target(element: Element) -> str:
    """The chain that it leads to; "" where it is an end."""
    return element.verdict.partition(" ")[2]


def _first(tap: str) -> str:
    return tap.partition("-")[0]


def _references(expression: Any) -> Iterator[str]:
    """The chains and sets that a rule names."""
    if isinstance(expression, str) and expression.startswith("@"):
        yield expression
    elif isinstance(expression, Mapping):
        for word, content in expression.items():
            yield from [word, content["target"]] if word in ("jump", "goto") else _references(content)
    elif isinstance(expression, list):
        for part in expression:
            yield from _references(part)


def key(*words: object) -> str:
    """An element's key; the first word is a device."""
    device, *others = words
    return " . ".join([f'"{device}"', *map(str, others)])


def _element(found: Any) -> tuple[str, Element]:
    """Of a map: [key, verdict]; with a comment the key is {"elem": {"val": …, "comment": …}}."""
    value, verdict, tap = found, "", ""
    if isinstance(value, list):
        value, words = value
        verdict = _verdict(words)
    if isinstance(value, dict) and "elem" in value:
        value, tap = value["elem"]["val"], value["elem"].get("comment", "")
    parts = value["concat"] if isinstance(value, dict) else [value]
    return (key(*parts) if len(parts) > 1 or not _is_address(parts[0]) else str(parts[0])), Element(verdict, tap)


def _verdict(words: Any) -> str:
    if not isinstance(words, dict):
        return str(words)
    ((kind, content),) = words.items()
    return f"{kind} {content['target']}" if content else str(kind)


def _is_address(part: Any) -> bool:
    return "." in str(part) or ":" in str(part)
