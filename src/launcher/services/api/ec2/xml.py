"""Answers as XML, from their shapes: a field is an element, a tuple has an `item` for each of its members.

An answer has the namespace of the version that was asked for, and no element that this version did not have: old
clients take a nested set that they do not know for the one around it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from types import UnionType
from typing import Annotated, Any, NamedTuple, NewType, Union, get_args, get_origin, get_type_hints
from xml.sax.saxutils import escape

from pydantic.alias_generators import to_camel

from launcher.services.api.ec2.query import UNWRITABLE
from launcher.services.api.ec2.refusals import Refusal

NAMESPACE = "http://ec2.amazonaws.com/doc/{}/"
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
SPECIAL = re.compile(f"[&<>]|{UNWRITABLE.pattern}")

Moment = NewType("Moment", str)
"""A time, as EC2 writes it."""


class Since(NamedTuple):
    """The first version that has the element."""

    version: str


UNTOLD = Since("9999-12-31")
"""A field that is not an element of its shape: filters look at it."""


class Until(NamedTuple):
    """The first version that does not have it any more."""

    version: str


class Named(NamedTuple):
    """What the element is called, where that is not its field's name in camel case."""

    name: str


class Done(NamedTuple):
    """The answer of an operation that has nothing to tell."""

    return_: bool = True


Writer = Callable[[Any, list[str]], None]


def answer(operation: str, version: str, request_id: str, shape: Any) -> bytes:
    kind: Any = type(shape)
    out = [DECLARATION, f'<{operation}Response xmlns="{NAMESPACE.format(version)}"><requestId>{request_id}</requestId>']
    writer(kind, version)(shape, out)
    out.append(f"</{operation}Response>")
    return "".join(out).encode()


def refused(refusal: Refusal, request_id: str) -> bytes:
    """Without a namespace, as EC2 sends it."""
    return (
        f"{DECLARATION}<Response><Errors><Error><Code>{refusal.code}</Code><Message>{text(refusal.message)}</Message>"
        f"</Error></Errors><RequestID>{request_id}</RequestID></Response>"
    ).encode()


def text(value: str) -> str:
    """What XML cannot write is replaced."""
    return escape(UNWRITABLE.sub("\ufffd", value)) if SPECIAL.search(value) else value


@cache
def writer(shape: Any, version: str) -> Writer:
    """What writes such a shape's elements for this version."""
    parts = [_field(name, kind, version) for name, kind in hints(shape).items()]

    def write(values: Any, out: list[str]) -> None:
        for part, value in zip(parts, values, strict=True):
            if value is not None and part is not None:
                part(value, out)

    return write


@cache
def hints(shape: Any) -> dict[str, Any]:
    """The fields of a shape with their types and marks."""
    found: dict[str, Any] = get_type_hints(shape, include_extras=True)
    return found


def element(name: str, kind: Any) -> str:
    """What a field is called in XML."""
    return next((mark.name for mark in marks(kind) if isinstance(mark, Named)), to_camel(name.rstrip("_")))


def marks(kind: Any) -> tuple[Any, ...]:
    return kind.__metadata__ if get_origin(kind) is Annotated else ()


def bare(kind: Any) -> Any:
    """The type without its marks and without None."""
    while get_origin(kind) in (Annotated, Union, UnionType):
        kind = next(each for each in get_args(kind) if each is not type(None))
    return kind


def _field(name: str, kind: Any, version: str) -> Writer | None:
    for mark in marks(kind):
        if isinstance(mark, Since) and version < mark.version:
            return None
        if isinstance(mark, Until) and version >= mark.version:
            return None
    return _element(element(name, kind), bare(kind), version)


def _element(name: str, kind: Any, version: str) -> Writer:
    if get_origin(kind) is tuple:
        return _set(name, _element("item", bare(get_args(kind)[0]), version))
    if hasattr(kind, "_fields"):
        return _nested(name, kind, version)
    return _leaf(name)


def _set(name: str, item: Writer) -> Writer:
    start, end, empty = f"<{name}>", f"</{name}>", f"<{name}/>"

    def write(values: Any, out: list[str]) -> None:
        if not values:
            out.append(empty)
            return
        out.append(start)
        for value in values:
            item(value, out)
        out.append(end)

    return write


def _nested(name: str, shape: Any, version: str) -> Writer:
    start, end, inner = f"<{name}>", f"</{name}>", writer(shape, version)

    def write(value: Any, out: list[str]) -> None:
        out.append(start)
        inner(value, out)
        out.append(end)

    return write


def _leaf(name: str) -> Writer:
    start, end = f"<{name}>", f"</{name}>"

    def write(value: Any, out: list[str]) -> None:
        said = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
        out.append(f"{start}{text(said)}{end}")

    return write
