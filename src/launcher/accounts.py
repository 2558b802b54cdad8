"""Who may do what: projects, users, the roles that users have in projects, and what they prove themselves with."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from launcher.models import Model

AccountId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
"""Every field of this kind has `repr=False`; on the bus it is plain, as it must be."""
Password = Annotated[str, StringConstraints(min_length=1, max_length=255)]
AccountName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f/]{1,255}$")]
Words = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]{0,255}$")]


class UserRole(StrEnum):
    """What a user may do in a project: look; work; everything, in every project. Each covers those before it."""

    READER = "reader"
    MEMBER = "member"
    ADMIN = "admin"

    def covers(self, needed: UserRole) -> bool:
        ranks = list(UserRole)
        return ranks.index(self) >= ranks.index(needed)

    @property
    def covered(self) -> list[UserRole]:
        """This one and those that it covers, the highest first."""
        return [role for role in reversed(UserRole) if self.covers(role)]


class Identity(Model):
    """Who asks, resolved from a credential: the role is the user's in the project at this moment."""

    user_id: str
    project_id: str
    role: UserRole
    credential_id: str = ""


class Project(Model):
    """What owns things. Nobody can work in a disabled one; what runs in it goes on."""

    id: AccountId
    name: AccountName
    description: str = ""
    enabled: bool = True
    created_ms: float = 0.0


class User(Model):
    """Without a password it can only use the credentials that it has."""

    id: AccountId
    name: AccountName
    email: str | None = None
    description: str = ""
    default_project_id: str | None = None
    enabled: bool = True
    has_password: bool = True
    created_ms: float = 0.0


class Grant(Model):
    """A user's role in a project."""

    user: User
    project: Project
    role: UserRole


class CredentialKind(StrEnum):
    """What signs requests (EC2's access key and secret), what is sent along (a bearer token), what gets tokens."""

    ACCESS_KEY = "access-key"
    TOKEN = "token"  # noqa: S105 - a kind
    APPLICATION = "application"


class Credential(Model):
    """What a user proves itself with; it covers at most `role`. Without a project it only gets tokens with one."""

    id: str
    kind: CredentialKind
    name: str
    user_id: str
    project_id: str | None
    role: UserRole
    methods: tuple[str, ...] = Field(default=(), description="how a token was got, in Keystone's words")
    parent_id: str | None = Field(default=None, description="the application credential that it ends with")
    created_ms: float
    expires_ms: float | None = None


class CreatedCredential(Model):
    """A credential at the moment of its creation, the only one at which its secret is told."""

    credential: Credential
    secret: Secret = Field(repr=False)


class TokenInfo(Model):
    """A token, and what it is good for as things stand."""

    credential: Credential
    user: User
    project: Project | None
    role: UserRole | None


class IssuedToken(Model):
    """A token at the moment at which it is told."""

    secret: Secret = Field(repr=False)
    info: TokenInfo


class AdminAccess(Model):
    """What the first administrator has from the first start on; `admin.json` in the state directory holds it."""

    token: Secret = Field(repr=False)
    password: Secret = Field(repr=False)
    access_key: AccountId
    secret_key: Secret = Field(repr=False)
