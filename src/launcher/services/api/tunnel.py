"""/instances/{id}/tcp/{port}: a WebSocket whose binary frames are the bytes of a TCP connection to the guest.

So `launcher ssh` reaches a guest from wherever the API is reached, the sandbox's outside included.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections.abc import Callable, Coroutine
from socket import SOCK_STREAM
from typing import Any

from aiohttp import WSMsgType, web

from launcher.bus import Bus
from launcher.errors import BadRequest, Conflict, Unreachable
from launcher.life import AWAKE
from launcher.messages.instances import GetInstance
from launcher.messages.network import ListAddresses
from launcher.models import InstanceId
from launcher.services.api.endpoint import Ask
from launcher.services.api.metadata.rooms import Rooms

CONNECT_TIMEOUT, REDIAL = 5.0, 0.2
CHUNK = 65536
Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Tunnel:
    """Only to addresses that the network role leased to the caller's own instance."""

    def __init__(self, *, bus: Bus, rooms: Rooms) -> None:
        self.bus, self.rooms = bus, rooms

    async def open(self, ask: Ask) -> web.StreamResponse:
        reader, writer = await self._connect(ask)
        try:
            socket = web.WebSocketResponse(max_msg_size=1 << 20, heartbeat=30.0)
            await socket.prepare(ask.request)
            await _pump(socket, reader, writer)
            return socket
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _connect(self, ask: Ask) -> Connected:
        instance = await self.bus.call(ask.ctx, GetInstance(instance_id=ask.path["id"]))
        port = ask.path["port"]
        if not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536):
            raise BadRequest(f"{port[:20]!r} is not a port", field="port")
        if instance.vm_state not in AWAKE or not instance.addresses:
            raise Conflict(f"instance {instance.name!r} is {instance.status}", hint="wait until it is ACTIVE")
        address, room = str(instance.addresses[0]), await self._room(ask, instance.id)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await dial(functools.partial(self._open, room, address, int(port)))
        except (OSError, TimeoutError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else "no answer"
            raise Unreachable(
                f"{instance.name}: {address} port {port}: {why}", hint=f"see `launcher console {instance.name}`"
            ) from None

    async def _room(self, ask: Ask, instance_id: InstanceId) -> str | None:
        """Where the address is the instance's and not somebody else's; None where it is so on the whole host."""
        if not (rooms := self.rooms.list_all()):
            return None
        leases = await self.bus.call(ask.ctx, ListAddresses(instance_id=instance_id))
        apart = (lease.network.bridge for lease in leases[:1] if lease.network.apart)
        return next((bridge for bridge in apart if bridge in rooms), None)

    async def _open(self, room: str | None, address: str, port: int) -> Connected:
        if room is None:
            return await asyncio.open_connection(address, port)
        made = self.rooms.open(room, SOCK_STREAM)
        try:
            made.setblocking(False)
            await asyncio.get_running_loop().sock_connect(made, (address, port))
            return await asyncio.open_connection(sock=made)
        except BaseException:
            made.close()
            raise


async def dial(connect: Callable[[], Coroutine[Any, Any, Connected]]) -> Connected:
    """The first outcome, good or bad, of several attempts; one more is made every `REDIAL` seconds.

    What is sent to a guest before it has its address is lost, and TCP repeats it only after 1, 3 and 7 seconds.
    """
    attempts: list[asyncio.Task[Connected]] = []
    answered: set[asyncio.Task[Connected]] = set()
    try:
        while not answered:
            attempts.append(asyncio.create_task(connect()))
            answered, _ = await asyncio.wait(attempts, timeout=REDIAL, return_when=asyncio.FIRST_COMPLETED)
        first = answered.pop()
        attempts.remove(first)
        return first.result()
    finally:
        for attempt in attempts:
            attempt.cancel()
        for late in await asyncio.gather(*attempts, return_exceptions=True):
            if not isinstance(late, BaseException):
                late[1].close()


async def _pump(socket: web.WebSocketResponse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until either side ends."""

    async def outward() -> None:
        while data := await reader.read(CHUNK):
            await socket.send_bytes(data)
        await socket.close()

    async def inward() -> None:
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                writer.write(message.data)
                await writer.drain()

    tasks = [asyncio.ensure_future(outward()), asyncio.ensure_future(inward())]
    _, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
