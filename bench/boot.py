"""POST until a real login: OpenSSH runs `true` in the guest with its key, through the API's tunnel.

The client knocks on port 22 as `launcher ssh` does and starts OpenSSH when the guest's server greets.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import aiohttp

from bench import servers, tables
from bench.client import Client
from bench.servers import Server
from launcher.cli.login import write_key

BOOTS, PATIENCE, KNOCK_EVERY = 7, 60.0, 0.05
KEY = "bench"


async def greeted(client: Client, instance_id: str) -> float:
    """When the guest's SSH server said its first words."""
    while True:
        with suppress(aiohttp.ClientError):
            async with client.session.ws_connect(f"/instances/{instance_id}/tcp/22") as tunnel:
                if (await tunnel.receive()).data:
                    return time.perf_counter()
        await asyncio.sleep(KNOCK_EVERY)


async def log_in(server: Server, instance_id: str, key: Path) -> None:
    """As `launcher ssh` does it, with nothing of this user's own files."""
    proxy = f"{sys.executable} -m launcher.cli.websocket {instance_id}/22"
    settings = {
        "ProxyCommand": proxy,
        "IdentityFile": str(key),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "no",
        "BatchMode": "yes",
        "LogLevel": "ERROR",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    environment = {**servers.ENVIRONMENT, "LAUNCHER_STATE": str(server.state)}
    ssh = await asyncio.create_subprocess_exec(
        "ssh", "-F", "none", *options, "-l", "root", instance_id, "true", env=environment
    )
    if await ssh.wait():
        raise RuntimeError(f"ssh to {instance_id} ended with {ssh.returncode}")


async def boot(server: Server, client: Client, key: Path) -> dict[str, float]:
    """Seconds from the POST to each stage."""
    begun = time.perf_counter()
    instance_id = await client.post(key_name=KEY)
    stages = {"active": await client.reached(instance_id, "active") - begun}
    async with asyncio.timeout(PATIENCE):
        stages["first words of the SSH server"] = await greeted(client, instance_id) - begun
        await log_in(server, instance_id, key)
    stages["`true` has run by ssh"] = time.perf_counter() - begun
    await client.delete(instance_id)
    return stages


async def make_key(client: Client, path: Path) -> None:
    made = json.loads(await client.request("POST", "/keypairs", {"name": KEY}))
    await asyncio.to_thread(write_key, path, made["private_key"])


async def main() -> None:
    times: defaultdict[str, list[float]] = defaultdict(list)
    async with servers.serving(*servers.REAL, sandbox=True) as server, Client.open(server) as client:
        key = server.state / "bench.pem"
        await make_key(client, key)
        await boot(server, client, key)  # the first copies the image and fills caches
        for _ in range(BOOTS):
            for stage, seconds in (await boot(server, client, key)).items():
                times[stage].append(seconds)
    tables.show("seconds from the request", times, digits=2)
    tables.finish("boot", ssh_s=statistics.median(times["`true` has run by ssh"]))


if __name__ == "__main__":
    asyncio.run(main())
