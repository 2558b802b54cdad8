"""Key pairs: made here and handed out once, or imported."""

from __future__ import annotations

import base64
import binascii
import hashlib
import sqlite3
from collections.abc import Sequence

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)

from launcher.db import key_pairs, limits
from launcher.db.database import Database
from launcher.errors import BadRequest, QuotaExceeded
from launcher.messages.key_pairs import CreateKeyPair, DeleteKeyPair, ListKeyPairs
from launcher.messaging import Context, Route
from launcher.models import CreatedKeyPair, KeyPair, Quotas

KEY_TYPES = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
KEY_LIMIT = 16384


class KeyPairs:
    """Of the asking project."""

    def __init__(self, *, db: Database, quotas: Quotas) -> None:
        self.db, self.quotas = db, quotas

    @property
    def routes(self) -> Sequence[Route]:
        return [
            CreateKeyPair.to(self.create_key_pair),
            ListKeyPairs.to(self.list_key_pairs),
            DeleteKeyPair.to(self.delete_key_pair),
        ]

    async def create_key_pair(self, ctx: Context, message: CreateKeyPair) -> CreatedKeyPair:
        private_key, public_key = generate(message.name) if message.public_key is None else (None, message.public_key)
        pair = parse(message.name, public_key)

        def work(db: sqlite3.Connection) -> None:
            most = limits.get(db, ctx.project_id, self.quotas).key_pairs
            if len(key_pairs.list_all(db, ctx.project_id)) >= most:
                raise QuotaExceeded(f"quota of key pairs exceeded: {most} are allowed")
            key_pairs.create(db, ctx.project_id, pair)

        await self.db.write(work)
        return CreatedKeyPair(key_pair=pair, private_key=private_key)

    async def list_key_pairs(self, ctx: Context, message: ListKeyPairs) -> list[KeyPair]:
        return await self.db.read(lambda db: key_pairs.list_all(db, ctx.project_id))

    async def delete_key_pair(self, ctx: Context, message: DeleteKeyPair) -> None:
        await self.db.write(lambda db: key_pairs.delete(db, ctx.project_id, message.name))


def generate(comment: str) -> tuple[str, str]:
    """A new ed25519 pair in OpenSSH's formats: private, public."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return private, f"{public} {comment.replace(' ', '-')}"


def parse(name: str, public_key: str) -> KeyPair:
    """Check one line of OpenSSH's public key format (RFC 4253 §6.6); the fingerprint is ssh-keygen's SHA256."""
    line = public_key.strip()
    words = line.split(None, 2)
    if len(line) > KEY_LIMIT or not line.isprintable():
        raise _bad("it is not one line of text")
    if len(words) < 2 or words[0] not in KEY_TYPES:
        raise _bad(f"it does not begin with one of {', '.join(KEY_TYPES)}")
    try:
        blob = base64.b64decode(words[1], validate=True)
        load_ssh_public_key(" ".join(words[:2]).encode())
    except (binascii.Error, ValueError, UnsupportedAlgorithm) as error:
        raise _bad(f"its second word is no {words[0]} key: {error}") from None
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return KeyPair(name=name, type=words[0], public_key=line, fingerprint=f"SHA256:{digest}")


def _bad(why: str) -> BadRequest:
    return BadRequest(f"not an OpenSSH public key: {why}", hint="give the line of a .pub file", field="public_key")
