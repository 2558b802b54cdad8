"""To the controller, from the API server: who asks, what proves it, and is anybody there.

Much of it is asked before anybody knows who it is. Whoever is not let in hears no more than that.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from launcher.accounts import (
    AccountName,
    CreatedCredential,
    Credential,
    CredentialKind,
    Identity,
    IssuedToken,
    Secret,
    TokenInfo,
    UserRole,
)
from launcher.messaging import Call


class Ping(Call[None]):
    """Answered at once: the round trip behind /healthz."""

    topic = "controller"
    needs = UserRole.READER


class Authenticate(Call[Identity]):
    """Resolve a bearer token by its SHA-256; raises Unauthorized.

    With `unscoped` also one that is for no project: then the project is empty and the role is reader.
    """

    topic = "controller"
    needs = UserRole.READER
    token_sha256: str
    unscoped: bool = False


class VerifySignature(Call[Identity]):
    """Who has made this signature with an access key's secret; raises Unauthorized, the same for whatever is wrong.

    Version 4: HMAC-SHA256 in hex, by the key that AWS derives for the scope, which is the third line of
    `string_to_sign`; it must be of the `service`. Version 2: HMAC-SHA256 in base64, by the secret itself.
    `or_string` is what it may be of instead. Time stamps and repetitions are the caller's to look at. Too many failures
    in a row lock the key for a while.
    """

    topic = "controller"
    needs = UserRole.READER
    access_key: str
    version: Literal[2, 4]
    string_to_sign: str
    or_string: str | None = None
    signature: str
    service: str = "ec2"


class LogIn(Call[IssuedToken]):
    """A new token for a user's password; with a project it lets work in that, without one only get another token.

    Raises Unauthorized, the same for whatever is wrong.
    """

    topic = "controller"
    needs = UserRole.READER
    user: str = Field(description="id or name")
    password: Secret = Field(repr=False)
    project: str | None = None


class UseApplicationCredential(Call[IssuedToken]):
    """A new token for an application credential: for its project, for at most as long as it lasts itself.

    It is named by its id, or by its name and its user. Raises Unauthorized.
    """

    topic = "controller"
    needs = UserRole.READER
    credential: str
    user: str | None = None
    secret: Secret = Field(repr=False)


class ExchangeToken(Call[IssuedToken]):
    """A new token for another, which it does not outlive, maybe with another project. Raises Unauthorized."""

    topic = "controller"
    needs = UserRole.READER
    token_sha256: str
    project: str | None = None


class GetToken(Call[TokenInfo]):
    """What a token is good for. Raises NotFound where it is none, or another's (but for admins)."""

    topic = "controller"
    needs = UserRole.READER
    token_sha256: str


class RevokeToken(Call[None]):
    """Raises NotFound, as `GetToken` does."""

    topic = "controller"
    needs = UserRole.READER
    token_sha256: str


class CreateCredential(Call[CreatedCredential]):
    """Another credential for oneself, or for anybody (admins); without a project for the one that is asked in.

    It covers at most `role`, and one for oneself no more than what it is asked for with. Raises Forbidden to tokens of
    application credentials, and NotFound or Conflict where the user has no role in the project.
    """

    topic = "controller"
    needs = UserRole.READER
    kind: CredentialKind
    name: AccountName | None = None
    user: str | None = None
    project: str | None = None
    role: UserRole | None = None
    expires_in_s: float | None = Field(default=None, gt=0, le=1e9, description="None: a token's usual time, else never")


class ListCredentials(Call[list[Credential]]):
    """One's own; an admin sees all, or those of `user`."""

    topic = "controller"
    needs = UserRole.READER
    user: str | None = None


class RevokeCredential(Call[None]):
    """One's own, or anybody's (admins). It ends at once, and with it the tokens that it got."""

    topic = "controller"
    needs = UserRole.READER
    credential: str
