"""One user of a launcher: requests over kept connections, and the event log followed all the while."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from tests.waiting import eventually

from bench.servers import Server

Json = dict[str, Any]
PATIENCE = 60.0


class Refused(Exception):
    """The server's answer was no success, or a launch ended in error."""


class Client:
    """`open` one; instances reach a state when its event arrives, in seconds of time.perf_counter."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self._arrivals: defaultdict[tuple[str, str], asyncio.Future[float]] = defaultdict(
            asyncio.get_running_loop().create_future
        )

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, server: Server) -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {server.token}"}
        async with aiohttp.ClientSession(server.url, headers=headers) as session:
            client = cls(session)
            following = asyncio.create_task(client._follow())
            try:
                yield client
            finally:
                following.cancel()
                await asyncio.wait([following])

    async def request(self, method: str, path: str, body: Json | None = None) -> bytes:
        async with self.session.request(method, path, json=body) as answer:
            content = await answer.read()
        if answer.status >= 400:
            raise Refused(f"{method} {path}: {answer.status} {content.decode(errors='replace')}")
        return content

    async def post(self, **more: Any) -> str:
        """POST /instances for one m1.tiny; its id."""
        body = {"image": "ami-tiny", "flavor": "m1.tiny", **more}
        return str(json.loads(await self.request("POST", "/instances", body))["instances"][0]["id"])

    async def reached(self, instance_id: str, state: str) -> float:
        """When the event of this state arrived; it may have done so already. Raises Refused when it ended in error."""
        good, bad = self._arrivals[instance_id, state], self._arrivals[instance_id, "error"]
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait([good, bad], return_when=asyncio.FIRST_COMPLETED)
        if not good.done():
            raise Refused(f"instance {instance_id} ended in error; it should have become {state}")
        return good.result()

    async def launch(self, **more: Any) -> tuple[str, float]:
        """POST, wait until it is active; its id and the seconds it took."""
        begun = time.perf_counter()
        instance_id = await self.post(**more)
        return instance_id, await self.reached(instance_id, "active") - begun

    async def delete(self, *instance_ids: str) -> None:
        for instance_id in instance_ids:
            await self.request("DELETE", f"/instances/{instance_id}")
        for instance_id in instance_ids:
            await self.reached(instance_id, "deleted")

    async def trace(self, instance_id: str, last: str) -> list[Json]:
        """The spans of its launch, once the one called `last` is among them: spans arrive in batches."""

        async def look() -> list[Json] | None:
            spans: list[Json] = json.loads(await self.request("GET", f"/instances/{instance_id}/trace"))["spans"]
            return spans if last in {span["name"] for span in spans} else None

        found: list[Json] = await eventually(look, what=f"the span {last}")
        return found

    async def _follow(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE)
        async with self.session.get("/events", timeout=timeout) as stream:
            async for line in stream.content:
                if line.startswith(b"data:"):
                    self._note(json.loads(line[5:]))

    def _note(self, event: Json) -> None:
        if event["vm_state"] == "building":
            return
        arrival = self._arrivals[event["instance_id"], event["vm_state"]]
        if not arrival.done():
            arrival.set_result(time.perf_counter())
