"""What users prove themselves with. Access keys keep their secret, all others the SHA-256 of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from launcher.accounts import Credential, CredentialKind, Identity, UserRole
from launcher.errors import NotFound

_IDENTITY = """
SELECT c.id, c.user_id, c.project_id, c.role, c.secret, group_concat(g.role) AS granted
FROM credentials c
JOIN users u ON u.id = c.user_id AND u.enabled
JOIN projects p ON p.id = c.project_id AND p.enabled
JOIN grants g ON g.user_id = c.user_id AND g.project_id = c.project_id
WHERE (c.expires_ms IS NULL OR c.expires_ms > :now) AND c.kind = :kind AND {which}
GROUP BY c.id
"""


class Proof(NamedTuple):
    """Whose a credential is, as things stand, and what its holder must know."""

    identity: Identity
    secret: str


def create(db: sqlite3.Connection, credential: Credential, secret: str) -> None:
    db.execute(
        "INSERT INTO credentials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            credential.id,
            credential.kind,
            credential.name,
            credential.user_id,
            credential.project_id,
            credential.role,
            secret,
            " ".join(credential.methods),
            credential.parent_id,
            credential.created_ms,
            credential.expires_ms,
        ),
    )


def find_identity(db: sqlite3.Connection, token_sha256: str, now_ms: float) -> Identity | None:
    """Whose token this is; None when it has expired, or user, project or role are gone or disabled."""
    proof = _find(db, "c.secret = :key", CredentialKind.TOKEN, token_sha256, now_ms)
    return proof.identity if proof else None


def find_user(db: sqlite3.Connection, token_sha256: str, now_ms: float) -> Identity | None:
    """Whose token this is that is for no project: all that it is good for is to read what is the user's own."""
    row = db.execute(
        "SELECT c.id, c.user_id FROM credentials c JOIN users u ON u.id = c.user_id AND u.enabled"
        " WHERE c.kind = 'token' AND c.secret = ? AND c.project_id IS NULL AND c.expires_ms > ?",
        (token_sha256, now_ms),
    ).fetchone()
    if row is None:
        return None
    return Identity(user_id=row["user_id"], project_id="", role=UserRole.READER, credential_id=row["id"])


def find_proof(db: sqlite3.Connection, kind: CredentialKind, credential_id: str, now_ms: float) -> Proof | None:
    """The same of a credential that has an id of its own."""
    return _find(db, "c.id = :key", kind, credential_id, now_ms)


def _find(db: sqlite3.Connection, which: str, kind: CredentialKind, key: str, now_ms: float) -> Proof | None:
    row = db.execute(_IDENTITY.format(which=which), {"now": now_ms, "kind": kind, "key": key}).fetchone()
    if row is None:
        return None
    role = lower(UserRole(row["role"]), highest(row["granted"].split(",")))
    identity = Identity(user_id=row["user_id"], project_id=row["project_id"], role=role, credential_id=row["id"])
    return Proof(identity, row["secret"])


def get(db: sqlite3.Connection, credential_id: str) -> Credential:
    found = find(db, credential_id)
    if found is None:
        raise no_credential(credential_id)
    return found


def find(db: sqlite3.Connection, credential_id: str) -> Credential | None:
    row = db.execute("SELECT * FROM credentials WHERE id = ?", (credential_id,)).fetchone()
    return _credential(row) if row else None


def no_credential(credential_id: str) -> NotFound:
    return NotFound(f"there is no credential {credential_id!r}", hint="see `launcher credentials list`")


def find_token(db: sqlite3.Connection, token_sha256: str, now_ms: float) -> Credential | None:
    """A token that has not expired, with or without a project."""
    row = db.execute(
        "SELECT * FROM credentials WHERE kind = 'token' AND secret = ? AND (expires_ms IS NULL OR expires_ms > ?)",
        (token_sha256, now_ms),
    ).fetchone()
    return _credential(row) if row else None


def list_all(db: sqlite3.Connection, user_id: str | None) -> list[Credential]:
    """The user's, or all, in order of creation."""
    rows = db.execute(
        "SELECT * FROM credentials WHERE ? IN (user_id, '') ORDER BY created_ms, id", (user_id or "",)
    ).fetchall()
    return [_credential(row) for row in rows]


def delete(db: sqlite3.Connection, credential_id: str) -> None:
    """Tokens that it got go with it."""
    db.execute("DELETE FROM credentials WHERE id = ?", (credential_id,))


def delete_tokens(db: sqlite3.Connection, user_id: str) -> None:
    """What was got by a password that is no longer the user's."""
    db.execute("DELETE FROM credentials WHERE user_id = ? AND kind = 'token' AND methods LIKE '%password%'", (user_id,))


def delete_expired(db: sqlite3.Connection, now_ms: float) -> None:
    db.execute("DELETE FROM credentials WHERE expires_ms <= ?", (now_ms,))


def highest(roles: Sequence[str]) -> UserRole:
    """What somebody with all these roles may do."""
    return max((UserRole(role) for role in roles), key=list(UserRole).index)


def lower(first: UserRole, second: UserRole) -> UserRole:
    return second if first.covers(second) else first


def _credential(row: sqlite3.Row) -> Credential:
    return Credential(
        id=row["id"],
        kind=row["kind"],
        name=row["name"],
        user_id=row["user_id"],
        project_id=row["project_id"],
        role=row["role"],
        methods=tuple(row["methods"].split()),
        parent_id=row["parent_id"],
        created_ms=row["created_ms"],
        expires_ms=row["expires_ms"],
    )
