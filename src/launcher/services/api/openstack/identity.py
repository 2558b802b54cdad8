"""Identity v3: version discovery, tokens, and what a token's holder may know. Accounts are in `accounts.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from aiohttp import web
from pydantic import Field

from launcher.accounts import IssuedToken, Project, TokenInfo, UserRole
from launcher.bus import Bus
from launcher.errors import BadRequest, LauncherError, Unauthorized
from launcher.messages.access import ExchangeToken, GetToken, LogIn, RevokeToken, UseApplicationCredential
from launcher.models import Model
from launcher.services.api.callers import sha256
from launcher.services.api.openstack.accounts import DOMAIN, DOMAIN_NAME, IdentityAccounts, role_of
from launcher.services.api.openstack.applications import IdentityApplications
from launcher.services.api.openstack.catalogue import Catalogue
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, Service, Settled, timestamp

VERSION, UPDATED = "v3.14", "2020-04-07T00:00:00Z"
TITLES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed"}
TITLES |= {408: "Request Timeout", 409: "Conflict", 413: "Request Entity Too Large", 429: "Too Many Requests"}


class DomainRef(Model):
    id: str | None = None
    name: str | None = None

    def check(self) -> None:
        """There is one; what is asked of another is answered as a wrong password is."""
        if (self.id or DOMAIN, self.name or DOMAIN_NAME) != (DOMAIN, DOMAIN_NAME):
            raise Unauthorized("not let in: there is no such domain")


class UserRef(Model):
    id: str | None = None
    name: str | None = None
    domain: DomainRef | None = None
    password: str = Field(default="", repr=False)

    @property
    def named(self) -> str:
        if self.domain:
            self.domain.check()
        return self.id or self.name or ""


class PasswordMethod(Model):
    user: UserRef


class TokenMethod(Model):
    id: str = Field(repr=False)


class ApplicationMethod(Model):
    id: str | None = None
    name: str | None = None
    user: UserRef | None = None
    secret: str = Field(repr=False)


class IdentityBody(Model):
    methods: list[str] = Field(min_length=1, max_length=1)
    password: PasswordMethod | None = None
    token: TokenMethod | None = None
    application_credential: ApplicationMethod | None = None


class ProjectRef(Model):
    id: str | None = None
    name: str | None = None
    domain: DomainRef | None = None


class ScopeBody(Model):
    project: ProjectRef


class AuthBody(Model):
    identity: IdentityBody
    scope: ScopeBody | Literal["unscoped"] | None = None

    @property
    def project(self) -> str | None:
        if not isinstance(self.scope, ScopeBody):
            return None
        if self.scope.project.domain:
            self.scope.project.domain.check()
        return self.scope.project.id or self.scope.project.name or ""


class TokenRequest(Model):
    """POST /v3/auth/tokens."""

    auth: AuthBody


class Identity:
    """Keystone's part. A token without a project does for most of it."""

    type, name, prefix, endpoint, unscoped = "identity", "keystone", "/identity", "/identity", True

    def __init__(self, *, bus: Bus, region: str, others: Sequence[Service]) -> None:
        self.bus, self.catalogue = bus, Catalogue(region=region, services=(self, *others))
        self.accounts, self.applications = IdentityAccounts(bus=bus), IdentityApplications(bus=bus)

    @property
    def operations(self) -> Sequence[Operation]:
        tokens = "/v3/auth/tokens"
        return [
            Operation("GET", "", self.list_versions, status=300, public=True),
            Operation("GET", "/v3", self.get_version, public=True),
            Operation("POST", tokens, self.create_token, status=201, body=TokenRequest, public=True),
            Operation("GET", tokens, self.get_token, queries=("nocatalog", "allow_expired")),
            Operation("HEAD", tokens, self.check_token, queries=("nocatalog", "allow_expired")),
            Operation("DELETE", tokens, self.revoke_token, status=204),
            Operation("GET", "/v3/auth/catalog", self.get_catalogue),
            Operation("GET", "/v3/services", self.list_services, queries=("type", "name")),
            Operation("GET", "/v3/endpoints", self.list_endpoints, queries=("interface", "service_id", "region_id")),
            Operation("GET", "/v3/regions", self.list_regions),
            *self.accounts.operations,
            *self.applications.operations,
        ]

    def settle(self, request: web.Request) -> Settled:
        return Settled()

    def refusal(self, error: LauncherError) -> tuple[int, Json]:
        title = TITLES.get(error.status, "Internal Server Error")
        return error.status, {"error": {"code": error.status, "message": error.message, "title": title}}

    # --- versions ------------------------------------------------------------------------------------------

    async def list_versions(self, ask: Ask) -> Reply:
        return Reply({"versions": {"values": [_version(ask.base)]}})

    async def get_version(self, ask: Ask) -> Reply:
        return Reply({"version": _version(ask.base)})

    # --- tokens ---------------------------------------------------------------------------------------------

    async def create_token(self, ask: Ask) -> Reply:
        issued: IssuedToken = await self.bus.call(ask.ctx, _login(ask.body.auth))
        body = self._token(ask, issued.info)
        return Reply(body, headers={"X-Subject-Token": issued.secret})

    async def get_token(self, ask: Ask) -> Reply:
        """Of X-Subject-Token; whose it is, the controller looks at."""
        subject = _subject(ask)
        info = await self.bus.call(ask.ctx, GetToken(token_sha256=sha256(subject)))
        return Reply(self._token(ask, info), headers={"X-Subject-Token": subject})

    async def check_token(self, ask: Ask) -> Reply:
        return Reply(headers=(await self.get_token(ask)).headers)

    async def revoke_token(self, ask: Ask) -> Reply:
        await self.bus.call(ask.ctx, RevokeToken(token_sha256=sha256(_subject(ask))))
        return Reply()

    def _token(self, ask: Ask, info: TokenInfo) -> Json:
        domain = {"id": DOMAIN, "name": DOMAIN_NAME}
        user = {"id": info.user.id, "name": info.user.name, "domain": domain, "password_expires_at": None}
        token: Json = {
            "methods": list(info.credential.methods) or ["token"],
            "user": user,
            "audit_ids": [info.credential.id],
            "issued_at": timestamp(info.credential.created_ms),
            "expires_at": timestamp(info.credential.expires_ms or 4e12),
        }
        if info.project is not None and info.role is not None:
            token |= {"project": _scope(info.project), "is_domain": False, "roles": _roles(info.role)}
            if "nocatalog" not in ask.query:
                token["catalog"] = self.catalogue.tokens(ask.base)
        return {"token": token}

    # --- the catalogue --------------------------------------------------------------------------------------

    async def get_catalogue(self, ask: Ask) -> Reply:
        links = {"self": f"{ask.base}/identity/v3/auth/catalog"}
        return Reply({"catalog": self.catalogue.tokens(ask.base), "links": links})

    async def list_services(self, ask: Ask) -> Reply:
        return _listed(ask, "services", self.catalogue.services(ask.base))

    async def list_endpoints(self, ask: Ask) -> Reply:
        return _listed(ask, "endpoints", self.catalogue.endpoints(ask.base))

    async def list_regions(self, ask: Ask) -> Reply:
        return _listed(ask, "regions", self.catalogue.regions(ask.base))


