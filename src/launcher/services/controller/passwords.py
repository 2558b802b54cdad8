"""Passwords as scrypt hashes (RFC 7914) that carry their parameters, so that these can be raised one day."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator

from launcher.errors import TooManyRequests

R = 8
AT_ONCE, WAITING = 2, 40
MEMORY = 128 * 1024 * 1024


class Passwords:
    """Hashing takes `AT_ONCE` threads at most, about 0.2 s of a core each; who comes later waits.

    The cost is one of OWASP's, for 16 MiB of memory: N = 2^14, r = 8, p = 5.
    """

    def __init__(self, *, log_n: int = 14, p: int = 5) -> None:
        self.log_n, self.p = log_n, p
        self.waiting = 0
        self.turns = asyncio.Semaphore(AT_ONCE)

    async def hash(self, password: str) -> str:
        """`scrypt$log n$p$salt$hash`."""
        async with self._turn():
            return await asyncio.to_thread(
                self._hash_now, password, salt=secrets.token_bytes(16), log_n=self.log_n, p=self.p
            )

    async def match(self, password: str, hashed: str | None) -> bool:
        """Takes as long as making the hash, also without one."""
        if hashed is None:
            await self.hash(password)
            return False
        _, log_n, p, salt, _ = hashed.split("$")
        async with self._turn():
            again = await asyncio.to_thread(
                self._hash_now, password, salt=base64.b64decode(salt), log_n=int(log_n), p=int(p)
            )
        return hmac.compare_digest(again, hashed)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self.waiting >= WAITING:
            raise TooManyRequests("too many passwords are being checked", hint="try again in a few seconds")
        self.waiting += 1
        try:
            async with self.turns:
                yield
        finally:
            self.waiting -= 1

    @staticmethod
    def _hash_now(password: str, *, salt: bytes, log_n: int, p: int) -> str:
        digest = hashlib.scrypt(password.encode(), salt=salt, n=1 << log_n, r=R, p=p, maxmem=MEMORY, dklen=32)
        words = (base64.b64encode(part).decode() for part in (salt, digest))
        return f"scrypt${log_n}${p}${'$'.join(words)}"
