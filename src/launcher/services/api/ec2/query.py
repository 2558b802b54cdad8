"""Parameters of the Query protocol as the model of their operation, each field by its own type.

`Filter.1.Value.2=x` is a path: names lead into models, numbers into lists. Lists are in the order of their numbers, as
numbers; a list of one may come without a number, and one thing as a list, as some clients send them. Text stays text,
whatever it looks like.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import unquote_plus

from pydantic import ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_pascal
from pydantic.fields import FieldInfo

from launcher.models import Model
from launcher.services.api.ec2.refusals import Refusal, bad_value, missing

MOST_PARAMETERS = 5000
NUMBER = re.compile(r"[0-9]{1,6}")
INTEGER = re.compile(r"-?[0-9]{1,18}")
UNWRITABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot say, and so no name or text here can have."""
BOOLEANS = {"true": True, "false": False, "1": True, "0": False}

Tree = dict[str, "Tree | str"]


@dataclass(frozen=True)
class Ignored:
    """A parameter that is read and changes nothing; the page of the operations says why."""

    why: str


@dataclass(frozen=True)
class Refused:
    """A parameter that a client may not send; the page of the operations says why. `harmless` is no wish."""

    why: str
    harmless: str | None = None


class Parameters(Model):
    """A part of a request. A field is called in the request as it is here, in Pascal case, unless it has an alias."""

    model_config = ConfigDict(alias_generator=to_pascal, validate_by_name=True)


class Request(Parameters):
    """What every operation understands."""

    dry_run: Annotated[bool, Field(description="whether it would be allowed, and no more")] = False


R = TypeVar("R", bound=Request)


def pairs(query: str) -> list[tuple[str, str]]:
    """The parameters of a query or a form, each of them once."""
    parts = [part.partition("=") for part in query.split("&") if part]
    if len(parts) > MOST_PARAMETERS:
        raise Refusal("InvalidRequest", f"A request has at most {MOST_PARAMETERS} parameters")
    try:
        found = [
            (unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")) for name, _, value in parts
        ]
    except UnicodeDecodeError:
        raise Refusal("MalformedQueryString", "The parameters are no UTF-8") from None
    for name, value in found:
        if UNWRITABLE.search(name + value):
            raise Refusal("InvalidCharacter", "A parameter has a character that XML cannot write")
    if len({name for name, _ in found}) < len(found):
        raise Refusal("InvalidParameterCombination", "A parameter is given twice")
    return found


def _plain(quoted: str) -> str:
    return unquote_plus(quoted, errors="strict")


def parse(kind: type[R], parameters: Iterable[tuple[str, str]]) -> R:
    """Raises Refusal for what is unknown, missing, refused, or no value of its type."""
    values = _model(kind, _tree(parameters), "")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(_written(part) for part in first["loc"])
        if first["type"] == "missing":
            raise missing(where) from None
        if first["type"] == "value_error":
            raise Refusal("InvalidParameterCombination", first["msg"].removeprefix("Value error, ")) from None
        raise bad_value(where, first["input"], first["msg"] + ".") from None


@cache
def fields(kind: type[Parameters]) -> Mapping[str, FieldInfo]:
    """By their names in a request."""
    return {field.alias or name: field for name, field in kind.model_fields.items()}


def _tree(parameters: Iterable[tuple[str, str]]) -> Tree:
    root: Tree = {}
    for name, value in parameters:
        *path, last = name.split(".")
        node = root
        for part in path:
            below = node.setdefault(part, {})
            if isinstance(below, str):
                raise Refusal("InvalidParameterCombination", f"{name} goes on below a value")
            node = below
        if last in node:
            raise Refusal("InvalidParameterCombination", f"{name} has a value, and more below it")
        node[last] = value
    return root


def _model(kind: type[Parameters], tree: Tree, path: str) -> dict[str, Any]:
    known, values = fields(kind), {}
    for name, found in tree.items():
        where = f"{path}{name}"
        if name not in known:
            raise Refusal("UnknownParameter", f"The parameter {where} is not recognized")
        for mark in known[name].metadata:
            if isinstance(mark, Refused) and (mark.harmless is None or found != mark.harmless):
                raise Refusal("UnsupportedOperation", f"The parameter {where} is not supported: {mark.why}")
        values[name] = _value(known[name].annotation, found, where)
    return values


def _value(kind: Any, found: Tree | str, where: str) -> Any:
    kind = bare(kind)
    if get_origin(kind) is tuple:
        return _list(get_args(kind)[0], found, where)
    if isinstance(kind, type) and issubclass(kind, Parameters):
        if isinstance(found, str):
            raise bad_value(where, found, "It has parts.")
        return _model(kind, found, f"{where}.")
    if not isinstance(found, str) and list(found) == ["1"]:
        found = found["1"]
    if not isinstance(found, str):
        raise Refusal("UnknownParameter", f"The parameter {where}.{next(iter(found))} is not recognized")
    return _scalar(kind, found, where)


def _list(kind: Any, found: Tree | str, where: str) -> list[Any]:
    if isinstance(found, str) or not all(NUMBER.fullmatch(key) for key in found):
        return [_value(kind, found, where)]
    numbered = sorted(found, key=int)
    if len(set(map(int, numbered))) < len(numbered):
        raise Refusal("InvalidParameterCombination", f"{where} has two of one number")
    return [_value(kind, found[key], f"{where}.{key}") for key in numbered]


def _scalar(kind: Any, text: str, where: str) -> Any:
    if kind is bool:
        if text.lower() not in BOOLEANS:
            raise bad_value(where, text, "It is true or false.")
        return BOOLEANS[text.lower()]
    if kind is int:
        if not INTEGER.fullmatch(text):
            raise bad_value(where, text, "It is a whole number.")
        return int(text)
    return text


def bare(kind: Any) -> Any:
    """The type without its marks and without None."""
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    return str if get_origin(kind) is Literal else kind


def _written(part: int | str) -> str:
    return str(part + 1) if isinstance(part, int) else part
