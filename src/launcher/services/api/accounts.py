"""The native dialect's projects, users, roles and quotas; it translates and decides nothing."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from launcher.accounts import AccountName, Grant, Password, Project, User, UserRole, Words
from launcher.bus import Bus
from launcher.errors import Conflict, Forbidden, NotFound
from launcher.messages.accounts import (
    ChangePassword,
    CreateProject,
    CreateUser,
    DeleteProject,
    DeleteUser,
    GetProject,
    GetQuotas,
    GetUser,
    GrantRole,
    ListGrants,
    ListProjects,
    ListUsers,
    ResetQuotas,
    SetQuotas,
    UpdateProject,
    UpdateUser,
    WithdrawRole,
)
from launcher.models import Model, Quotas
from launcher.services.api.endpoint import Answer, Ask, Endpoint


class ProjectBody(Model):
    """POST /projects."""

    name: AccountName
    description: Words = ""
    enabled: bool = True


class ProjectChange(Model):
    """PATCH /projects/{project}: what is left out stays."""

    name: AccountName | None = None
    description: Words | None = None
    enabled: bool | None = None


class UserBody(Model):
    """POST /users. Without a password the user has only the credentials that are made for it."""

    name: AccountName
    password: Password | None = Field(default=None, repr=False)
    email: Words | None = None
    description: Words = ""
    default_project: AccountName | None = None
    enabled: bool = True


class UserChange(Model):
    """PATCH /users/{user}: what is left out stays."""

    name: AccountName | None = None
    password: Password | None = Field(default=None, repr=False)
    email: Words | None = None
    description: Words | None = None
    default_project: AccountName | None = None
    enabled: bool | None = None


class PasswordBody(Model):
    """PUT /password: one's own."""

    original: Password = Field(repr=False)
    password: Password = Field(repr=False)


class QuotasBody(Model):
    """PUT /projects/{project}/quotas: these, the others stay."""

    quotas: dict[str, int] = Field(min_length=1, max_length=100)


class GrantsQuery(Model):
    user: str | None = Field(default=None, max_length=255)
    project: str | None = Field(default=None, max_length=255)


class ProjectList(Model):
    projects: list[Project]


class UserList(Model):
    users: list[User]


class GrantList(Model):
    grants: list[Grant]


class NativeAccounts:
    """In a path stands a project's or user's name or id."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        return [*self._projects(), *self._users(), *self._roles(), *self._quotas()]

    def _projects(self) -> Sequence[Endpoint]:
        every, one, rights = "/projects", "/projects/{project}", (Forbidden, Conflict)
        return [
            Endpoint(
                "POST",
                every,
                self.create_project,
                "Make a project",
                status=201,
                body=ProjectBody,
                response=Project,
                raises=rights,
            ),
            Endpoint("GET", every, self.list_projects, "List one's projects; all, for admins", response=ProjectList),
            Endpoint("GET", one, self.get_project, "Show a project", response=Project),
            Endpoint(
                "PATCH",
                one,
                self.update_project,
                "Rename, describe, disable a project",
                body=ProjectChange,
                response=Project,
                raises=rights,
            ),
            Endpoint("DELETE", one, self.delete_project, "Delete an empty project", status=204, raises=rights),
        ]

    def _users(self) -> Sequence[Endpoint]:
        every, one, rights = "/users", "/users/{user}", (Forbidden, Conflict)
        return [
            Endpoint(
                "POST",
                every,
                self.create_user,
                "Make a user",
                status=201,
                body=UserBody,
                response=User,
                raises=(*rights, NotFound),
            ),
            Endpoint("GET", every, self.list_users, "List users", response=UserList, raises=(Forbidden,)),
            Endpoint("GET", one, self.get_user, "Show a user", response=User),
            Endpoint("PATCH", one, self.update_user, "Change a user", body=UserChange, response=User, raises=rights),
            Endpoint("DELETE", one, self.delete_user, "Delete a user", status=204, raises=rights),
            Endpoint(
                "PUT",
                "/password",
                self.change_password,
                "Change one's own password",
                status=204,
                body=PasswordBody,
                raises=(Forbidden,),
            ),
        ]

    def _roles(self) -> Sequence[Endpoint]:
        one = "/projects/{project}/users/{user}/roles/{role}"
        return [
            Endpoint("PUT", one, self.grant_role, "Give a role", status=204, raises=(Forbidden,)),
            Endpoint("DELETE", one, self.withdraw_role, "Take a role", status=204, raises=(Forbidden, Conflict)),
            Endpoint(
                "GET",
                "/grants",
                self.list_grants,
                "Who has which role where; one's own, all for admins",
                query=GrantsQuery,
                response=GrantList,
                raises=(NotFound,),
            ),
        ]

    def _quotas(self) -> Sequence[Endpoint]:
        one = "/projects/{project}/quotas"
        return [
            Endpoint("GET", one, self.get_quotas, "How much a project may hold", response=Quotas),
            Endpoint("PUT", one, self.set_quotas, "Set quotas", body=QuotasBody, response=Quotas, raises=(Forbidden,)),
            Endpoint("DELETE", one, self.reset_quotas, "The settings' again", response=Quotas, raises=(Forbidden,)),
        ]

    async def create_project(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, CreateProject(**ask.body.model_dump())))

    async def list_projects(self, ask: Ask) -> Answer:
        return Answer(ProjectList(projects=await self.bus.call(ask.ctx, ListProjects())))

    async def get_project(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, GetProject(project=ask.path["project"])))

    async def update_project(self, ask: Ask) -> Answer:
        message = UpdateProject(project=ask.path["project"], **ask.body.model_dump())
        return Answer(await self.bus.call(ask.ctx, message))

    async def delete_project(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, DeleteProject(project=ask.path["project"])))

    async def create_user(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, CreateUser(**ask.body.model_dump())))

    async def list_users(self, ask: Ask) -> Answer:
        return Answer(UserList(users=await self.bus.call(ask.ctx, ListUsers())))

    async def get_user(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, GetUser(user=ask.path["user"])))

    async def update_user(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, UpdateUser(user=ask.path["user"], **ask.body.model_dump())))

    async def delete_user(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, DeleteUser(user=ask.path["user"])))

    async def change_password(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, ChangePassword(**ask.body.model_dump())))

    async def grant_role(self, ask: Ask) -> Answer:
        message = GrantRole(user=ask.path["user"], project=ask.path["project"], role=_role(ask))
        return Answer(await self.bus.call(ask.ctx, message))

    async def withdraw_role(self, ask: Ask) -> Answer:
        message = WithdrawRole(user=ask.path["user"], project=ask.path["project"], role=_role(ask))
        return Answer(await self.bus.call(ask.ctx, message))

    async def list_grants(self, ask: Ask) -> Answer:
        return Answer(GrantList(grants=await self.bus.call(ask.ctx, ListGrants(**ask.query.model_dump()))))

    async def get_quotas(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, GetQuotas(project=ask.path["project"])))

    async def set_quotas(self, ask: Ask) -> Answer:
        message = SetQuotas(project=ask.path["project"], quotas=ask.body.quotas)
        return Answer(await self.bus.call(ask.ctx, message))

    async def reset_quotas(self, ask: Ask) -> Answer:
        return Answer(await self.bus.call(ask.ctx, ResetQuotas(project=ask.path["project"])))


def _role(ask: Ask) -> UserRole:
    try:
        return UserRole(ask.path["role"])
    except ValueError:
        known = ", ".join(UserRole)
        raise NotFound(f"there is no role {ask.path['role']!r}", hint=f"there are {known}", field="role") from None
