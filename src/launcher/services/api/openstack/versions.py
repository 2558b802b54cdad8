"""Microversions as data: from which one on, and up to which, something is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from launcher.errors import BadRequest
from launcher.models import Model


class Version(NamedTuple):
    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @staticmethod
    def read(text: str) -> Version | None:
        """`2.79`; None where it is no version."""
        major, dot, minor = text.partition(".")
        fine = dot and all(part.isascii() and part.isdecimal() and len(part) < 5 for part in (major, minor))
        return Version(int(major), int(minor)) if fine else None


OLDEST, NEWEST = Version(0, 0), Version(9999, 9999)


@dataclass(frozen=True)
class Ages:
    """The versions that have something: on an operation, a field of a body (Annotated), a member of a shape."""

    first: Version = OLDEST
    last: Version = NEWEST

    def __contains__(self, version: Version) -> bool:
        return self.first <= version <= self.last

    def __str__(self) -> str:
        """For a reader; empty where all have it."""
        parts = [
            f"since {self.first}" if self.first.minor else "",
            f"until {self.last}" if self.last.minor < 9999 else "",
        ]
        return ", ".join(filter(None, parts))


@dataclass(frozen=True)
class Refused:
    """Marks a field that clients may send and that is refused, with the reason; None and what is empty pass."""

    why: str


ALWAYS = Ages()


def since(minor: int, *, major: int = 2) -> Ages:
    """Of Compute 2, if no other is said."""
    return Ages(first=Version(major, minor))


def until(minor: int) -> Ages:
    return Ages(last=Version(2, minor))


def ages_of(model: type[Model], name: str) -> Ages:
    """As the field of a body is marked."""
    found = [mark for mark in model.model_fields[name].metadata if isinstance(mark, Ages)]
    return found[0] if found else ALWAYS


def check(body: Any, version: Version) -> None:
    """Raises BadRequest for a field that the version has not, in the words that are used for unknown ones."""
    if isinstance(body, Model):
        for name in body.model_fields_set & type(body).model_fields.keys():
            if version not in ages_of(type(body), name):
                raise BadRequest(unexpected(type(body).model_fields[name].alias or name), field=name)
            _refuse(body, name)
            check(getattr(body, name), version)
    elif isinstance(body, list | tuple):
        for each in body:
            check(each, version)


def _refuse(body: Model, name: str) -> None:
    field = type(body).model_fields[name]
    for mark in field.metadata:
        if isinstance(mark, Refused) and getattr(body, name) not in (None, "", [], {}):
            raise BadRequest(f"{field.alias or name} cannot be given: {mark.why}", field=name)


def unexpected(name: str) -> str:
    """As JSON schema's validators say it."""
    return f"Additional properties are not allowed ({name!r} was unexpected)"


def shaped(shape: Mapping[str, Ages], version: Version, whole: Mapping[str, Any]) -> dict[str, Any]:
    """Without the members that the version has not."""
    return {name: value for name, value in whole.items() if version in shape.get(name, ALWAYS)}
