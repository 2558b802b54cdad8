"""How fast the EC2 dialect answers: RunInstances and DescribeInstances, as boto3 makes and signs them.

boto3 makes the requests, one for each (a signature is a request's own); an HTTP client sends them over 32 connections,
because boto3 itself takes longer than the server. Fake drivers. The server checks every signature.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config

from bench import processes, servers, tables
from bench.api import fill
from bench.client import Client, Refused
from bench.servers import Server

CONNECTIONS, RUNS, DESCRIBES, INSTANCES, ONES = 32, 640, 20, 1000, 640
RUN = {"ImageId": "ami-tiny", "InstanceType": "m1.tiny", "MinCount": 1, "MaxCount": 1}
EMPTY = b"<a/>"


class Maker:
    """boto3, of which nothing leaves this process: what it would have sent is kept."""

    def __init__(self, server: Server) -> None:
        known = json.loads((server.state / "admin.json").read_text())
        self.made: list[AWSPreparedRequest] = []
        self.ec2 = boto3.client(
            "ec2",
            endpoint_url=server.url,
            region_name=known["region"],
            aws_access_key_id=known["access_key"],
            aws_secret_access_key=known["secret_key"],
            config=Config(retries={"total_max_attempts": 1}),
        )
        self.ec2.meta.events.register("before-send.ec2.*", self._keep)

    def _keep(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        self.made.append(request)
        response = AWSResponse(request.url, 200, {}, None)
        response._content = EMPTY
        return response

    def make(self, count: int, ask: Callable[[Any], Any]) -> Sequence[AWSPreparedRequest]:
        self.made = []
        for _ in range(count):
            ask(self.ec2)
        return self.made


async def send(http: aiohttp.ClientSession, request: AWSPreparedRequest) -> float:
    """Milliseconds to the whole answer."""
    headers = {name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()}
    begun = time.perf_counter()
    async with http.request(request.method, request.url, data=request.body, headers=headers) as answer:
        content = await answer.read()
    if answer.status != 200:
        raise Refused(content.decode())
    return (time.perf_counter() - begun) * 1000


async def send_all(http: aiohttp.ClientSession, requests: Sequence[AWSPreparedRequest]) -> tuple[float, list[float]]:
    """Requests a second over all connections, and the milliseconds of each."""
    left, times = iter(requests), list[float]()

    async def work() -> None:
        for request in left:
            times.append(await send(http, request))

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return len(requests) / (time.perf_counter() - begun), sorted(times)


async def main() -> None:
    async with (
        servers.serving(*servers.FAKE, *servers.ROOMY) as server,
        Client.open(server) as client,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as http,
    ):
        maker = Maker(server)
        rows: dict[str, list[float]] = {}
        rates: dict[str, float] = {}

        async def measure(name: str, requests: Sequence[AWSPreparedRequest]) -> None:
            rates[name], rows[name] = await send_all(http, requests)

        await fill(client, INSTANCES)
        everything = await asyncio.to_thread(maker.make, DESCRIBES, lambda ec2: ec2.describe_instances())
        await send(http, everything[0])
        before, alone = processes.cpu_ms(server.pid), list[float]()
        for request in everything[1:]:
            alone.append(await send(http, request))
        describe_cpu = (processes.cpu_ms(server.pid) - before) / len(alone)
        rows[f"DescribeInstances of {INSTANCES}, one at a time"] = alone
        one = await asyncio.to_thread(maker.make, ONES, lambda ec2: ec2.describe_instances(InstanceIds=["i-00000001"]))
        await measure("DescribeInstances of one", one)
        await measure("RunInstances", await asyncio.to_thread(maker.make, RUNS, lambda ec2: ec2.run_instances(**RUN)))
    tables.show(f"milliseconds to the whole answer; {CONNECTIONS} connections where several", rows)
    for name, rate in rates.items():
        print(f"{name}: {rate:.0f} a second, p99 {rows[name][len(rows[name]) * 99 // 100]:.0f} ms")
    tables.finish("ec2", run_per_s=rates["RunInstances"], describe1000_ms=describe_cpu)


if __name__ == "__main__":
    asyncio.run(main())
