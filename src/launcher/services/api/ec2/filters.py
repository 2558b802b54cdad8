"""`Filter.N`: which of the things described are meant. Values of one filter are or, filters are and; `*` and `?` match.

A filter is the path of the fields that it looks at: `group_set.group_id` is any of the groups.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

from pydantic import Field

from launcher.services.api.ec2.query import Parameters
from launcher.services.api.ec2.refusals import Refusal

Paths = Mapping[str, str]
TAGS = "tag_set"
MOST = 50


class Filter(Parameters):
    """One of them, with the values of which one must match."""

    name: str
    value: tuple[str, ...] = ()


Filters = Annotated[tuple[Filter, ...], Field(alias="Filter", max_length=MOST)]


def check(filters: Sequence[Filter], paths: Paths) -> None:
    """Raises Refusal for a name that is no filter here."""
    for each in filters:
        if each.name not in paths and not (each.name.startswith("tag:") and "tag-key" in paths):
            raise Refusal("InvalidParameterValue", f"The filter '{each.name}' is invalid")
        if not each.value:
            raise Refusal("InvalidParameterValue", f"The filter '{each.name}' has no value")


def matches(thing: Any, filters: Sequence[Filter], paths: Paths) -> bool:
    return all(_matches(thing, each, paths) for each in filters)


def _matches(thing: Any, wanted: Filter, paths: Paths) -> bool:
    if wanted.name in paths:
        found: Iterator[Any] = look(thing, paths[wanted.name].split("."))
    else:
        key = wanted.name.removeprefix("tag:")
        found = (tag.value for tag in getattr(thing, TAGS) if tag.key == key)
    patterns = [pattern(value) for value in wanted.value]
    return any(each.fullmatch(said) for value in found for said in (written(value),) for each in patterns)


def look(thing: Any, path: Sequence[str]) -> Iterator[Any]:
    """What is at the end of the path, of every member of the tuples on the way."""
    if thing is None:
        return
    if isinstance(thing, tuple) and not hasattr(thing, "_fields"):
        for member in thing:
            yield from look(member, path)
    elif path:
        yield from look(getattr(thing, path[0]), path[1:])
    else:
        yield thing


def written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@lru_cache(1024)
def pattern(text: str) -> re.Pattern[str]:
    """`*` is any text, `?` any character; after a backslash both are themselves. Matching takes linear time."""
    parts = re.findall(r"\\[*?\\]|.", text, re.DOTALL)
    quoted = (f"[{part[-1]}]" if len(part) > 1 or part == "[" else part for part in parts)
    return re.compile(fnmatch.translate("".join(quoted)))
