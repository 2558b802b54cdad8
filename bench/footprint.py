"""What an idle launcher costs: memory and CPU of the real server, and the time to load it and its command line."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from bench import processes, servers, tables
from bench.servers import Server

WINDOWS, WINDOW_S, STARTS = 4, 10.0, 9
IMPORT = "import time; begun = time.perf_counter(); import launcher.app; print((time.perf_counter() - begun) * 1000)"


def show_memory(server: Server) -> float:
    """A line per process of the family; the server's RSS in MiB."""
    print(f"\nMiB of each process\n{'':<44}{'RSS':>10}{'PSS':>10}")
    for pid in (*server.parents, *processes.descendants(server.parents[-1])):
        role = "server" if pid == server.pid else "parent" if pid in server.parents else processes.command(pid)[0]
        print("{:<44}{:>10.1f}{:>10.1f}".format(role, *processes.memory_mb(pid)))
    return processes.memory_mb(server.pid)[0]


async def idle_cpu(pid: int) -> list[float]:
    """Percent of one core, window by window."""
    shares = []
    for _ in range(WINDOWS):
        begun, before = time.perf_counter(), processes.cpu_ms(pid)
        await asyncio.sleep(WINDOW_S)
        shares.append((processes.cpu_ms(pid) - before) / ((time.perf_counter() - begun) * 10))
    return shares


async def output_of(*argv: str, state: str = "") -> tuple[bytes, float]:
    """What a program prints, and the milliseconds from its start to its end."""
    environment = {**servers.ENVIRONMENT, "LAUNCHER_STATE": state}
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, env=environment)
    printed, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {process.returncode}")
    return printed, (time.perf_counter() - begun) * 1000


async def starts(server: Server) -> dict[str, list[float]]:
    """Milliseconds of short-lived processes."""
    times: dict[str, list[float]] = {"import launcher.app, fresh interpreter": [], "launcher list, wall time": []}
    imports, lists = times.values()
    for _ in range(STARTS):
        imports.append(float((await output_of(sys.executable, "-c", IMPORT))[0]))
        lists.append((await output_of(str(servers.PROGRAM), "list", state=str(server.state)))[1])
    return times


async def main() -> None:
    await output_of(sys.executable, "-c", IMPORT)  # compiles all modules
    async with servers.serving(*servers.REAL, sandbox=True) as server:
        shares = await idle_cpu(server.pid)
        rss = show_memory(server)
        times = await starts(server)
    tables.show(f"CPU of the idle server, percent of a core over {WINDOW_S:g} s", {"server": shares}, digits=2)
    tables.show("milliseconds", times)
    import_ms, cli_ms = (statistics.median(samples) for samples in times.values())
    tables.finish("footprint", rss_mb=rss, idle_cpu_pct=statistics.fmean(shares), import_ms=import_ms, cli_ms=cli_ms)


if __name__ == "__main__":
    asyncio.run(main())
