"""Identity v3's users, projects and roles. There is one domain, `default`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from launcher.accounts import AccountName, Grant, Password, Project, User, UserRole, Words
from launcher.bus import Bus
from launcher.errors import BadRequest, NotFound
from launcher.messages.accounts import (
    ChangePassword,
    CreateProject,
    CreateUser,
    DeleteProject,
    DeleteUser,
    GetProject,
    GetUser,
    GrantRole,
    ListGrants,
    ListProjects,
    ListUsers,
    UpdateProject,
    UpdateUser,
    WithdrawRole,
)
from launcher.models import Model
from launcher.services.api.openstack.frame import Ask, Json, Operation, Reply

DOMAIN, DOMAIN_NAME = "default", "Default"


class ProjectFields(Model):
    name: AccountName | None = None
    description: Words | None = None
    enabled: bool | None = None
    domain_id: str | None = None
    parent_id: str | None = None
    is_domain: bool = False
    tags: list[str] = Field(default_factory=list, max_length=0)
    options: dict[str, Any] = Field(default_factory=dict, max_length=0)


class ProjectRequest(Model):
    project: ProjectFields


class UserFields(Model):
    name: AccountName | None = None
    password: Password | None = Field(default=None, repr=False)
    email: Words | None = None
    description: Words | None = None
    default_project_id: AccountName | None = None
    enabled: bool | None = None
    domain_id: str | None = None
    options: dict[str, Any] = Field(default_factory=dict, max_length=0)


class UserRequest(Model):
    user: UserFields


class PasswordFields(Model):
    original_password: Password = Field(repr=False)
    password: Password = Field(repr=False)


class PasswordRequest(Model):
    user: PasswordFields


class IdentityAccounts:
    """A part of Identity."""

    def __init__(self, *, bus: Bus) -> None:
        self.bus = bus

    @property
    def operations(self) -> Sequence[Operation]:
        return [*self._projects(), *self._users(), *self._roles()]

    def _projects(self) -> Sequence[Operation]:
        every, one = "/v3/projects", "/v3/projects/{project}"
        queries = ("name", "domain_id", "enabled", "parent_id", "is_domain")
        return [
            Operation("GET", every, self.list_projects, queries=queries),
            Operation("POST", every, self.create_project, status=201, body=ProjectRequest),
            Operation("GET", one, self.get_project, queries=("parents_as_ids", "subtree_as_ids")),
            Operation("PATCH", one, self.update_project, body=ProjectRequest),
            Operation("DELETE", one, self.delete_project, status=204),
            Operation("GET", "/v3/auth/projects", self.list_own_projects),
            Operation("GET", "/v3/users/{user}/projects", self.list_projects_of, queries=queries),
            Operation("GET", "/v3/domains", self.list_domains, queries=("name", "enabled")),
            Operation("GET", "/v3/domains/{domain}", self.get_domain),
        ]

    def _users(self) -> Sequence[Operation]:
        every, one = "/v3/users", "/v3/users/{user}"
        return [
            Operation("GET", every, self.list_users, queries=("name", "domain_id", "enabled")),
            Operation("POST", every, self.create_user, status=201, body=UserRequest),
            Operation("GET", one, self.get_user),
            Operation("PATCH", one, self.update_user, body=UserRequest),
            Operation("DELETE", one, self.delete_user, status=204),
            Operation("POST", f"{one}/password", self.change_password, status=204, body=PasswordRequest),
        ]

    def _roles(self) -> Sequence[Operation]:
        held = "/v3/projects/{project}/users/{user}/roles"
        filters = ("user.id", "scope.project.id", "role.id", "effective", "include_names", "include_subtree")
        return [
            Operation("GET", "/v3/roles", self.list_roles, queries=("name", "domain_id")),
            Operation("GET", "/v3/roles/{role}", self.get_role),
            Operation("GET", held, self.list_held),
            Operation("PUT", f"{held}/{{role}}", self.grant, status=204),
            Operation("HEAD", f"{held}/{{role}}", self.check_held, status=204),
            Operation("DELETE", f"{held}/{{role}}", self.withdraw, status=204),
            Operation("GET", "/v3/role_assignments", self.list_assignments, queries=filters),
        ]

    # --- projects and domains ---------------------------------------------------------------------------------

    async def list_projects(self, ask: Ask) -> Reply:
        return self._projects_reply(ask, await self.bus.call(ask.ctx, ListProjects()))

    async def list_own_projects(self, ask: Ask) -> Reply:
        return self._projects_reply(ask, await self.bus.call(ask.ctx, ListProjects(user=ask.ctx.user_id)))

    async def list_projects_of(self, ask: Ask) -> Reply:
        return self._projects_reply(ask, await self.bus.call(ask.ctx, ListProjects(user=ask.path["user"])))

    def _projects_reply(self, ask: Ask, found: list[Project]) -> Reply:
        return listed(ask, "projects", [_project(ask, each) for each in found])

    async def create_project(self, ask: Ask) -> Reply:
        given: ProjectFields = ask.body.project
        _check_domain(given.domain_id, given.parent_id, is_domain=given.is_domain)
        if given.name is None:
            raise BadRequest("a project needs a name", field="name")
        enabled = given.enabled is not False
        message = CreateProject(name=given.name, description=given.description or "", enabled=enabled)
        return Reply({"project": _project(ask, await self.bus.call(ask.ctx, message))})

    async def get_project(self, ask: Ask) -> Reply:
        return Reply({"project": _project(ask, await self._the_project(ask))})

    async def update_project(self, ask: Ask) -> Reply:
        given: ProjectFields = ask.body.project
        _check_domain(given.domain_id, given.parent_id, is_domain=given.is_domain)
        message = UpdateProject(
            project=ask.path["project"], name=given.name, description=given.description, enabled=given.enabled
        )
        return Reply({"project": _project(ask, await self.bus.call(ask.ctx, message))})

    async def delete_project(self, ask: Ask) -> Reply:
        await self.bus.call(ask.ctx, DeleteProject(project=ask.path["project"]))
        return Reply()

    async def list_domains(self, ask: Ask) -> Reply:
        return listed(ask, "domains", [_domain(ask)])

    async def get_domain(self, ask: Ask) -> Reply:
        if ask.path["domain"] != DOMAIN:
            raise NotFound(f"could not find domain: {ask.path['domain']}")
        return Reply({"domain": _domain(ask)})

    async def _the_project(self, ask: Ask) -> Project:
        """By its id; a name is none."""
        found = await self.bus.call(ask.ctx, GetProject(project=ask.path["project"]))
        if found.id != ask.path["project"]:
            raise NotFound(f"could not find project: {ask.path['project']}")
        return found

    # --- users ---------------------------------------------------------------------------------------------------

    async def list_users(self, ask: Ask) -> Reply:
        found = await self.bus.call(ask.ctx, ListUsers())
        return listed(ask, "users", [_user(ask, each) for each in found])

    async def create_user(self, ask: Ask) -> Reply:
        given: UserFields = ask.body.user
        _check_domain(given.domain_id)
        if given.name is None:
            raise BadRequest("a user needs a name", field="name")
        message = CreateUser(
            name=given.name,
            password=given.password,
            email=given.email,
            description=given.description or "",
            default_project=given.default_project_id,
            enabled=given.enabled is not False,
        )
        return Reply({"user": _user(ask, await self.bus.call(ask.ctx, message))})

    async def get_user(self, ask: Ask) -> Reply:
        found = await self.bus.call(ask.ctx, GetUser(user=ask.path["user"]))
        if found.id != ask.path["user"]:
            raise NotFound(f"could not find user: {ask.path['user']}")
        return Reply({"user": _user(ask, found)})

    async def update_user(self, ask: Ask) -> Reply:
        given: UserFields = ask.body.user
        _check_domain(given.domain_id)
        message = UpdateUser(
            user=ask.path["user"],
            name=given.name,
            password=given.password,
            email=given.email,
            description=given.description,
            default_project=given.default_project_id,
            enabled=given.enabled,
        )
        return Reply({"user": _user(ask, await self.bus.call(ask.ctx, message))})

    async def delete_user(self, ask: Ask) -> Reply:
        await self.bus.call(ask.ctx, DeleteUser(user=ask.path["user"]))
        return Reply()

    async def change_password(self, ask: Ask) -> Reply:
        if ask.path["user"] != ask.ctx.user_id:
            raise NotFound(f"could not find user: {ask.path['user']}")
        given: PasswordFields = ask.body.user
        await self.bus.call(ask.ctx, ChangePassword(original=given.original_password, password=given.password))
        return Reply()

    # --- roles ---------------------------------------------------------------------------------------------------

    async def list_roles(self, ask: Ask) -> Reply:
        found = [{**role_of(role), "links": self_link(ask, f"roles/{role}")} for role in UserRole]
        return listed(ask, "roles", found)

    async def get_role(self, ask: Ask) -> Reply:
        role = _role(ask)
        return Reply({"role": {**role_of(role), "links": self_link(ask, f"roles/{role}")}})

    async def list_held(self, ask: Ask) -> Reply:
        return listed(ask, "roles", [role_of(each.role) for each in await self._held(ask)])

    async def check_held(self, ask: Ask) -> Reply:
        if _role(ask) not in [each.role for each in await self._held(ask)]:
            raise NotFound("the user has not that role there")
        return Reply()

    async def _held(self, ask: Ask) -> list[Grant]:
        return await self.bus.call(ask.ctx, ListGrants(user=ask.path["user"], project=ask.path["project"]))

    async def grant(self, ask: Ask) -> Reply:
        message = GrantRole(user=ask.path["user"], project=ask.path["project"], role=_role(ask))
        await self.bus.call(ask.ctx, message)
        return Reply()

    async def withdraw(self, ask: Ask) -> Reply:
        message = WithdrawRole(user=ask.path["user"], project=ask.path["project"], role=_role(ask))
        await self.bus.call(ask.ctx, message)
        return Reply()

    async def list_assignments(self, ask: Ask) -> Reply:
        message = ListGrants(user=ask.query.get("user.id"), project=ask.query.get("scope.project.id"))
        found = await self.bus.call(ask.ctx, message)
        wanted, named = ask.query.get("role.id"), "include_names" in ask.query
        made = [_assignment(ask, each, named=named) for each in found if wanted in (None, each.role)]
        return Reply({"role_assignments": made, "links": _page(ask, "role_assignments")})


def listed(ask: Ask, kind: str, found: list[Json]) -> Reply:
    """Those that fit the query's names."""
    wanted = {name: value for name, value in ask.query.items() if name in ("name", "domain_id", "enabled", "parent_id")}
    fitting = [each for each in found if all(_said(each.get(name)) == value.lower() for name, value in wanted.items())]
    return Reply({kind: fitting, "links": _page(ask, kind)})


