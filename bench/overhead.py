"""What the launcher adds to a launch: POST until active, against bare libvirt doing overlay and createXML.

Both sides alternate on one machine with one stopwatch. `over_ms` is the difference of the medians of single
launches, each ended before the next; `ratio10` the quotient of the medians of ten launches in a row that all stay up.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator

from bench import servers, tables
from bench.client import Client

SINGLES, ROUNDS, ROW = 15, 3, 10
STEPS = ("networking", "bridging", "imaging", "injecting", "filtering", "spawning")


class Bare:
    """The process of `floor.py`, and the time its launches take."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncIterator[Bare]:
        python = (sys.executable, "-m")
        async with servers.directory() as made:
            floor = (*python, "launcher.sandbox", *python, "bench.floor", made, servers.LIBRARY, str(ROW))
            async with servers.started(*floor, log=made / "log", pipes=True) as process:
                bare = cls(process)
                await bare._answer("ready")
                yield bare

    async def launch(self) -> float:
        """Seconds."""
        begun = time.perf_counter()
        await self._do("launch")
        return time.perf_counter() - begun

    async def destroy(self) -> None:
        await self._do("destroy")

    async def _do(self, verb: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{verb}\n".encode())
        await self._answer("done")

    async def _answer(self, expected: str) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(servers.START_PATIENCE):
            said = (await self.process.stdout.readline()).decode().strip()
        if said != expected:
            raise RuntimeError(f"bench.floor said {said!r} instead of {expected!r}")


class Race:
    """The two sides, and what was measured of them, in milliseconds."""

    def __init__(self, client: Client, bare: Bare) -> None:
        self.client, self.bare = client, bare
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self.trace: defaultdict[str, list[float]] = defaultdict(list)

    async def single(self) -> None:
        self.times["libvirt, one launch"].append(await self.bare.launch() * 1000)
        await self.bare.destroy()
        instance_id, seconds = await self.client.launch(key_name="bench")
        self.times["launcher, one launch"].append(seconds * 1000)
        await self._read_trace(instance_id, seconds * 1000)
        await self.client.delete(instance_id)

    async def row(self) -> None:
        begun = time.perf_counter()
        for _ in range(ROW):
            await self.bare.launch()
        self.times["libvirt, ten in a row"].append((time.perf_counter() - begun) * 1000)
        await self.bare.destroy()
        begun = time.perf_counter()
        launched = [(await self.client.launch(key_name="bench"))[0] for _ in range(ROW)]
        self.times["launcher, ten in a row"].append((time.perf_counter() - begun) * 1000)
        await self.client.delete(*launched)

    async def _read_trace(self, instance_id: str, total: float) -> None:
        spans = await self.client.trace(instance_id, "spawning")
        took = {span["name"]: span["end_ms"] - span["start_ms"] for span in spans if span["kind"] == "step"}
        for step in STEPS:
            self.trace[step].append(took[step])
        self.trace["between and around the steps"].append(total - sum(took.values()))


async def main() -> None:
    async with servers.serving(*servers.REAL, sandbox=True) as server, Bare.open() as bare, Client.open(server) as user:
        await user.request("POST", "/keypairs", {"name": "bench"})
        await Race(user, bare).single()  # the first copies the image and fills caches
        race = Race(user, bare)
        for _ in range(SINGLES):
            await race.single()
        for _ in range(ROUNDS):
            await race.row()
    tables.show("milliseconds from the request to the started domain", race.times)
    tables.show("where they go in a single launch, by its own trace", race.trace)
    median = {name: statistics.median(samples) for name, samples in race.times.items()}
    tables.finish(
        "overhead",
        over_ms=median["launcher, one launch"] - median["libvirt, one launch"],
        ratio10=median["launcher, ten in a row"] / median["libvirt, ten in a row"],
    )


if __name__ == "__main__":
    asyncio.run(main())
