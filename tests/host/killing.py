"""A client over servers that die: what it asked of the one that died, it asks of the next."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import aiohttp
import pytest

from launcher import failpoints
from tests.serving import Json, Server
from tests.waiting import eventually, until

AT_REST = ("ACTIVE", "ERROR", "DELETED")
LATE = 45.0
"""Seconds after which something is not slow but stuck; a recovery takes about two."""


@dataclass
class Score:
    """What the last line of the test run tells."""

    kills: int = 0
    in_recovery: int = 0
    recoveries: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        longest = max(self.recoveries, default=0.0)
        return f"{self.kills} survived, {self.in_recovery} of them during a recovery; longest recovery {longest:.1f} s"


SCORES: pytest.StashKey[dict[str, Score]] = pytest.StashKey()


def kills(names: list[str]) -> list[str]:
    return [f"{name}:{moment}:1:kill" for name in names for moment in ("before", "after")]


def mixed(*lists: list[str]) -> list[str]:
    """All of them in their order, the shorter lists spread over the longest."""
    placed = [(place / len(each), name) for each in lists for place, name in enumerate(each)]
    return [name for _, name in sorted(placed, key=lambda found: found[0])]


class Client:
    """Wants one machine and then none, again and again. A server that is to die begins with everything imported.

    `running` is called when there should be one, `empty` when nothing should be left.
    """

    def __init__(self, server: Server, score: Score, *, running: Callable[[], None], empty: Callable[[], None]) -> None:
        self.server, self.score, self.running, self.empty = server, score, running, empty
        self.stories, self.ending, self.failing = 1, False, False
        self.started, self.recovering = 0.0, False
        server.preloaded = True

    async def survive(self, failpoint: str) -> None:
        """Live with one server until it has killed itself where it was told to."""
        self.server.environment = {failpoints.VARIABLE: failpoint}
        with contextlib.suppress(aiohttp.ClientError), self._telling(failpoint):
            await self._live(stories=4)
            raise AssertionError(f"{failpoint} was not reached in four launches and their ends")
        await until(lambda: self.server.ended, within=10)
        assert ": kill" in self.server.said, self.server.said
        self.score.kills += 1
        self.score.in_recovery += self.recovering
        self.recovering = True

    async def finish(self) -> None:
        """With a server that stays: the story to its end, and no more machines than were asked for."""
        self.server.environment, self.server.preloaded = {}, False
        stories = self.stories
        with self._telling("the end"):
            await self._live(stories=1)
        async with self.server.http() as http, http.get("/instances?deleted=true&limit=1000") as answer:
            ids = {instance["id"] for instance in (await answer.json())["instances"]}
        assert len(ids) == stories
        await self.server.cli("audit")
        await self.server.stop()

    @contextlib.contextmanager
    def _telling(self, failpoint: str) -> Iterator[None]:
        """What fails is told with where it was, and what the server said."""
        try:
            yield
        except AssertionError as error:
            raise AssertionError(f"{failpoint}: {error}\n{self.server.log.read_text()[-6000:]}") from error

    async def _live(self, *, stories: int) -> None:
        self.started = time.monotonic()
        await self.server.spawn()
        await until(lambda: self.server.listening or self.server.ended, within=LATE)
        if self.server.ended:
            raise aiohttp.ClientConnectionError("it died before it listened")
        async with self.server.http() as http:
            for _ in range(stories):
                await self._have_one(http)
                await self._have_none(http)
                self.stories, self.ending, self.failing = self.stories + 1, False, False

    async def _have_one(self, http: aiohttp.ClientSession) -> None:
        """Asked again with the same key, the server answers with the same machine."""
        self.failing = self.failing or any(":raise" in said for said in self.server.environment.values())
        async with http.post("/keypairs", json={"name": "mine"}) as answer:
            assert answer.status in (201, 409), await answer.text()
        body = {"image": "ami-tiny", "flavor": "m1.tiny", "key_name": "mine", "config_drive": True}
        async with http.post("/instances", json=body, headers={"Idempotency-Key": f"story-{self.stories}"}) as answer:
            assert answer.status == 202, await answer.text()
            self.instance: Json = (await answer.json())["instances"][0]
        if self.ending:
            return
        found = await self._until_at_rest(http)
        assert found["status"] == "ACTIVE" or self.failing, found
        (self.running if found["status"] == "ACTIVE" else self.empty)()
        await self._until_sound(http)

    async def _have_none(self, http: aiohttp.ClientSession) -> None:
        self.ending = True
        async with http.delete(f"/instances/{self.instance['id']}") as answer:
            assert answer.status == 202, await answer.text()
        assert (await self._until_at_rest(http))["status"] == "DELETED"
        self.empty()
        await self._until_sound(http)

    async def _until_sound(self, http: aiohttp.ClientSession) -> None:
        """The server's own audit finds nothing; what vanished with a host of fakes is put back first."""

        async def look() -> bool:
            async with http.get("/audit") as answer:
                found: Json = await answer.json()
                return answer.status == 200 and not found["findings"] + found["silent"]

        await eventually(look, within=LATE, what="an audit without findings")

    async def _until_at_rest(self, http: aiohttp.ClientSession) -> Json:
        async def look() -> Json | None:
            async with http.get(f"/instances/{self.instance['id']}") as answer:
                found: Json = await answer.json()
                return found if found["status"] in AT_REST else None

        found = await eventually(look, within=LATE, what="an instance at rest")
        if self.recovering:
            self.score.recoveries.append(time.monotonic() - self.started)
            self.recovering = False
        return found


def leases(server: Server) -> list[str]:
    """The addresses that are given out, by the network's own table."""
    with contextlib.closing(sqlite3.connect(f"file:{server.state}/network.db?mode=ro", uri=True)) as db:
        return [f"lease of {row[0]}" for row in db.execute("SELECT instance_id FROM fixed_ips")]
