"""Volumes over crashes: cut off before and after every effect, what was asked for ends as if nothing had been."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType

import aiohttp
import pytest

from launcher import failpoints
from launcher.errors import StoreUnavailable
from tests.flow.house import House, Json
from tests.flow.test_volumes import attach, machine_of, plugged, volume_of, volume_until
from tests.waiting import until

COMMON = ("volume.nudge", "volume.claim", "volume.report", "volume.end")
POINTS = {
    "create": ("volume.accept", "volume.creating", *COMMON),
    "snapshot": ("volume.accept", "volume.creating", *COMMON),
    "attach": ("volume.move", "volume.attaching", *COMMON),
    "extend": ("volume.move", "volume.extending", *COMMON),
    "detach": ("volume.move", "volume.detaching", "volume.fault", *COMMON),
    "delete": ("volume.move", "volume.deleting", *COMMON),
}


ANSWERED = ("volume.accept", "volume.move", "volume.nudge", "volume.end")


class Cut:
    """A point that the process does not get past: what comes to it stands there until the house closes.

    What somebody waits for an answer of ends with an error, so that the house closes at once.
    """

    def __init__(self, point: str, moment: str) -> None:
        self.moment, self.reached, self.end = moment, asyncio.Event(), asyncio.Event()
        self.answered = point in ANSWERED

    async def __aenter__(self) -> None:
        if self.moment == "before":
            await self._stand()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.moment == "after" and kind is None:
            await self._stand()

    async def _stand(self) -> None:
        self.reached.set()
        await self.end.wait()
        raise StoreUnavailable("cut off") if self.answered else asyncio.CancelledError


async def snapshots_of(house: House) -> list[Json]:
    found: list[Json] = (await house.ask("GET", "/snapshots", status=200))["snapshots"]
    return found


SIMPLE = {
    "attach": ("POST", "/attachment", True),
    "detach": ("DELETE", "/attachment", None),
    "delete": ("DELETE", "", None),
}


async def ask(house: House, what: str, volume: str | None, machine: str) -> None:
    """As a careful client does it, who does not know what became of what he asked before."""
    path = f"/volumes/{volume}"
    if what == "create" and not (await house.ask("GET", "/volumes", status=200))["volumes"]:
        await house.ask("POST", "/volumes", {"size_gb": 1}, status=202)
    if what == "snapshot" and not await snapshots_of(house):
        await house.ask("POST", "/snapshots", {"volume": volume, "force": True}, status=202)
    if what == "extend":
        found = await house.ask("GET", path, status=200)
        if found["size_gb"] == 1 and found["status"] != "extending":
            await house.ask("POST", f"{path}/size", {"size_gb": 2}, status=202)
    if what in SIMPLE:
        method, where, body = SIMPLE[what]
        await house.ask(method, path + where, body and {"instance": machine}, status=202)


async def ended(house: House, what: str, volume: str | None) -> None:
    """It is as it was asked for, in the rows and on the host."""
    if what == "create":
        (made,) = (await house.ask("GET", "/volumes", status=200))["volumes"]
        volume = str(made["id"])
    if what == "snapshot":
        (made,) = await snapshots_of(house)
        await volume_until(house, made["id"], "available", "snapshots")
    assert volume
    status = {"attach": "in-use", "extend": "in-use", "snapshot": "in-use", "delete": "deleted"}.get(what, "available")
    found = await volume_until(house, volume, status)
    held = [names for names in plugged(house).values() if names]
    assert held == ([["volume-00000001"]] if status == "in-use" else [])
    assert (volume in house.volumes.volumes) == (what != "delete")
    if what == "extend":
        assert (found["size_gb"], house.volumes.volumes[volume].size_gb) == (2, 2)
    assert len(house.volumes.volumes) == {"delete": 0, "snapshot": 2}.get(what, 1)
    assert (await house.ask("GET", "/audit", status=200))["findings"] == []


async def begun(house: House, what: str) -> tuple[str | None, str]:
    """All that comes before it."""
    machine = await machine_of(house)
    if what == "create":
        return None, machine["id"]
    volume = await volume_of(house)
    if what in ("snapshot", "extend", "detach"):
        await attach(house, volume, machine)
    return volume["id"], machine["id"]


async def cut_off(house: House, cut: Cut, asking: Callable[[], Awaitable[None]]) -> None:
    """Ask, and end where it stands."""

    async def patiently() -> None:
        with contextlib.suppress(aiohttp.ClientError, AssertionError):
            await asking()

    task = asyncio.ensure_future(patiently())
    async with asyncio.timeout(10):
        await cut.reached.wait()
    cut.end.set()
    task.cancel()


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("what", list(POINTS))
async def test_cut_off_at_every_effect_it_ends_as_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, moment: str
) -> None:
    for point in POINTS[what]:
        state = tmp_path / point
        state.mkdir()
        first = House(state)
        async with first.open() as house:
            volume, machine = await begun(house, what)
            if point == "volume.fault":
                house.virt.clinging.add("volume-00000001")
            cut = Cut(point, moment)
            monkeypatch.setattr(failpoints, "ARMED", {point: cut})
            await cut_off(house, cut, lambda: ask(house, what, volume, machine))  # noqa: B023 - awaited here
        monkeypatch.setattr(failpoints, "ARMED", {})
        first.virt.clinging.clear()
        async with first.successor().open() as house:
            await ask(house, what, volume, machine)
            await ended(house, what, volume)


async def test_a_detachment_that_is_asked_for_while_it_is_attached_ends_detached(house: House) -> None:
    machine, volume = await machine_of(house), await volume_of(house)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def fault(point: str, instance_id: str) -> None:
        if point == "plug":
            reached.set()
            await go_on.wait()

    house.virt.fault = fault
    await house.ask("POST", f"/volumes/{volume['id']}/attachment", {"instance": machine["id"]}, status=202)
    await reached.wait()
    await house.ask("DELETE", f"/volumes/{volume['id']}/attachment", status=202)
    go_on.set()
    assert (await volume_until(house, volume["id"], "available"))["attachment"] is None
    await until(lambda: plugged(house) == {})


async def test_two_instances_that_want_one_volume_at_once_are_told_who_has_it(house: House) -> None:
    machines, volume = [await machine_of(house) for _ in range(3)], await volume_of(house)
    path = f"/volumes/{volume['id']}/attachment"
    answers = await asyncio.gather(*(house.http.post(path, json={"instance": each["id"]}) for each in machines))
    assert sorted(answer.status for answer in answers) == [202, 409, 409]
    await volume_until(house, volume["id"], "in-use")
    assert list(plugged(house).values()) == [["volume-00000001"]]


async def test_a_machine_that_is_ended_while_a_volume_is_attached_leaves_it_free(house: House) -> None:
    machine, volume = await machine_of(house), await volume_of(house)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def fault(point: str, instance_id: str) -> None:
        if point == "plug":
            reached.set()
            await go_on.wait()

    house.virt.fault = fault
    await house.ask("POST", f"/volumes/{volume['id']}/attachment", {"instance": machine["id"]}, status=202)
    await reached.wait()
    await house.ask("DELETE", f"/instances/{machine['id']}", status=202)
    go_on.set()
    await house.until(machine["id"], "DELETED")
    await volume_until(house, volume["id"], "available")
    assert plugged(house) == {}
