"""Ten thousand malformed messages at live roles: none is lost count of, and none does any harm."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import math
import tracemalloc
from collections import Counter
from ipaddress import IPv4Network
from pathlib import Path
from random import Random

import pytest

from launcher.bus import _Delivery
from launcher.dead_letters import KEPT
from launcher.messages.notices import HostHeartbeat
from tests.flow.house import House
from tests.malformed import Forger, Letter
from tests.waiting import until

SEED = 20101021
SPOILT, STRANGE = 10_000, 2_000
ROOM = 12 * 2**20  # bytes that ten thousand messages may leave behind, of which the kept letters are the most


class Poster:
    """Puts letters into a house's queues and counts what came of them."""

    def __init__(self, house: House) -> None:
        self.house, self.answers, self.wanted = house, Counter[str](), 0

    async def post(self, key: str, letter: Letter) -> None:
        """Also when the queue is full: then it waits for the role."""
        queue = self.house.bus.queues[key].deliveries
        self.wanted += letter.answered
        await queue.put(_Delivery(letter.body, math.inf, self._reply if letter.answered else None))

    async def _reply(self, body: bytes) -> None:
        answer = json.loads(body)
        self.answers[answer["failure"]["code"] if "failure" in answer else "result"] += 1

    @property
    def idle(self) -> bool:
        return all(queue.deliveries.empty() for queue in self.house.bus.queues.values())


def forgers(house: House, rng: Random) -> dict[str, Forger]:
    """One for each queue of the live roles."""
    return {
        key: Forger([route.message for route in role.routes], rng)
        for role in (house.controller, house.compute, house.network_role, house.scheduler)
        for key in (role.topic, f"{role.topic}.{role.host}")
    }


async def measured(house: House) -> dict[str, float]:
    """What an operator sees: the counts in /healthz and in /metrics."""
    health = await house.ask("GET", "/healthz", status=200)
    async with house.http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    (line,) = [line for line in lines if line.startswith("launcher_bus_dead_letters ")]
    return {"healthz": health["dead_letters"], "metrics": float(line.split()[1])}


@pytest.mark.filterwarnings("ignore:__int__ returned non-int:DeprecationWarning")  # `ipaddress` takes true for a number
async def test_ten_thousand_malformed_messages_are_all_accounted_for(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "launcher")
    tracemalloc.start()
    rng, poster = Random(SEED), Poster(house)
    by_key = forgers(house, rng)
    letters = [(key, by_key[key].spoilt()) for key in rng.choices(list(by_key), k=SPOILT)]
    gc.collect()
    tasks, before = len(asyncio.all_tasks()), _memory()
    for key, letter in letters:
        await poster.post(key, letter)
    dead = house.bus.dead
    await until(lambda: poster.idle and dead.count + poster.answers.total() >= SPOILT)
    assert dead.count + poster.answers.total() == SPOILT
    assert set(poster.answers) == {"bad_message", "unknown_method"}
    assert len(dead.newest) == KEPT
    assert await measured(house) == {"healthz": dead.count, "metrics": dead.count}
    assert caplog.records == []
    gc.collect()
    assert _memory() - before < ROOM
    await until(lambda: len(asyncio.all_tasks()) <= tasks + 5)  # the connection of the client, its timers
    made = await house.launch()
    await house.until(made["id"], "ACTIVE")
    await house.ask("DELETE", f"/instances/{made['id']}", status=202)
    await house.until(made["id"], "DELETED")
    assert house.leftovers() == []


async def test_messages_about_nothing_are_answered_and_change_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "launcher")
    async with House(tmp_path, cidr=IPv4Network("10.0.0.0/16")).open() as house:
        rng, poster = Random(SEED), Poster(house)
        by_key = forgers(house, rng)
        for key in rng.choices(list(by_key), k=STRANGE):
            await poster.post(key, by_key[key].strange())
        await until(lambda: poster.idle and poster.answers.total() >= poster.wanted)
        assert poster.answers.total() == poster.wanted > STRANGE / 3
        assert "remote_error" not in poster.answers
        assert house.bus.dead.count == 0
        assert [record.getMessage() for record in caplog.records] == []
        made = await house.launch()
        await house.until(made["id"], "ACTIVE")
        assert [each["id"] for each in (await house.ask("GET", "/instances"))["instances"]] == [made["id"]]
        assert list(house.virt.domains) == [made["id"]]


async def test_a_malformed_notice_is_a_dead_letter_of_every_listener(house: House) -> None:
    rng = Random(SEED)
    listeners = house.bus.listeners["hosts"]
    forger = Forger([HostHeartbeat], rng)
    for _ in range(500):
        for listener in listeners:
            house.bus._deliver("notice.hosts", listener, _Delivery(forger.spoilt().body, math.inf))
    assert house.bus.dead.count == 500 * len(listeners) == 1000
    made = await house.launch()
    await house.until(made["id"], "ACTIVE")


async def test_a_huge_letter_is_kept_in_part_and_complained_of_briefly(house: House) -> None:
    args = ",".join(f'"surprise\\n{number}":1' for number in range(20_000))
    body = f'{{"method":"ping","args":{{{args}}},"context":{{}},"sent_ms":0,"deadline_ms":null}}'.encode()
    house.bus.queues["controller"].deliveries.put_nowait(_Delivery(body.replace(b'"context":{}', CONTEXT), math.inf))
    await until(lambda: house.bus.dead.count == 1)
    (letter,) = house.bus.dead.newest
    assert body.startswith(letter.body[:1000])
    assert len(letter.body) == 65536
    assert len(letter.reason) < 1000
    assert letter.reason.isprintable()
    assert "surprise" in letter.reason


CONTEXT = b'"context":{"request_id":"r","project_id":"p","user_id":"u","trace_id":"t"}'


def _memory() -> int:
    return tracemalloc.get_traced_memory()[0]
