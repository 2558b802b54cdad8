"""Tags, of everything that has an id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from launcher.errors import NotFound, QuotaExceeded
from launcher.messages import tags as messages
from launcher.services.api.ec2 import tagged
from launcher.services.api.ec2.operation import Ask, Listing, Operation, Paged
from launcher.services.api.ec2.query import Parameters, Request
from launcher.services.api.ec2.refusals import Refusal
from launcher.services.api.ec2.xml import Done
from launcher.tagging import Tagged

RESERVED = "aws:"
MOST = 50
"""Tags of one thing."""
TagText = Annotated[str, Field(max_length=256)]


class TagPair(Parameters):
    key: Annotated[str, Field(min_length=1, max_length=128)]
    value: TagText = ""


class TagWord(Parameters):
    """Of a tag to delete; without a value whatever it is."""

    key: str
    value: str | None = None


class TagSpecification(Parameters):
    """Tags of what is made."""

    resource_type: str
    tag: tuple[TagPair, ...] = ()


class CreateTags(Request):
    """Note tags of things, over those with the same keys."""

    resource_id: Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]
    tag: Annotated[tuple[TagPair, ...], Field(min_length=1, max_length=1000)]


class DeleteTags(Request):
    """Forget tags of things; without `Tag` all of them. What is not there is no error."""

    resource_id: Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]
    tag: Annotated[tuple[TagWord, ...], Field(max_length=1000)] = ()


class DescribeTags(Paged):
    """Every tag, with what it is of."""


class TagOf(NamedTuple):
    resource_id: str
    resource_type: str
    key: str
    value: str


class Tags(NamedTuple):
    tag_set: tuple[TagOf, ...]
    next_token: str | None = None


def specified(given: Iterable[TagSpecification], *kinds: str) -> dict[str, str]:
    """The tags for a thing of the first of these kinds; the other kinds are made with it and have no tags here."""
    found: dict[str, str] = {}
    for each in given:
        if each.resource_type not in kinds:
            raise Refusal(
                "InvalidParameterValue", f"'{each.resource_type}' is not a valid taggable resource type here."
            )
        if each.resource_type == kinds[0]:
            found |= pairs(each.tag)
    if len(found) > MOST:
        raise Refusal("TagLimitExceeded", f"A resource has at most {MOST} tags")
    return found


def pairs(given: Sequence[TagPair]) -> dict[str, str]:
    """Raises Refusal for a key that comes twice or is AWS's own."""
    for each in given:
        if each.key.lower().startswith(RESERVED):
            raise Refusal("InvalidParameterValue", f"Tag keys starting with '{RESERVED}' are reserved for internal use")
    found = {each.key: each.value for each in given}
    if len(found) < len(given):
        raise Refusal("InvalidParameterValue", "Duplicate tag key specified.")
    return found


async def create_tags(ask: Ask, request: CreateTags) -> Done:
    targets = await tagged.targets(ask, request.resource_id)
    await ask.change(messages.SetTags(targets=targets, tags=pairs(request.tag), most=MOST))
    return Done()


async def delete_tags(ask: Ask, request: DeleteTags) -> Done:
    targets = await tagged.targets(ask, request.resource_id)
    await ask.change(messages.RemoveTags(targets=targets, tags={each.key: each.value for each in request.tag}))
    return Done()


async def find_tags(ask: Ask, request: Any) -> Sequence[TagOf]:
    """Of what is there; tags of what was deleted by other ways are told no more."""
    known = await tagged.names(ask)
    found = await ask.look(messages.ListTags())
    return [
        TagOf(known[each.kind, each.id], tagged.TYPES[each.kind], each.key, each.value)
        for each in found
        if (each.kind, each.id) in known
    ]


async def of(ask: Ask, kind: Tagged) -> Mapping[str, dict[str, str]]:
    """The tags of all things of a kind, by their ids here."""
    found: dict[str, dict[str, str]] = {}
    for each in await ask.look(messages.ListTags(kind=kind)):
        found.setdefault(each.id, {})[each.key] = each.value
    return found


OPERATIONS = (
    Operation(
        CreateTags, Done, create_tags, {QuotaExceeded: "TagLimitExceeded", NotFound: "InvalidInstanceID.NotFound"}
    ),
    Operation(DeleteTags, Done, delete_tags, {NotFound: "InvalidInstanceID.NotFound"}),
    Listing(
        DescribeTags,
        Tags,
        find_tags,
        {"key": "key", "value": "value", "resource-id": "resource_id", "resource-type": "resource_type"},
        ("resource_id", "key"),
    ).operation(),
)
