"""Key pairs: made here and handed out once, or imported."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import sqlite3
from collections.abc import Sequence
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)

from launcher.clock import Clock
from launcher.db import key_pairs, limits
from launcher.db.database import Database
from launcher.errors import BadRequest, QuotaExceeded
from launcher.messages.key_pairs import CreateKeyPair, DeleteKeyPair, ListKeyPairs
from launcher.messaging import Context, Route
from launcher.models import CreatedKeyPair, KeyPair, Quotas

KEY_TYPES = ("ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
KEY_LIMIT = 16384
RSA_BITS = 2048


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
        private_key, public_key, mark = (
            (None, message.public_key, "")
            if message.public_key is not None
            else await asyncio.to_thread(generate, message.name, message.type)
        )
        pair = parse(message.name, public_key)
        noted = {"created_ms": int(self.clock.now_ms()), "ec2_fingerprint": mark or pair.ec2_fingerprint}
        pair = pair.model_copy(update=noted)

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
        return [
            pair
            if pair.ec2_fingerprint
            else pair.model_copy(update={"ec2_fingerprint": ec2_fingerprint(pair.public_key)})
            for pair in found
        ]

    async def delete_key_pair(self, ctx: Context, message: DeleteKeyPair) -> None:
        await self.db.write(lambda db: key_pairs.delete(db, ctx.project_id, message.name))


def generate(comment: str, kind: Literal["ed25519", "rsa"] = "ed25519") -> tuple[str, str, str]:
    """A new pair: private (RSA as PKCS #1, which EC2's clients expect), public as OpenSSH has it, EC2's fingerprint.

    That is empty where it follows from the public key.
    """
    key: Ed25519PrivateKey | RSAPrivateKey
    if kind == "rsa":
        key, form = generate_private_key(65537, RSA_BITS), PrivateFormat.TraditionalOpenSSL
        digest = hashlib.sha1(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))  # noqa: S324
        mark = digest.hexdigest()
    else:
        key, form, mark = Ed25519PrivateKey.generate(), PrivateFormat.OpenSSH, ""
    private = key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return private, f"{public} {comment.replace(' ', '-')}", _colons(mark)


def ec2_fingerprint(public_key: str) -> str:
    """Of an imported key: RSA as the MD5 of its DER form, every other as the SHA-256 of OpenSSH's, in base64."""
    kind, encoded = public_key.split(None, 2)[:2]
    if kind != "ssh-rsa":
        return base64.b64encode(hashlib.sha256(base64.b64decode(encoded)).digest()).decode()
    der = load_ssh_public_key(f"{kind} {encoded}".encode()).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return _colons(hashlib.md5(der).hexdigest())  # noqa: S324 - EC2's choice


def _fingerprint(pair: KeyPair) -> str:
    return pair.ec2_fingerprint or ec2_fingerprint(pair.public_key)


def _colons(digits: str) -> str:
    return ":".join(digits[place : place + 2] for place in range(0, len(digits), 2))


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
    return KeyPair(
        name=name,
        type=words[0],
        public_key=line,
        fingerprint=f"SHA256:{digest}",
        ec2_fingerprint=ec2_fingerprint(line),
    )


def _bad(why: str) -> BadRequest:
    return BadRequest(f"not an OpenSSH public key: {why}", hint="give the line of a .pub file", field="public_key")
