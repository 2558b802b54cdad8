"""Doors for guests whose addresses others have, too: their gateways are in network namespaces, and each has a door."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Protocol

log = logging.getLogger(__name__)

Serve = Callable[[socket.socket, str], AbstractAsyncContextManager[None]]


class Rooms(Protocol):
    """The namespaces of this host's gateways, by the names of their bridges."""

    def list_all(self) -> Mapping[str, int]:
        """Their names, and what tells each from another that had the name before."""

    def open(self, name: str, kind: socket.SocketKind) -> socket.socket:
        """A socket in there. Raises OSError when there is none of that name."""


class NoRooms:
    """Where no network has another one's addresses."""

    def list_all(self) -> Mapping[str, int]:
        return {}

    def open(self, name: str, kind: socket.SocketKind) -> socket.socket:
        raise OSError(f"there is no namespace {name}")


class RoomDoors:
    """One at `port` of each room while it is there; `look` opens and closes them."""

    def __init__(self, rooms: Rooms, *, port: int, serve: Serve) -> None:
        self.rooms, self.port, self.serve = rooms, port, serve
        self.doors: dict[tuple[str, int], AsyncExitStack] = {}

    async def look(self) -> None:
        present = set(self.rooms.list_all().items())
        for gone in self.doors.keys() - present:
            await self.doors.pop(gone).aclose()
        for room in sorted(present - self.doors.keys()):
            try:
                self.doors[room] = await self._open(room[0])
            except OSError as error:
                log.warning("guests on %s get no metadata: %s", room[0], error)

    async def close(self) -> None:
        for door in self.doors.values():
            await door.aclose()
        self.doors.clear()

    async def _open(self, name: str) -> AsyncExitStack:
        async with AsyncExitStack() as door:
            listener = door.enter_context(contextlib.closing(self.rooms.open(name, socket.SOCK_STREAM)))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("0.0.0.0", self.port))  # noqa: S104 - its filter lets in nobody but guests
            await door.enter_async_context(self.serve(listener, name))
            return door.pop_all()
