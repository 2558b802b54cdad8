"""Parameters, filters, pages and XML of the EC2 dialect, each alone."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.services.api.ec2 import filters, paging, query, shapes, xml
from launcher.services.api.ec2.filters import Filter
from launcher.services.api.ec2.instances import RunInstances, TerminateInstances
from launcher.services.api.ec2.query import Parameters, Request
from launcher.services.api.ec2.refusals import Refusal


class Nested(Parameters):
    """A part."""

    name: str = ""
    size: int | None = None


class Everything(Request):
    """One field of each type."""

    text: str = ""
    count: int | None = None
    flag: bool = False
    word: tuple[str, ...] = ()
    number: tuple[int, ...] = ()
    part: Nested = Nested()
    parts: tuple[Nested, ...] = ()


def parsed(**given_: str) -> Everything:
    return query.parse(Everything, [(name.replace("__", "."), value) for name, value in given_.items()])


def test_each_field_has_its_own_type() -> None:
    found = parsed(Text="123", Count="-5", Flag="TRUE", Part__Name="0123", Part__Size="7")
    assert (found.text, found.count, found.flag, found.part) == ("123", -5, True, Nested(name="0123", size=7))


def test_lists_are_in_the_order_of_their_numbers() -> None:
    """As text, 10 would come before 2."""
    given_ = {f"Word__{number}": str(number) for number in (10, 2, 1, 300)}
    assert parsed(**given_).word == ("1", "2", "10", "300")
    assert parsed(Parts__2__Name="b", Parts__1__Name="a", Parts__1__Size="1").parts == (
        Nested(name="a", size=1),
        Nested(name="b"),
    )


def test_a_list_of_one_may_come_without_a_number() -> None:
    """Left out, it would mean everything."""
    assert parsed(Word="x").word == ("x",)
    assert parsed(Number="7").number == (7,)
    assert parsed(Parts__Name="x", Parts__Size="2").parts == (Nested(name="x", size=2),)
    assert query.parse(TerminateInstances, [("InstanceId", "i-1")]).instance_id == ("i-1",)


@pytest.mark.parametrize("count", ["", " 1", "1 ", "1_0", "1.0", "0x1", "١", "1e3", "9" * 30])
def test_what_is_no_number_is_refused(count: str) -> None:
    with pytest.raises(Refusal, match="InvalidParameterValue"):
        parsed(Count=count)


@given(st.text(max_size=60), st.text(max_size=30))
@settings(max_examples=200)
def test_any_query_makes_a_request_or_a_refusal(name: str, value: str) -> None:
    raw = f"{name}={value}&{quote(name)}={quote(value)}"
    for kind in (Everything, RunInstances):
        with suppress(Refusal):
            query.parse(kind, query.pairs(raw))


NAMES = st.lists(st.sampled_from(["Text", "Word", "Part", "Parts", "Name", "Size", "1", "2", "01", ""]), max_size=4)


@given(st.lists(st.tuples(NAMES.map(".".join), st.sampled_from(["1", "x", "true"])), max_size=5))
@settings(max_examples=300)
def test_any_tree_of_known_names_makes_a_request_or_a_refusal(given_: list[tuple[str, str]]) -> None:
    with suppress(Refusal):
        query.parse(Everything, dict(given_).items())


# --- filters and pages ------------------------------------------------------------------------------------


class Thing(NamedTuple):
    name: str
    tag_set: tuple[shapes.Tag, ...] = ()
    flag: bool = True


PATHS = {"name": "name", "flag": "flag", "tag-key": "tag_set.key"}


def passes(thing: Thing, name: str, *values: str) -> bool:
    return filters.matches(thing, [Filter(name=name, value=values)], PATHS)


@pytest.mark.parametrize(
    ("wanted", "name", "whether"),
    [
        ("web", "web", True),
        ("web", "Web", False),
        ("w*", "web", True),
        ("*", "", True),
        ("w?b", "web", True),
        ("w?b", "weeb", False),
        (r"w\*", "w*", True),
        (r"w\*", "web", False),
        (r"w\?b", "w?b", True),
        ("[a-z]*", "web", False),
        ("[a-z]*", "[a-z]x", True),
        ("a.c", "abc", False),
        ("a*b*c", "a\nb\nc", True),
        ("\\", "\\", True),
    ],
)
def test_stars_and_question_marks_match_and_nothing_else_does(wanted: str, name: str, whether: bool) -> None:
    assert passes(Thing(name), "name", wanted) is whether


def test_a_filter_of_many_stars_takes_no_time() -> None:
    assert not passes(Thing("a" * 250), "name", "*a" * 100 + "b")


def test_values_are_or_and_filters_are_and() -> None:
    thing = Thing("web", (shapes.Tag("team", "red"), shapes.Tag("123", "")))
    assert passes(thing, "name", "db", "web")
    assert passes(thing, "tag:team", "r*")
    assert passes(thing, "tag-key", "123")
    assert passes(thing, "flag", "true")
    both = [Filter(name="name", value=("web",)), Filter(name="tag:team", value=("blue",))]
    assert not filters.matches(thing, both, PATHS)


@given(st.sets(st.text(max_size=5), max_size=30), st.integers(1, 7))
def test_pages_are_the_whole_each_thing_once(names: set[str], size: int) -> None:
    found, token = list[str](), None
    while True:
        page, token = paging.cut(list(names), name=str, question="q", size=size, token=token)
        found += page
        if token is None:
            break
    assert found == sorted(names)


@pytest.mark.parametrize("token", ["", "x", "AAAA", "é", "a" * 1000])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(Refusal, match="InvalidParameterValue"):
        paging.cut(["a"], name=str, question="q", size=5, token=token)


# --- XML --------------------------------------------------------------------------------------------------


@given(st.text(max_size=30), st.text(st.characters(), max_size=10))
def test_any_text_is_well_formed_xml(value: str, other: str) -> None:
    said = xml.answer("Look", "2016-11-15", "r", shapes.Tag(value, other)).decode()
    root = ET.fromstring(said)
    assert root.tag == "{http://ec2.amazonaws.com/doc/2016-11-15/}LookResponse"
    ET.fromstring(xml.refused(Refusal("Code", value), "r"))


def test_texts_come_back_as_they_were() -> None:
    value = "a & b < c > d \"e\" 'f' ]]> é 𝄞"
    root = ET.fromstring(xml.answer("Look", "2016-11-15", "r", shapes.Tag(value, "")))
    assert root[1].text == value