def _login(auth: AuthBody) -> LogIn | UseApplicationCredential | ExchangeToken:
    match auth.identity:
        case IdentityBody(methods=["password"], password=PasswordMethod(user=user)):
            if not user.password:
                raise Unauthorized("not let in: a password is needed")
            return LogIn(user=user.named, password=user.password, project=auth.project)
        case IdentityBody(methods=["token"], token=TokenMethod(id=token)):
            return ExchangeToken(token_sha256=sha256(token), project=auth.project)
        case IdentityBody(methods=["application_credential"], application_credential=ApplicationMethod() as given):
            if auth.scope is not None:
                raise BadRequest("an application credential has its scope")
            owner = None if given.id else (given.user.named if given.user else "")
            return UseApplicationCredential(credential=given.id or given.name or "", user=owner, secret=given.secret)
    raise Unauthorized(f"the method {auth.identity.methods[0][:50]!r} is not known here, or has no part of its own")


def _subject(ask: Ask) -> str:
    token = ask.request.headers.get("X-Subject-Token", "")
    if not token:
        raise BadRequest("X-Subject-Token names the token that is meant")
    return token


def _version(base: str) -> Json:
    return {
        "id": VERSION,
        "status": "stable",
        "updated": UPDATED,
        "links": [{"rel": "self", "href": f"{base}/identity/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


def _scope(project: Project) -> Json:
    return {"id": project.id, "name": project.name, "domain": {"id": DOMAIN, "name": DOMAIN_NAME}}


def _roles(role: UserRole) -> list[Json]:
    """Those that it covers are the holder's, too."""
    return [role_of(each) for each in role.covered]


def _listed(ask: Ask, kind: str, found: list[Json]) -> Reply:
    fitting = [each for each in found if all(each.get(name) == value for name, value in ask.query.items())]
    links = {"self": f"{ask.base}/identity/v3/{kind}", "next": None, "previous": None}
    return Reply({kind: fitting, "links": links})
