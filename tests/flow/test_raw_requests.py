"""Requests that no client library would send: each gets an answer of HTTP's, none of them the server's own fault."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from random import Random
from urllib.parse import quote_from_bytes

import pytest

from tests.flow.house import TOKEN, House
from tests.malformed import NASTY, OTHERS

SEED, REQUESTS = 20120805, 1500
PATHS = (
    "/instances",
    "/instances/web",
    "/keypairs",
    "/events?follow=false",
    "/images/x",
    "/gc",
)
HEADERS = ("traceparent", "Idempotency-Key", "Last-Event-ID", "Content-Type", "Content-Encoding", "Accept", "Range")
QUERIES = ("limit", "marker", "name", "status", "host", "all_projects", "deleted", "after", "instance_id", "bytes", "x")
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


class Scribe:
    """Writes a request of odd parts; the rest of it is in order, so that it comes far."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    def request(self) -> bytes:
        method, path = self.rng.choice(("GET", "POST", "DELETE")), self.rng.choice(PATHS)
        body = self.body() if method == "POST" else b""
        lines = [f"{method} {path}{self.query(path)} HTTP/1.1".encode(), b"Host: x", b"Connection: close"]
        lines += [
            f"Authorization: Bearer {TOKEN}".encode() if self.rng.random() < 0.9 else b"Authorization: " + self.odd()
        ]
        lines += [b"Content-Length: %d" % len(body)]
        lines += [name.encode() + b": " + self.odd() for name in self.rng.sample(HEADERS, self.rng.choice((0, 1, 2)))]
        return b"\r\n".join((*lines, b"", body))

    def odd(self) -> bytes:
        """A value that fits on the line of a header, mostly."""
        kinds = (
            self.rng.choice(NASTY).replace("\n", "").replace("\x00", "").encode(errors="replace"),
            bytes(self.rng.choices(range(128, 256), k=5)),
            str(self.rng.choice(OTHERS)).encode()[:2000],
            TRACE.encode(),
            self.rng.choice((b"gzip", b"text/xml")),
        )
        return self.rng.choice(kinds)

    def query(self, path: str) -> str:
        pairs = (
            f"{self.rng.choice(QUERIES)}={quote_from_bytes(self.odd())}" for _ in range(self.rng.choice((0, 1, 2)))
        )
        words = "&".join(pairs)
        return words and ("&" if "?" in path else "?") + words

    def body(self) -> bytes:
        good = {"image": "ami-tiny", "flavor": "m1.tiny", "name": "web", "user_data": "AA==", "metadata": {"a": "b"}}
        for name in self.rng.sample(
            [*good, "count", "key_name", "security_groups", "rules"], self.rng.choice((0, 1, 1, 2))
        ):
            good[name] = self.rng.choice((*NASTY, *OTHERS))
        whole = json.dumps(good).encode()
        return self.rng.choice((whole, whole, whole[: self.rng.randrange(len(whole))], self.rng.randbytes(20), b""))


async def answered(house: House, request: bytes) -> int:
    """The status of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(house.url.rsplit(":", 1)[1]))
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            line = await reader.readline()
    finally:
        writer.close()
    assert line.startswith(b"HTTP/1."), request
    status = int(line.split()[1])
    assert status < 500, request
    return status


async def test_whatever_arrives_is_answered_and_never_the_servers_fault(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "aiohttp.server")
    scribe, seen = Scribe(Random(SEED)), Counter[int]()
    for _ in range(REQUESTS // 10):
        seen.update(await asyncio.gather(*(answered(house, scribe.request()) for _ in range(10))))
    assert seen.total() == REQUESTS
    assert {200, 202, 400, 401, 404} <= set(seen)
    assert house.bus.dead.count == 0
    made = await house.launch(name="after")
    await house.until(made["id"], "ACTIVE")
