"""The native dialect's credentials: made and revoked, and a token for a password."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from launcher.accounts import (
    AccountName,
    CreatedCredential,
    Credential,
    CredentialKind,
    Password,
    Secret,
    TokenInfo,
    UserRole,
)
from launcher.bus import Bus
from launcher.errors import BadRequest, Conflict, Forbidden, NotFound, TooManyRequests, Unauthorized
from launcher.messages.access import (
    CreateCredential,
    GetToken,
    ListCredentials,
    LogIn,
    RevokeCredential,
    RevokeToken,
    UseApplicationCredential,
)
from launcher.models import Model
from launcher.services.api.callers import bearer, sha256
from launcher.services.api.endpoint import Answer, Ask, Endpoint


class CredentialBody(Model):
    """POST /credentials. For oneself in one's project, if nothing else is said (admins); of at most `role`."""

    kind: CredentialKind = CredentialKind.ACCESS_KEY
    name: AccountName | None = None
    user: AccountName | None = None
    project: AccountName | None = None
    role: UserRole | None = None
    expires_in_s: float | None = Field(default=None, gt=0, le=1e9)


class LogInBody(Model):
    """POST /tokens: a user's password, or an application credential (id, or name and user) and its secret."""

    user: AccountName | None = None
    password: Password | None = Field(default=None, repr=False)
    project: AccountName | None = None
    credential: AccountName | None = None
    secret: Secret | None = Field(default=None, repr=False)


class CredentialsQuery(Model):
    user: str | None = Field(default=None, max_length=255)


class CredentialList(Model):
    credentials: list[Credential]


class NewCredential(Credential):
    """A credential just made; `secret` is shown this once."""

    secret: str = Field(repr=False)


class NativeCredentials:
    """The endpoints and what they call on the bus."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        every = "/credentials"
        return [
            Endpoint(
                "POST",
                every,
                self.create_credential,
                "Make an access key, a token or an application credential",
                status=201,
                body=CredentialBody,
                response=NewCredential,
                raises=(Forbidden, NotFound, Conflict),
            ),
            Endpoint(
                "GET",
                every,
                self.list_credentials,
                "List one's credentials; all, for admins",
                query=CredentialsQuery,
                response=CredentialList,
                raises=(NotFound,),
            ),
            Endpoint("DELETE", f"{every}/{{id}}", self.revoke_credential, "End a credential, now", status=204),
            Endpoint("GET", "/tokens/self", self.get_token, "Whose token this is", response=TokenInfo),
            Endpoint("DELETE", "/tokens/self", self.revoke_token, "End this token, now", status=204),
            Endpoint(
                "POST",
                "/tokens",
                self.log_in,
                "Get a token for a password or an application credential",
                status=201,
                body=LogInBody,
                response=NewCredential,
                raises=(Unauthorized, TooManyRequests),
                public=True,
            ),
        ]

    async def create_credential(self, ask: Ask) -> Answer:
        made = await self.bus.call(ask.ctx, CreateCredential(**ask.body.model_dump()))
        return Answer(_told(made))

    async def list_credentials(self, ask: Ask) -> Answer:
        found = await self.bus.call(ask.ctx, ListCredentials(user=ask.query.user))
        return Answer(CredentialList(credentials=found))

    async def revoke_credential(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, RevokeCredential(credential=ask.path["id"])))

    async def get_token(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, GetToken(token_sha256=sha256(bearer(ask.request)))))

    async def revoke_token(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, RevokeToken(token_sha256=sha256(bearer(ask.request)))))

    async def log_in(self, ask: Ask) -> Answer:
        issued = await self.bus.call(ask.ctx, _login(ask.body))
        return Answer(_told(CreatedCredential(credential=issued.info.credential, secret=issued.secret)))


def _login(body: LogInBody) -> LogIn | UseApplicationCredential:
    given = {name for name, value in body if value is not None}
    if given == {"user", "password", "project"}:
        return LogIn(**body.model_dump(include=given))
    if given in ({"credential", "secret"}, {"credential", "secret", "user"}):
        return UseApplicationCredential(**body.model_dump(include=given))
    raise BadRequest("give user, password and project, or credential and secret")


def _told(made: CreatedCredential) -> NewCredential:
    return NewCredential(**made.credential.model_dump(), secret=made.secret)
