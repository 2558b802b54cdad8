"""Launches per second to ACTIVE with fake drivers: what the five roles, their bus and their databases can do.

Sixteen workers POST, wait for the ACTIVE event and go on; both buses alternate. Writes are durable, as always. CPU is
the server process's own, per launch; the broker's and this client's are shown beside it, since all share the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

from tests.rabbitmq import Broker

from bench import processes, servers, tables
from bench.client import Client
from bench.servers import Server

WORKERS, LAUNCHES, WARM_UP, ROUNDS = 16, 1000, 100, 3


@contextlib.asynccontextmanager
async def broker() -> AsyncIterator[Broker]:
    async with servers.directory() as made:
        node = Broker(Path(made))
        await asyncio.to_thread(node.start)
        try:
            yield node
        finally:
            await asyncio.to_thread(node.stop)


async def launch_all(client: Client, count: int) -> float:
    """Launches per second."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            await client.launch()

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(WORKERS)))
    return count / (time.perf_counter() - begun)


class Meter:
    """Counts what a bus costs, round by round."""

    def __init__(self) -> None:
        self.rates: defaultdict[str, list[float]] = defaultdict(list)
        self.cpu: defaultdict[str, list[float]] = defaultdict(list)

    async def measure(self, bus: str, server: Server, *, node: int | None) -> None:
        """A new server each time: its database is empty again."""
        payers = {"server": server.pid, "client": os.getpid(), **({"broker": node} if node else {})}
        async with Client.open(server) as client:
            await launch_all(client, WARM_UP)
            before = {name: processes.cpu_ms(pid) for name, pid in payers.items()}
            self.rates[bus].append(await launch_all(client, LAUNCHES))
            for name, pid in payers.items():
                self.cpu[f"{bus}: {name}"].append((processes.cpu_ms(pid) - before[name]) / LAUNCHES)


async def main() -> None:
    meter = Meter()
    settings = (*servers.FAKE, *servers.ROOMY)
    async with broker() as node:
        assert node.node is not None
        for _ in range(ROUNDS):
            async with servers.serving(*settings) as server:
                await meter.measure("memory", server, node=None)
            async with servers.serving(*settings, f"bus.url={node.url}") as server:
                await meter.measure("rabbitmq", server, node=node.node.pid)
    tables.show(f"launches per second, {LAUNCHES} by {WORKERS} workers", meter.rates)
    tables.show("CPU milliseconds per launch", meter.cpu, digits=2)
    tables.finish(
        "throughput",
        memory_per_s=statistics.median(meter.rates["memory"]),
        rabbitmq_per_s=statistics.median(meter.rates["rabbitmq"]),
        memory_cpu_ms=statistics.median(meter.cpu["memory: server"]),
        rabbitmq_cpu_ms=statistics.median(meter.cpu["rabbitmq: server"]),
    )


if __name__ == "__main__":
    asyncio.run(main())
