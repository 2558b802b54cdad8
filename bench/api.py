"""How fast the API answers: POST /instances one at a time, and a list of a thousand instances.

Fake drivers, one kept connection, nothing else to do: each launch has ended before the next POST.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import defaultdict

from bench import servers, tables
from bench.client import Client

POSTS, LISTS, INSTANCES, WARM_UP = 200, 30, 1000, 20
POST, ONE, ALL = "POST /instances", "GET /instances/ID", f"GET /instances?limit={INSTANCES}"


class Stopwatch:
    """Milliseconds per kind of request."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.times: defaultdict[str, list[float]] = defaultdict(list)

    async def post(self) -> None:
        begun = time.perf_counter()
        instance_id = await self.client.post()
        self.times[POST].append((time.perf_counter() - begun) * 1000)
        await self.client.reached(instance_id, "active")

    async def get(self, what: str, path: str) -> int:
        """The size of the answer in bytes."""
        begun = time.perf_counter()
        answer = await self.client.request("GET", path)
        self.times[what].append((time.perf_counter() - begun) * 1000)
        return len(answer)


async def main() -> None:
    async with servers.serving(*servers.FAKE, *servers.ROOMY) as server, Client.open(server) as client:
        for _ in range(WARM_UP):
            await client.launch()
        watch = Stopwatch(client)
        for _ in range(POSTS):
            await watch.post()
        one = await client.post()
        await fill(client, INSTANCES - WARM_UP - POSTS - 1)
        for _ in range(LISTS):
            await watch.get(ONE, f"/instances/{one}")
            size = await watch.get(ALL, f"/instances?limit={INSTANCES}")
        tables.show(f"milliseconds to the whole answer; {INSTANCES} instances are {size // 1024} KiB", watch.times)
        post, listed = (statistics.median(watch.times[name]) for name in (POST, ALL))
        tables.finish("api", post_ms=post, list1000_ms=listed)


async def fill(client: Client, count: int) -> None:
    """So many more instances, active."""
    await asyncio.gather(*(client.launch() for _ in range(count)))


if __name__ == "__main__":
    asyncio.run(main())