def role_of(role: UserRole) -> Json:
    """A role's id is its name."""
    return {"id": str(role), "name": str(role), "domain_id": None, "description": None, "options": {}}


def _said(value: object) -> str:
    return str(value).lower()


def _page(ask: Ask, kind: str) -> Json:
    return {"self": f"{ask.base}/identity/v3/{kind}", "next": None, "previous": None}


def self_link(ask: Ask, path: str) -> Mapping[str, str]:
    return {"self": f"{ask.base}/identity/v3/{path}"}


def _check_domain(*domains: str | None, is_domain: bool = False) -> None:
    if is_domain or any(each not in (None, DOMAIN) for each in domains):
        raise BadRequest(f"there is one domain, {DOMAIN}, and projects have no parents", field="domain_id")


def _role(ask: Ask) -> UserRole:
    try:
        return UserRole(ask.path["role"])
    except ValueError:
        raise NotFound(f"could not find role: {ask.path['role']}") from None


def _domain(ask: Ask) -> Json:
    return {
        "id": DOMAIN,
        "name": DOMAIN_NAME,
        "description": "the only one",
        "enabled": True,
        "tags": [],
        "options": {},
        "links": self_link(ask, f"domains/{DOMAIN}"),
    }


def _project(ask: Ask, project: Project) -> Json:
    return {
        "id": project.id,
        "name": project.name,
        "description": project.description,
        "enabled": project.enabled,
        "domain_id": DOMAIN,
        "parent_id": DOMAIN,
        "is_domain": False,
        "tags": [],
        "options": {},
        "links": self_link(ask, f"projects/{project.id}"),
    }


def _user(ask: Ask, user: User) -> Json:
    optional = {"email": user.email, "default_project_id": user.default_project_id}
    return {
        "id": user.id,
        "name": user.name,
        "description": user.description,
        "enabled": user.enabled,
        "domain_id": DOMAIN,
        "password_expires_at": None,
        "options": {},
        "links": self_link(ask, f"users/{user.id}"),
        **{name: value for name, value in optional.items() if value is not None},
    }


def _assignment(ask: Ask, grant: Grant, *, named: bool) -> Json:
    domain: Json = {"id": DOMAIN, "name": DOMAIN_NAME} if named else {}
    user, project = {"id": grant.user.id}, {"id": grant.project.id}
    names = [{"name": str(grant.role)}, {"name": grant.user.name}, {"name": grant.project.name}] if named else [{}] * 3
    extra = {"domain": domain} if named else {}
    path = f"projects/{grant.project.id}/users/{grant.user.id}/roles/{grant.role}"
    return {
        "role": {"id": str(grant.role), **names[0]},
        "user": {**user, **names[1], **extra},
        "scope": {"project": {**project, **names[2], **extra}},
        "links": {"assignment": f"{ask.base}/identity/v3/{path}"},
    }
