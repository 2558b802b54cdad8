"""Tokens, access keys and application credentials: got by a proof, listed, revoked. Secrets are told once."""

from __future__ import annotations

import hashlib
import hmac
import sqlite3
from collections.abc import Sequence
from random import Random
from typing import Protocol

from launcher.accounts import (
    CreatedCredential,
    Credential,
    CredentialKind,
    IssuedToken,
    Project,
    TokenInfo,
    User,
    UserRole,
)
from launcher.clock import Clock
from launcher.db import accounts, credentials
from launcher.db.database import Database
from launcher.errors import Conflict, Forbidden, NotFound, Unauthorized
from launcher.identity import new_access_key, new_account_id, new_token
from launcher.messages.access import (
    CreateCredential,
    ExchangeToken,
    GetToken,
    ListCredentials,
    LogIn,
    RevokeCredential,
    RevokeToken,
    UseApplicationCredential,
)
from launcher.messaging import Context, Route


class Doorkeeper(Protocol):
    """Who counts failures (`access.py`)."""

    async def check_password(self, name_or_id: str, password: str) -> User | None: ...

    def admits(self, name: str, *, passed: bool) -> bool: ...


class Credentials:
    """`token_seconds` is how long a token lasts that nobody said more of."""

    def __init__(
        self, *, db: Database, clock: Clock, rng: Random, doorkeeper: Doorkeeper, token_seconds: float
    ) -> None:
        self.db, self.clock, self.rng, self.doorkeeper = db, clock, rng, doorkeeper
        self.token_seconds = token_seconds

    @property
    def routes(self) -> Sequence[Route]:
        return [
            LogIn.to(self.log_in),
            UseApplicationCredential.to(self.use_application_credential),
            ExchangeToken.to(self.exchange_token),
            GetToken.to(self.get_token),
            RevokeToken.to(self.revoke_token),
            CreateCredential.to(self.create_credential),
            ListCredentials.to(self.list_credentials),
            RevokeCredential.to(self.revoke_credential),
        ]

    # --- getting a token ----------------------------------------------------------------------------------

    async def log_in(self, ctx: Context, message: LogIn) -> IssuedToken:
        user = await self.doorkeeper.check_password(message.user, message.password)
        if user is None:
            raise _refusal()
        return await self._issue(user.id, message.project, methods=("password",))

    async def use_application_credential(self, ctx: Context, message: UseApplicationCredential) -> IssuedToken:
        kind, now = CredentialKind.APPLICATION, self.clock.now_ms()
        key = message.credential
        if message.user is not None:
            key = await self.db.read(lambda db: _find_named(db, message.user or "", message.credential))
        proof = await self.db.read(lambda db: credentials.find_proof(db, kind, key, now))
        passed = hmac.compare_digest(proof.secret if proof else "", sha256(message.secret))
        if proof is None or not self.doorkeeper.admits(key, passed=passed):
            raise _refusal()
        parent = await self.db.read(lambda db: credentials.get(db, key))
        return await self._issue(
            parent.user_id, parent.project_id, methods=("application_credential",), cap=parent.role, parent=parent
        )

    async def exchange_token(self, ctx: Context, message: ExchangeToken) -> IssuedToken:
        now = self.clock.now_ms()
        old = await self.db.read(lambda db: credentials.find_token(db, message.token_sha256, now))
        if old is None:
            raise _refusal()
        if old.parent_id is not None:
            if message.project is not None and message.project != old.project_id:
                raise Forbidden("an application credential's token is for its project only")
            parent = await self.db.read(lambda db: credentials.get(db, old.parent_id or ""))
            return await self._issue(
                old.user_id, old.project_id, methods=old.methods, cap=old.role, parent=parent, until=old.expires_ms
            )
        methods = tuple(dict.fromkeys((*old.methods, "token")))
        return await self._issue(old.user_id, message.project, methods=methods, cap=old.role, until=old.expires_ms)

    async def _issue(
        self,
        user_id: str,
        project: str | None,
        *,
        methods: tuple[str, ...],
        cap: UserRole = UserRole.ADMIN,
        parent: Credential | None = None,
        until: float | None = None,
    ) -> IssuedToken:
        secret, now = new_token(self.rng), self.clock.now_ms()
        ends = [now + self.token_seconds * 1000, until, parent.expires_ms if parent else None]

        def work(db: sqlite3.Connection) -> IssuedToken:
            made = Credential(
                id=new_account_id(self.rng),
                kind=CredentialKind.TOKEN,
                name="login",
                user_id=user_id,
                project_id=_open_project(db, user_id, project).id if project is not None else None,
                role=cap,
                methods=methods,
                parent_id=parent.id if parent else None,
                created_ms=now,
                expires_ms=min(end for end in ends if end is not None),
            )
            credentials.create(db, made, sha256(secret))
            info = _describe(db, made)
            if info is None:
                raise _refusal()
            return IssuedToken(secret=secret, info=info)

        return await self.db.write(work)

    # --- what a token is good for, and its end -----------------------------------------------------------------

    async def get_token(self, ctx: Context, message: GetToken) -> TokenInfo:
        now = self.clock.now_ms()

        def work(db: sqlite3.Connection) -> TokenInfo | None:
            found = credentials.find_token(db, message.token_sha256, now)
            return _describe(db, found) if found is not None and _is_theirs(ctx, found) else None

        info = await self.db.read(work)
        if info is None:
            raise NotFound("there is no such token, or no longer")
        return info

    async def revoke_token(self, ctx: Context, message: RevokeToken) -> None:
        info = await self.get_token(ctx, GetToken(token_sha256=message.token_sha256))
        await self.db.write(lambda db: credentials.delete(db, info.credential.id))

    # --- credentials ---------------------------------------------------------------------------------------------

    async def create_credential(self, ctx: Context, message: CreateCredential) -> CreatedCredential:
        key, secret = new_access_key(self.rng)
        if message.kind is not CredentialKind.ACCESS_KEY:
            key, secret = new_account_id(self.rng), new_token(self.rng)
        now = self.clock.now_ms()
        lasts = message.expires_in_s or (self.token_seconds if message.kind is CredentialKind.TOKEN else None)

        def work(db: sqlite3.Connection) -> CreatedCredential:
            user = _maker(db, ctx, message)
            own = user.id == ctx.user_id
            project = _project_of(db, ctx, user, message)
            cap = message.role or (ctx.role if own else UserRole.ADMIN)
            made = Credential(
                id=key,
                kind=message.kind,
                name=message.name or message.kind,
                user_id=user.id,
                project_id=project.id,
                role=credentials.lower(cap, ctx.role) if own else cap,
                created_ms=now,
                expires_ms=now + lasts * 1000 if lasts else None,
            )
            credentials.create(db, made, secret if message.kind is CredentialKind.ACCESS_KEY else sha256(secret))
            return CreatedCredential(credential=made, secret=secret)

        return await self.db.write(work)

    async def list_credentials(self, ctx: Context, message: ListCredentials) -> list[Credential]:
        def work(db: sqlite3.Connection) -> list[Credential]:
            if not ctx.is_admin:
                return credentials.list_all(db, ctx.user_id) if message.user in (None, ctx.user_id) else []
            return credentials.list_all(db, accounts.get_user(db, message.user).id if message.user else None)

        return await self.db.read(work)

    async def revoke_credential(self, ctx: Context, message: RevokeCredential) -> None:
        def work(db: sqlite3.Connection) -> None:
            found = credentials.get(db, message.credential)
            if not _is_theirs(ctx, found):
                raise credentials.no_credential(message.credential)
            credentials.delete(db, found.id)

        await self.db.write(work)


