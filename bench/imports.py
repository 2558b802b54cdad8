"""What an import of 500 MB costs beside cp and sha256sum, the least that it takes to have a file and know what it is.

`measure` is for bench/disks.py; alone this prints its own table.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import statistics
import time
from pathlib import Path

from bench import servers, tables

MB = 1_000_000
SIZE = 500 * MB
ROUNDS = 5


async def measure(rounds: int = ROUNDS, size: int = SIZE) -> dict[str, list[float]]:
    """MB/s of `launcher image import FILE`, gate, fsync and all, and of cp + sha256sum without one, in turns."""
    samples: dict[str, list[float]] = {"launcher image import": [], "cp, sha256sum": []}
    async with servers.directory() as made, servers.serving(*servers.FAKE) as server:
        environment = {**servers.ENVIRONMENT, "LAUNCHER_STATE": str(server.state)}
        for number in range(rounds):
            source = made / f"image-{number}"
            await asyncio.to_thread(_write, source, size)
            both = [("launcher image import", _import_words(source)), ("cp, sha256sum", _copy_words(source))]
            for name, words in both if number % 2 else reversed(both):
                await asyncio.to_thread(os.sync)
                started = time.monotonic()
                await _run(words, environment)
                samples[name].append(size / MB / (time.monotonic() - started))
            await _run([str(servers.PROGRAM), "image", "delete", source.name], environment)
            source.unlink()
            source.with_suffix(".copy").unlink()
    return samples


def ratio(samples: dict[str, list[float]]) -> float:
    """How many times as fast as cp and sha256sum; the median of the rounds."""
    both = zip(samples["launcher image import"], samples["cp, sha256sum"], strict=True)
    return statistics.median(ours / theirs for ours, theirs in both)


def _import_words(source: Path) -> list[str]:
    return [str(servers.PROGRAM), "image", "import", str(source), "--json"]


def _copy_words(source: Path) -> list[str]:
    copy = source.with_suffix(".copy")
    return ["sh", "-c", f"cp {source} {copy} && sha256sum {copy}"]


def _write(path: Path, size: int) -> None:
    """No two alike: a content that is there would not be written again."""
    seed = os.urandom(32)
    with path.open("wb") as file:
        piece = hashlib.shake_256(seed).digest(10 * MB)
        for number in range(size // len(piece)):
            file.write(number.to_bytes(8, "big") + piece[8:])


async def _run(words: list[str], environment: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{words}: {err.decode()}")
    if "import" in words:
        assert json.loads(out)["images"][0]["state"] == "active"


async def main() -> None:
    samples = await measure()
    tables.show("an image of 500 MB, MB/s", samples)
    tables.finish(
        "imports", import_mb_s=statistics.median(samples["launcher image import"]), import_ratio=ratio(samples)
    )


if __name__ == "__main__":
    asyncio.run(main())
