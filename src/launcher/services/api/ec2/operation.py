"""An operation as data: what may be asked, what is answered, and what is done in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import Field

from launcher.bus import Bus
from launcher.messaging import Call, Context
from launcher.services.api.ec2 import filters, paging
from launcher.services.api.ec2.filters import Filter, Paths
from launcher.services.api.ec2.query import Request
from launcher.services.api.ec2.refusals import Names, Refusal

R = TypeVar("R")


@dataclass(frozen=True)
class Ask:
    """An authenticated request of this `version`; `now_ms` is when it came."""

    bus: Bus
    ctx: Context
    version: str
    region: str
    endpoint: str
    now_ms: float
    dry_run: bool = False

    async def look(self, message: Call[R]) -> R:
        """Ask what changes nothing."""
        return await self.bus.call(self.ctx, message)

    async def change(self, message: Call[R]) -> R:
        """Everything that can be refused here has been when this is called first; a dry run ends here."""
        if self.dry_run:
            if not self.ctx.role.covers(message.needs):
                raise Refusal("UnauthorizedOperation", "You are not authorized to perform this operation.")
            raise dry_run()
        return await self.bus.call(self.ctx, message)


@dataclass(frozen=True)
class Operation:
    """`names` are EC2's codes for what the messages of this operation may be refused with.

    One that `changes` nothing may be asked for by a request that was seen before.
    """

    request: type[Request]
    answer: Any
    do: Callable[[Ask, Any], Awaitable[Any]]
    names: Names = field(default_factory=dict)
    changes: bool = True
    filters: Paths = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.request.__name__


class Described(Request):
    """What is described can be filtered."""

    filter: filters.Filters = ()


class Paged(Described):
    """And answered in pages."""

    max_results: Annotated[int | None, Field(ge=5, le=1000, description="of one answer")] = None
    next_token: str | None = None


@dataclass(frozen=True)
class Listing:
    """How things are described: `find` them, filter them, cut a page, and `wrap` it as the answer.

    `key` are the fields that they are ordered by, which no two have the same. `named` are the parameters that name
    single ones, and so do not go with pages.
    """

    request: type[Described]
    answer: Any
    find: Callable[[Ask, Any], Awaitable[Sequence[Any]]]
    filters: Paths
    key: tuple[str, ...]
    named: tuple[str, ...] = ()
    wrap: Callable[[Sequence[Any]], Sequence[Any]] = tuple
    names: Names = field(default_factory=dict)

    def operation(self) -> Operation:
        return Operation(self.request, self.answer, self.do, self.names, changes=False, filters=self.filters)

    async def do(self, ask: Ask, request: Any) -> Any:
        wanted: Sequence[Filter] = request.filter
        filters.check(wanted, self.filters)
        size, token = getattr(request, "max_results", None), getattr(request, "next_token", None)
        if size is not None and any(getattr(request, name) for name in self.named):
            raise Refusal("InvalidParameterCombination", "MaxResults does not go with names or ids")
        found = await self.find(ask, request)
        if wanted:
            found = [each for each in found if filters.matches(each, wanted, self.filters)]
        question = request.model_dump_json(exclude={"max_results", "next_token", "dry_run"})
        page, more = paging.cut(found, name=self._name, question=question, size=size, token=token)
        last = (more,) if "next_token" in self.answer._fields else ()
        return self.answer(tuple(self.wrap(page)), *last)

    def _name(self, each: Any) -> str:
        return "/".join(str(getattr(each, name)) for name in self.key)


def dry_run() -> Refusal:
    return Refusal("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")


def plain(paths: Sequence[str]) -> dict[str, str]:
    """Filters that are called as the fields they look at: `key-name` is `key_name`."""
    return {path.replace("_", "-"): path for path in paths}


TAG_FILTERS = {"tag-key": "tag_set.key", "tag-value": "tag_set.value"}
"""With these there is `tag:K`, too."""