def sha256(secret: str) -> str:
    """How a random secret is kept; guessing is hopeless, so nothing slow is needed."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def _is_theirs(ctx: Context, credential: Credential) -> bool:
    return ctx.is_admin or (ctx.user_id != "" and ctx.user_id == credential.user_id)


def _describe(db: sqlite3.Connection, token: Credential) -> TokenInfo | None:
    """None when user, project or role are gone or disabled."""
    user = accounts.get_user(db, token.user_id)
    if not user.enabled:
        return None
    if token.project_id is None:
        return TokenInfo(credential=token, user=user, project=None, role=None)
    project = accounts.get_project(db, token.project_id)
    roles = accounts.list_roles(db, user.id, project.id)
    if not roles or not project.enabled:
        return None
    role = credentials.lower(token.role, credentials.highest(roles))
    return TokenInfo(credential=token, user=user, project=project, role=role)


def _open_project(db: sqlite3.Connection, user_id: str, name_or_id: str) -> Project:
    """Raises Unauthorized, so that strangers do not learn which projects there are."""
    try:
        project = accounts.get_project(db, name_or_id)
    except NotFound:
        raise _refusal() from None
    if not project.enabled or not accounts.list_roles(db, user_id, project.id):
        raise _refusal()
    return project


def _find_named(db: sqlite3.Connection, user: str, name: str) -> str:
    """The id of the user's application credential of this name; empty when there is none."""
    try:
        found = credentials.list_all(db, accounts.get_user(db, user).id)
    except NotFound:
        return ""
    named = [each.id for each in found if each.kind is CredentialKind.APPLICATION and each.name == name]
    return named[-1] if named else ""


def _maker(db: sqlite3.Connection, ctx: Context, message: CreateCredential) -> User:
    """For whom it is; whoever asks with an application credential's token may not make more (CVE-2026-33551)."""
    asked_with = credentials.find(db, ctx.credential_id)
    if asked_with is not None and asked_with.parent_id is not None:
        raise Forbidden("an application credential cannot make other credentials")
    if message.user in (None, ctx.user_id):
        return accounts.get_user(db, ctx.user_id)
    found = accounts.get_user(db, message.user or "") if ctx.is_admin else None
    if found is None:
        own = accounts.get_user(db, ctx.user_id)
        if own.name != message.user:
            raise Forbidden("only an admin may make credentials for others", field="user")
        return own
    return found


def _project_of(db: sqlite3.Connection, ctx: Context, user: User, message: CreateCredential) -> Project:
    wanted = message.project or (ctx.project_id if user.id == ctx.user_id else user.default_project_id)
    if not wanted:
        raise Conflict(f"user {user.name!r} has no usual project", hint="name one", field="project")
    try:
        project = accounts.get_project(db, wanted)
        roles = accounts.list_roles(db, user.id, project.id)
    except NotFound:
        roles = []
    if not roles:
        if ctx.is_admin:
            raise Conflict(f"user {user.name!r} has no role in project {wanted!r}", hint="`launcher user grant`")
        raise accounts.no_project(wanted)
    return project


def _refusal() -> Unauthorized:
    return Unauthorized(
        "not let in: user, secret or project are not known here, or not together",
        hint="after several failures in a row a name is locked for a while",
    )
