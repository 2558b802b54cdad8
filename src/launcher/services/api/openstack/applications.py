"""Identity v3's application credentials: for one's programs, with at most one's own roles."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from launcher.accounts import AccountName, Credential, CredentialKind, UserRole, Words
from launcher.bus import Bus
from launcher.errors import BadRequest, NotFound
from launcher.messages.access import CreateCredential, ListCredentials, RevokeCredential
from launcher.models import Model
from launcher.services.api.openstack.accounts import listed, role_of, self_link
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply, timestamp


class RoleRef(Model):
    id: UserRole | None = None
    name: UserRole | None = None


class ApplicationFields(Model):
    name: AccountName
    description: Words | None = None
    roles: list[RoleRef] = Field(default_factory=list, max_length=3)
    expires_at: str | None = None
    unrestricted: bool = False
    project_id: str | None = None
    access_rules: list[Any] | None = Field(default=None, max_length=0)


class ApplicationRequest(Model):
    application_credential: ApplicationFields


class IdentityApplications:
    """A part of Identity."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        every = "/v3/users/{user}/application_credentials"
        return [
            Operation("GET", every, self.list_applications, queries=("name",)),
            Operation("POST", every, self.create_application, status=201, body=ApplicationRequest),
            Operation("GET", f"{every}/{{id}}", self.get_application),
            Operation("DELETE", f"{every}/{{id}}", self.delete_application, status=204),
        ]

    async def list_applications(self, ask: Ask) -> Reply:
        found = [_application(ask, each) for each in await self._applications_of(ask)]
        return listed(ask, "application_credentials", found)

    async def create_application(self, ask: Ask) -> Reply:
        given: ApplicationFields = ask.body.application_credential
        if given.unrestricted:
            raise BadRequest("unrestricted application credentials are not to be had", field="unrestricted")
        roles = [each.id or each.name for each in given.roles]
        ranks = list(UserRole)
        message = CreateCredential(
            kind=CredentialKind.APPLICATION,
            name=given.name,
            user=ask.path["user"],
            project=given.project_id,
            role=max((role for role in roles if role), key=ranks.index, default=None),
            expires_in_s=_seconds_until(given.expires_at),
        )
        made = await self.bus.call(ask.ctx, message)
        return Reply({"application_credential": {**_application(ask, made.credential), "secret": made.secret}})

    async def get_application(self, ask: Ask) -> Reply:
        return Reply({"application_credential": _application(ask, await self._the_application(ask))})

    async def delete_application(self, ask: Ask) -> Reply:
        found = await self._the_application(ask)
        await self.bus.call(ask.ctx, RevokeCredential(credential=found.id))
        return Reply()

    async def _applications_of(self, ask: Ask) -> list[Credential]:
        found = await self.bus.call(ask.ctx, ListCredentials(user=ask.path["user"]))
        return [each for each in found if each.kind is CredentialKind.APPLICATION]

    async def _the_application(self, ask: Ask) -> Credential:
        for each in await self._applications_of(ask):
            if each.id == ask.path["id"]:
                return each
        raise NotFound(f"could not find application credential: {ask.path['id']}")


def _application(ask: Ask, credential: Credential) -> Json:
    return {
        "id": credential.id,
        "name": credential.name,
        "description": None,
        "project_id": credential.project_id,
        "user_id": credential.user_id,
        "roles": [role_of(each) for each in credential.role.covered],
        "expires_at": timestamp(credential.expires_ms)[:-1] if credential.expires_ms else None,
        "unrestricted": False,
        "links": self_link(ask, f"users/{credential.user_id}/application_credentials/{credential.id}"),
    }


def _seconds_until(moment: str | None) -> float | None:
    """In UTC, as Keystone reads it."""
    if moment is None:
        return None
    try:
        left = (datetime.fromisoformat(moment.rstrip("Z")) - datetime.now(UTC).replace(tzinfo=None)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        raise BadRequest("expires_at is no time", field="expires_at") from None
    if left <= 0:
        raise BadRequest("expires_at has passed", field="expires_at")
    return left
