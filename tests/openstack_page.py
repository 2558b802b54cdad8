"""docs/openstack.md, made from the services' tables: `python -m tests.openstack_page` writes it, a test compares it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, get_args

from launcher.bus import MemoryBus
from launcher.clock import SystemClock
from launcher.drivers.images.local_vault import LocalVault
from launcher.models import Model
from launcher.services.api.callers import Callers
from launcher.services.api.openstack import nova
from launcher.services.api.openstack.actions import Action, Actions
from launcher.services.api.openstack.frame import Operation, Service
from launcher.services.api.openstack.service import OpenStack
from launcher.services.api.openstack.versions import Refused, ages_of
from launcher.services.api.rate import Rate
from launcher.services.api.uploads import Uploads

PAGE = Path(__file__).parents[1] / "docs" / "openstack.md"
HEAD = Path(__file__).with_suffix(".md")


def services() -> Sequence[Service]:
    clock, rng = SystemClock(), Random(1)
    bus = MemoryBus(clock=clock, rng=rng)
    uploads = Uploads(bus=bus, vault=LocalVault(Path("/nonexistent")))
    callers = Callers(bus=bus, rng=rng, rate=Rate(clock=clock, per_second=0.0))
    return OpenStack(callers=callers, url="", region="RegionOne", bus=bus, uploads=uploads).services


def page() -> str:
    parts = [HEAD.read_text().replace("NEWEST", str(nova.NEWEST))]
    for service in services():
        parts += [*_service(service), ""]
        if service.type == "compute":
            parts += [*_actions(Actions(bus=MemoryBus(clock=SystemClock(), rng=Random(1))).table()), ""]
    return "\n".join(parts).rstrip() + "\n"


def _service(service: Service) -> Iterator[str]:
    yield from (f"## {service.type} (`{service.endpoint}`)", "", "| call | |", "| --- | --- |")
    for each in service.operations:
        yield f"| `{each.method} {each.path or '/'}` | {_words(each)} |"


def _words(each: Operation) -> str:
    words = [f"**refused** ({each.status}): {each.why}"] if each.status > 400 else []
    words += [each.why] if each.why and not words else []
    words += [str(each.ages)] if str(each.ages) else []
    words += [_fields(each.body)] if each.body else []
    queries = [*each.queries, *(f"{name} ({ages})" for name, ages in each.aged.items())]
    words += [f"queries: {', '.join(queries)}"] if queries and "*" not in queries else []
    return "; ".join(filter(None, words)).replace("|", "or")


def _fields(model: type[Model]) -> str:
    """Of the request's one object, else of the request."""
    inner = next((_model(model, name) for name in model.model_fields if _model(model, name)), None) or model
    return ", ".join(_field(inner, name) for name in inner.model_fields)


def _model(model: type[Model], name: str) -> type[Model] | None:
    kind = model.model_fields[name].annotation
    found = [each for each in (kind, *get_args(kind)) if isinstance(each, type) and issubclass(each, Model)]
    return found[0] if found else None


def _field(model: type[Model], name: str) -> str:
    field: Any = model.model_fields[name]
    why = [f"refused: {mark.why}" for mark in field.metadata if isinstance(mark, Refused)]
    notes = [*([str(ages_of(model, name))] if str(ages_of(model, name)) else []), *why]
    return f"`{field.alias or name}`" + (f" ({'; '.join(notes)})" if notes else "")


def _actions(table: Sequence[Action]) -> Iterator[str]:
    yield from ("### Actions of a server", "", "| action | |", "| --- | --- |")
    for each in table:
        words = [f"**refused** (501): {each.why}" if each.do is None else each.why, str(each.ages), _fields(each.takes)]
        yield f"| `{each.name}` | {'; '.join(filter(None, words))} |"


if __name__ == "__main__":
    PAGE.write_text(page())
