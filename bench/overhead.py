"""What the launcher adds to a launch: POST until active, against bare libvirt doing overlay and createXML.

Both sides alternate on one machine with one stopwatch. `over_ms` is the median difference of two single launches that
followed each other, each ended before the next; `ratio10` the quotient of the medians of ten launches in a row that
all stay up.
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

SINGLES, ROUNDS, ROW = 21, 3, 10
BARE, OURS = "libvirt, one launch", "launcher, one launch"
BARE_ROW, OUR_ROW = "libvirt, ten in a row", "launcher, ten in a row"
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
        self.times[BARE].append(await self.bare.launch() * 1000)
        await self.bare.destroy()
        instance_id, seconds = await self.client.launch(key_name="bench")
        self.times[OURS].append(seconds * 1000)
        await self._read_trace(instance_id, seconds * 1000)
        await self.client.delete(instance_id)

    async def row(self) -> None:
        begun = time.perf_counter()
        for _ in range(ROW):
            await self.bare.launch()
        self.times[BARE_ROW].append((time.perf_counter() - begun) * 1000)
        await self.bare.destroy()
        begun = time.perf_counter()
        launched = [(await self.client.launch(key_name="bench"))[0] for _ in range(ROW)]
        self.times[OUR_ROW].append((time.perf_counter() - begun) * 1000)
        await self.client.delete(*launched)

    async def _read_trace(self, instance_id: str, total: float) -> None:
        spans = await self.client.trace(instance_id, "spawning")
        took = {span["name"]: span["end_ms"] - span["start_ms"] for span in spans if span["kind"] == "step"}
        for step in STEPS:
            self.trace[step].append(took[step])
        self.trace["between and around the steps"].append(total - sum(took.values()))


async def main() -> None:
    async with (
        servers.serving(*servers.REAL, sandbox=True) as server,
        Bare.open() as floor,
        Client.open(server) as user,
    ):
        await user.request("POST", "/keypairs", {"name": "bench"})
        await Race(user, floor).single()  # the first copies the image and fills caches
        race = Race(user, floor)
        for _ in range(SINGLES):
            await race.single()
        for _ in range(ROUNDS):
            await race.row()
    tables.show("milliseconds from the request to the started domain", race.times)
    tables.show("where they go in a single launch, by its own trace", race.trace)
    pairs = zip(race.times[BARE], race.times[OURS], strict=True)
    tables.finish(
        "overhead",
        over_ms=statistics.median(ours - bare for bare, ours in pairs),
        ratio10=statistics.median(race.times[OUR_ROW]) / statistics.median(race.times[BARE_ROW]),
    )


if __name__ == "__main__":
    asyncio.run(main())
