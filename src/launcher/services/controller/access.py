"""Who asks: bearer tokens and signatures. Nobody is told what was wrong, and secrets do not leave this process."""

from __future__ import annotations

import base64
import hmac
import logging
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from launcher.accounts import AdminAccess, Credential, CredentialKind, Identity, Project, User, UserRole
from launcher.admin_file import ADMIN
from launcher.clock import Clock
from launcher.db import accounts, credentials
from launcher.db.database import Database
from launcher.errors import Unauthorized
from launcher.messages.access import Authenticate, VerifySignature
from launcher.messaging import Context, Route
from launcher.services.controller.credentials import Credentials, sha256
from launcher.services.controller.lockout import Lockout
from launcher.services.controller.passwords import Passwords

TOKEN_OF_ADMIN, KEY_OF_ADMIN = "admin.json's token", "admin.json's access key"
SCOPE = re.compile(r"([0-9]{8})/([A-Za-z0-9._-]{1,64})/([A-Za-z0-9._-]{1,64})/aws4_request")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AccessRules:
    """After `lockout_failures` wrong secrets in a row (0: never) a name is locked for `lockout_seconds`.

    A token lasts `token_seconds` if nobody says how long.
    """

    lockout_failures: int = 10
    lockout_seconds: float = 60.0
    token_seconds: float = 3600.0
    passwords: Passwords = field(default_factory=Passwords)


class Access:
    """Answers Authenticate and VerifySignature, and knows the first administrator."""

    def __init__(self, *, db: Database, clock: Clock, rng: Random, rules: AccessRules) -> None:
        self.db, self.clock, self.passwords = db, clock, rules.passwords
        self.lockout = Lockout(clock=clock, limit=rules.lockout_failures, seconds=rules.lockout_seconds)
        self.credentials = Credentials(db=db, clock=clock, rng=rng, doorkeeper=self, token_seconds=rules.token_seconds)

    @property
    def routes(self) -> Sequence[Route]:
        return [
            Authenticate.to(self.authenticate),
            VerifySignature.to(self.verify_signature),
            *self.credentials.routes,
        ]

    async def keep_admin(self, admin: AdminAccess) -> None:
        """The first administrator with what `admin.json` says; where that is new, it replaces what it said before."""
        digest, now = sha256(admin.token), self.clock.now_ms()
        if await self.db.read(lambda db: credentials.find_identity(db, digest, now)) is not None:
            return
        password = await self.passwords.hash(admin.password)
        await self.db.write(lambda db: _make_admin(db, admin, password, now))

    async def authenticate(self, ctx: Context, message: Authenticate) -> Identity:
        now = self.clock.now_ms()
        found = await self.db.read(lambda db: credentials.find_identity(db, message.token_sha256, now))
        if found is None and message.unscoped:
            found = await self.db.read(lambda db: credentials.find_user(db, message.token_sha256, now))
        if found is None:
            raise Unauthorized("the bearer token is not known here, or no longer", hint="see `launcher credentials`")
        return found

    async def verify_signature(self, ctx: Context, message: VerifySignature) -> Identity:
        """As much work for a key that is not there, so that time tells nothing either."""
        now, key = self.clock.now_ms(), message.access_key
        proof = await self.db.read(lambda db: credentials.find_proof(db, CredentialKind.ACCESS_KEY, key, now))
        secret = proof.secret if proof else "nobody's"
        texts = [message.string_to_sign, message.or_string or message.string_to_sign]
        wanted = [_signature(message, text, secret) for text in texts]
        matching = [hmac.compare_digest(each.encode(), message.signature.encode()) and each != "" for each in wanted]
        passed = any(matching)
        if proof and self.admits(key, passed=passed):
            return proof.identity
        raise Unauthorized(
            "the access key is not known here, or the signature is not one of its secret",
            hint="after several failures in a row a key is locked for a while; see `launcher credentials list`",
        )

    async def check_password(self, name_or_id: str, password: str) -> User | None:
        """The user whose password it is; it takes as long to say no to a user that is not there."""
        found = await self.db.read(lambda db: accounts.find_password(db, name_or_id))
        passed = await self.passwords.match(password, found[1] if found else None)
        return found[0] if found and self.admits(f"user {found[0].id}", passed=passed) else None

    def admits(self, name: str, *, passed: bool) -> bool:
        """Whether somebody comes in by this name, which exists: not while it is locked, whatever is shown."""
        if self.lockout.is_locked(name):
            return False
        if self.lockout.note(name, passed=passed):
            log.warning("%s is locked for %g s: too many failures in a row", name, self.lockout.seconds)
        return passed


def _signature(message: VerifySignature, string_to_sign: str, secret: str) -> str:
    """What it must be; nothing when the string to sign is not for here."""
    text = string_to_sign.encode()
    if message.version == 2:
        return base64.b64encode(_hmac(secret.encode(), text)).decode()
    scope = SCOPE.fullmatch((string_to_sign.split("\n") + [""] * 3)[2])
    if scope is None or scope[3] != message.service:
        return ""
    key = ("AWS4" + secret).encode()
    for part in (*scope.groups(), "aws4_request"):
        key = _hmac(key, part.encode())
    return _hmac(key, text).hex()


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def _make_admin(db: sqlite3.Connection, admin: AdminAccess, password: str, now_ms: float) -> None:
    if not any(project.id == ADMIN for project in accounts.list_projects(db, None)):
        accounts.create_project(db, Project(id=ADMIN, name=ADMIN, created_ms=now_ms))
    if not any(user.id == ADMIN for user in accounts.list_users(db)):
        accounts.create_user(db, User(id=ADMIN, name=ADMIN, default_project_id=ADMIN, created_ms=now_ms), None)
    accounts.grant(db, ADMIN, ADMIN, UserRole.ADMIN)
    accounts.set_password(db, ADMIN, password)
    for known in credentials.list_all(db, ADMIN):
        if known.name in (TOKEN_OF_ADMIN, KEY_OF_ADMIN) or known.id == admin.access_key:
            credentials.delete(db, known.id)
    for kind, name, key, secret in (
        (CredentialKind.TOKEN, TOKEN_OF_ADMIN, f"{sha256(admin.token)[:16]}", sha256(admin.token)),
        (CredentialKind.ACCESS_KEY, KEY_OF_ADMIN, admin.access_key, admin.secret_key),
    ):
        made = Credential(
            id=key, kind=kind, name=name, user_id=ADMIN, project_id=ADMIN, role=UserRole.ADMIN, created_ms=now_ms
        )
        credentials.create(db, made, secret)
