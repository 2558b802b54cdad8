"""When a list of domains is believed, and what a call that never returns holds up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from launcher.drivers.virt.connection import Connection, Lane, _Link
from launcher.errors import HypervisorUnavailable

SETTLE = 0.06


class Listed:
    """A connection whose lists are written beforehand; the last one stays."""

    def __init__(self) -> None:
        self.lists: list[list[str]] = [[]]
        self.looks = 0
        self.believed: list[list[str]] = []
        self.connection: Connection[list[str]] = Connection(
            "test:///default",
            census=self.census,
            on_up=self.believed.append,
            on_event=lambda *_: None,
            patience=1.0,
            settle=SETTLE,
        )

    def census(self, _: Any) -> list[str]:
        self.looks += 1
        return self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]

    async def connect(self, *lists: list[str]) -> list[str]:
        """The list that is believed when libvirt gives these one after the other."""
        self.lists, self.looks = list(lists), 0
        await self.connection._settle(_Link(None, (), asyncio.Event()))
        await asyncio.sleep(0)
        return self.believed[-1]


@pytest.fixture
def listed() -> Iterator[Listed]:
    listed = Listed()
    yield listed
    for lane in (listed.connection.opening, listed.connection.looking):
        lane.pool.shutdown()


async def test_nothing_on_a_fresh_host_is_believed_at_once(listed: Listed) -> None:
    assert await listed.connect([]) == []
    assert listed.looks == 1


async def test_half_started_domains_are_waited_for(listed: Listed) -> None:
    assert await listed.connect(["a", "ghost"], ["a", "ghost"], ["a"]) == ["a"]
    assert listed.looks > 3


@pytest.mark.parametrize("lists", [([], ["a"]), ([], [], ["a"]), (["a"], [], ["a"])])
async def test_after_a_loss_an_empty_list_is_believed_only_when_it_stays(
    listed: Listed, lists: tuple[list[str], ...]
) -> None:
    """All guests were called gone when the daemon's first list was empty."""
    await listed.connect(["a"])
    assert await listed.connect(*lists) == ["a"]


async def test_guests_that_stay_away_are_gone(listed: Listed) -> None:
    await listed.connect(["a"])
    assert await listed.connect([]) == []
    assert listed.looks > 3


async def test_a_call_that_never_returns_holds_up_nobody_after_it() -> None:
    """One hung close was the end of every connection."""
    lane, ever = Lane("test", 1, limit=0.05), threading.Event()
    try:
        with pytest.raises(HypervisorUnavailable, match=r"no answer in 0\.05 s"):
            await lane.run(ever.wait)
        assert await lane.run(lambda: "done") == "done"
    finally:
        ever.set()
        lane.pool.shutdown()
