"""Key pairs: made here and handed out once, or imported."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence

from launcher.clock import Clock
from launcher.db import key_pairs, limits
from launcher.db.database import Database
from launcher.errors import QuotaExceeded
from launcher.messages.key_pairs import CreateKeyPair, DeleteKeyPair, ListKeyPairs
from launcher.messaging import Context, Route
from launcher.models import CreatedKeyPair, KeyPair, Quotas


class KeyPairs:
    """Of the asking project."""

    def __init__(self, *, db: Database, clock: Clock, quotas: Quotas) -> None:
        self.db, self.clock, self.quotas = db, clock, quotas

    @property
    def routes(self) -> Sequence[Route]:
        return [
            CreateKeyPair.to(self.create_key_pair),
            ListKeyPairs.to(self.list_key_pairs),
            DeleteKeyPair.to(self.delete_key_pair),
        ]

    async def create_key_pair(self, ctx: Context, message: CreateKeyPair) -> CreatedKeyPair:
        pair, private_key = await asyncio.to_thread(_take_in, message)
        pair = pair.model_copy(update={"created_ms": int(self.clock.now_ms())})

        def work(db: sqlite3.Connection) -> None:
            most = limits.get(db, ctx.project_id, self.quotas).key_pairs
            if len(key_pairs.list_all(db, ctx.project_id)) >= most:
                raise QuotaExceeded(f"quota of key pairs exceeded: {most} are allowed")
            key_pairs.create(db, ctx.project_id, pair)

        await self.db.write(work)
        return CreatedKeyPair(key_pair=pair, private_key=private_key)

    async def list_key_pairs(self, ctx: Context, message: ListKeyPairs) -> list[KeyPair]:
        """Those of an older database have EC2's fingerprint as if they had been imported."""
        found = await self.db.read(lambda db: key_pairs.list_all(db, ctx.project_id))
        return [pair if pair.ec2_fingerprint else await asyncio.to_thread(_marked, pair) for pair in found]

    async def delete_key_pair(self, ctx: Context, message: DeleteKeyPair) -> None:
        await self.db.write(lambda db: key_pairs.delete(db, ctx.project_id, message.name))


def _take_in(message: CreateKeyPair) -> tuple[KeyPair, str | None]:
    """Parsed; with the private key, if it was made here."""
    from launcher.services.controller import ssh_keys  # noqa: PLC0415 - OpenSSL takes 7 MiB until the first key

    if message.public_key is not None:
        return ssh_keys.parse(message.name, message.public_key), None
    private_key, public_key, mark = ssh_keys.generate(message.name, message.type)
    pair = ssh_keys.parse(message.name, public_key)
    return (pair.model_copy(update={"ec2_fingerprint": mark}) if mark else pair), private_key


def _marked(pair: KeyPair) -> KeyPair:
    from launcher.services.controller import ssh_keys  # noqa: PLC0415 - as above

    return pair.model_copy(update={"ec2_fingerprint": ssh_keys.ec2_fingerprint(pair.public_key)})
