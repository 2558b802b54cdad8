"""What is said of OpenStack's door is what it is."""

from __future__ import annotations

from tests.openstack_page import PAGE, page, services


def test_the_page_is_made_from_the_tables() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.openstack_page"


def test_no_call_is_there_twice() -> None:
    for service in services():
        calls = [(each.method, each.path) for each in service.operations]
        assert len(calls) == len(set(calls)), service.type
