"""The models against EC2's own, as botocore has them: what is read and written here is called what EC2 calls it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args, get_origin

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape

from launcher.services.api.ec2 import query, xml
from launcher.services.api.ec2.operation import Operation
from launcher.services.api.ec2.operations import operations
from launcher.services.api.ec2.query import Parameters
from tests.ec2_page import PAGE, page

OPERATIONS = {each.name: each for each in operations()}
OLD = {"RunInstances.AddressingType"}
"""Parameters of old clients that EC2's present model does not have any more."""
KINDS = {"integer": int, "long": int, "boolean": bool}


@cache
def model() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("ec2", "service-2"))


def asked(kind: type[Parameters], shape: Shape, path: str) -> Iterator[str]:
    """Parameters that EC2 does not have, or has as something else."""
    theirs = {_asked_name(name, member): member for name, member in shape.members.items()}
    for name, field in query.fields(kind).items():
        where = f"{path}.{name}"
        if where in OLD:
            continue
        if name not in theirs:
            yield where
            continue
        member, inner = theirs[name], query.bare(field.annotation)
        if get_origin(inner) is tuple:
            if member.type_name != "list":
                yield f"{where} is no list"
                continue
            member, inner = member.member, query.bare(get_args(inner)[0])
        if isinstance(inner, type) and issubclass(inner, Parameters):
            yield from asked(inner, member, where)
        elif KINDS.get(member.type_name, str) is not (inner if inner in (int, bool) else str):
            yield f"{where} is {member.type_name}"


def _asked_name(name: str, member: Shape) -> str:
    said = member.serialization.get("queryName") or member.serialization.get("name") or name
    return said[0].upper() + said[1:]


def told(kind: Any, shape: Shape, path: str) -> Iterator[str]:
    """Elements that EC2 does not have, or has as something else."""
    theirs = {member.serialization.get("name", name): member for name, member in shape.members.items()}
    for name, hint in xml.hints(kind).items():
        if xml.UNTOLD in xml.marks(hint):
            continue
        where, inner = f"{path}.{xml.element(name, hint)}", xml.bare(hint)
        member = theirs.get(xml.element(name, hint))
        if member is None:
            yield where
            continue
        if get_origin(inner) is tuple:
            if member.type_name != "list":
                yield f"{where} is no list"
                continue
            member, inner = member.member, xml.bare(get_args(inner)[0])
        if hasattr(inner, "_fields") and member.type_name == "structure":
            yield from told(inner, member, where)
        elif not _same(inner, member):
            yield f"{where} is {member.type_name}"


def _same(inner: Any, member: Shape) -> bool:
    if inner is str and member.type_name == "structure":
        return True  # a set that is always empty here
    wanted = {int: ("integer", "long"), bool: ("boolean",), str: ("string", "blob"), xml.Moment: ("timestamp",)}
    return member.type_name in wanted.get(inner, ())


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_parameters_are_ec2s(operation: Operation) -> None:
    shape = model().operation_model(operation.name).input_shape
    assert list(asked(operation.request, shape, operation.name)) == []


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_answers_are_ec2s(operation: Operation) -> None:
    shape = model().operation_model(operation.name).output_shape
    if operation.answer is not xml.Done or shape is not None:
        assert [each for each in told(operation.answer, shape, operation.name) if not each.endswith(".return")] == []


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_filters_look_at_what_is_told(operation: Operation) -> None:
    """A filter's path leads through the shape of what is described."""
    if not operation.filters:
        return
    ((item, *_),) = [get_args(xml.bare(hint)) for hint in list(xml.hints(operation.answer).values())[:1]]
    if operation.name == "DescribeInstances":
        (item, *_) = get_args(xml.bare(xml.hints(item)["instances_set"]))
    for path in operation.filters.values():
        kind: Any = item
        for part in path.split("."):
            kind = xml.bare(xml.hints(kind)[part])
            kind = xml.bare(get_args(kind)[0]) if get_origin(kind) is tuple else kind


def test_the_page_of_the_operations_is_made_from_the_models() -> None:
    assert PAGE.read_text() == page(), "python -m tests.ec2_page writes it"
