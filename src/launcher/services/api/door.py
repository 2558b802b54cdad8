"""Where connections come in: TLS, how many there may be, and an end to those who open one and say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web

from launcher.errors import BadRequest

BACKLOG = 1024


@dataclass(frozen=True)
class DoorRules:
    """Seconds: `head` for a new connection to bring its first request's head, `idle` between requests, `unread` for a
    client that takes no more of an answer. More than `connections` at a time are shut at once.
    """

    tls: ssl.SSLContext | None = None
    connections: int = 1000
    head: float = 10.0
    idle: float = 30.0
    unread: float = 30.0
    shutdown: float = 5.0


def tls_context(certificate: str, key: str) -> ssl.SSLContext | None:
    """For files in PEM; None without. Raises BadRequest that names them."""
    if not certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise BadRequest(
            f"[api] tls_certificate {certificate}, tls_key {key}: {error.strerror or error}",
            hint="both are files in PEM, and the key is the certificate's",
        ) from None
    return context


class Door:
    """Serves an application at a listening socket, of which the parent process holds another end."""

    def __init__(self, rules: DoorRules) -> None:
        self.rules = rules
        self.silent: dict[asyncio.Protocol, asyncio.TimerHandle] = {}

    @contextlib.asynccontextmanager
    async def open(self, application: web.Application, listener: socket.socket) -> AsyncIterator[None]:
        rules = self.rules
        runner = web.AppRunner(
            application, access_log=None, keepalive_timeout=rules.idle, shutdown_timeout=rules.shutdown
        )
        await runner.setup()
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(rules.unread * 1000))
        loop, other_end = asyncio.get_running_loop(), listener.dup()
        try:
            server = await loop.create_server(
                lambda: self._connection(runner),
                sock=listener,
                ssl=rules.tls,
                ssl_handshake_timeout=rules.head if rules.tls else None,
                backlog=BACKLOG,
            )
            yield
            server.close()
            with contextlib.suppress(OSError):  # closing is not enough: the parent would let callers wait
                other_end.shutdown(socket.SHUT_RDWR)
        finally:
            other_end.close()
            await runner.cleanup()

    def heard(self, connection: asyncio.Protocol) -> None:
        """It has brought a request."""
        if timer := self.silent.pop(connection, None):
            timer.cancel()

    def _connection(self, runner: web.AppRunner) -> asyncio.Protocol:
        assert runner.server
        if len(runner.server.connections) >= self.rules.connections:
            return _Shut()
        connection = runner.server()
        self.silent[connection] = asyncio.get_running_loop().call_later(self.rules.head, self._cut, connection)
        return connection

    def _cut(self, connection: web.RequestHandler) -> None:
        del self.silent[connection]
        if connection.transport is not None:
            connection.transport.abort()


class _Shut(asyncio.Protocol):
    """One too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
