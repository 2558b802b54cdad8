"""nft's transactions through a kept worker process, and the number that the kernel gives each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launcher.drivers import process
from launcher.errors import ProgramFailed

WORKER = Path(__file__).with_name("nft_worker.py")
_NETLINK_NETFILTER = 12
_GET_GENERATION = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_NLM_F_REQUEST, _GENERATION_ID = 1, 1
_SAID = 2000


class Nft:
    """The worker is started when it is first needed, and again after it has died. One request at a time."""

    def __init__(self, *, timeout: float = 30.0) -> None:
        self._timeout = timeout
        self._running = contextlib.AsyncExitStack()
        self._process: Process | None = None
        self._kernel: socket.socket | None = None
        self._lock = asyncio.Lock()

    async def run(self, commands: str, *, terse: bool = False) -> str:
        """One transaction: all of it or nothing. Raises ProgramFailed with nft's words. `terse` lists no elements."""
        async with self._lock:
            try:
                async with asyncio.timeout(self._timeout):
                    code, output, error = await self._ask(commands.encode(), terse)
            except BaseException as cut:
                await self._end()  # what it has not answered yet must not be taken for the next answer
                if isinstance(cut, TimeoutError):
                    raise ProgramFailed(f"nft: no answer in {self._timeout:g} s") from None
                if isinstance(cut, OSError | asyncio.IncompleteReadError):
                    raise ProgramFailed("nft: its worker died") from cut
                raise
        if code:
            raise ProgramFailed(f"nft: {error.decode(errors='replace').strip()[-_SAID:]}")
        return output.decode()

    async def list_tables(self, name: str, *, terse: bool = False) -> list[dict[str, Any]]:
        """What `nft -j list table` shows of the tables with this name, in whichever families there are some."""
        found = []
        for entry in json.loads(await self.run("list tables"))["nftables"]:
            if entry.get("table", {}).get("name") == name:
                listing = await self.run(f"list table {entry['table']['family']} {name}", terse=terse)
                found += json.loads(listing)["nftables"]
        return found

    def generation(self) -> int:
        """The number of this network namespace's last transaction, whoever's. Raises OSError without nftables.

        By one socket for all: before it closes one the kernel finishes everybody's transactions, for milliseconds.
        """
        if self._kernel is None:
            self._kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            self._kernel.settimeout(5.0)
        self._kernel.send(struct.pack("=IHHIIBBH", 20, _GET_GENERATION, _NLM_F_REQUEST, 0, 0, 0, 0, 0))
        return _attribute(self._kernel.recv(4096)[20:], _GENERATION_ID)

    async def stop(self) -> None:
        async with self._lock:
            await self._end()
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    async def _ask(self, commands: bytes, terse: bool) -> tuple[int, bytes, bytes]:
        if self._process is None:
            argv: Sequence[str | Path] = (sys.executable, "-I", "-S", WORKER)
            worker = process.spawn(argv, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
            self._process = await self._running.enter_async_context(worker)
        writing, reading = self._process.stdin, self._process.stdout
        assert writing is not None
        assert reading is not None
        writing.write(b"%d %d\n%b" % (len(commands), terse, commands))
        await writing.drain()
        head = await reading.readuntil(b"\n")
        code, output, error = map(int, head.split())
        return code, await reading.readexactly(output), await reading.readexactly(error)

    async def _end(self) -> None:
        self._process = None
        await self._running.aclose()


def _attribute(attributes: bytes, wanted: int) -> int:
    """A big-endian number among netlink attributes; each is padded to four bytes."""
    while len(attributes) >= 8:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind == wanted:
            return int.from_bytes(attributes[4:8])
        attributes = attributes[(length + 3) & ~3 or 4 :]
    raise OSError("the kernel has no nftables")
