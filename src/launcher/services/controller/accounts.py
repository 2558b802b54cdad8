"""Projects, users, their roles and quotas."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from random import Random

from launcher.accounts import Grant, Project, User, UserRole
from launcher.admin_file import ADMIN
from launcher.bus import Bus
from launcher.clock import Clock
from launcher.db import accounts, credentials, instances, limits
from launcher.db.database import Database
from launcher.errors import BadRequest, Conflict, Forbidden, NotFound
from launcher.identity import new_account_id
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
from launcher.messages.floating_ips import ListFloatingIps
from launcher.messaging import Context, Route
from launcher.models import Quotas
from launcher.services.controller.access import Access


class Accounts:
    """Who is no admin sees the own user and the projects in which it has a role."""

    def __init__(self, *, db: Database, bus: Bus, clock: Clock, rng: Random, access: Access, usual: Quotas) -> None:
        self.db, self.bus, self.clock, self.rng, self.access, self.usual = db, bus, clock, rng, access, usual

    @property
    def routes(self) -> Sequence[Route]:
        return [
            CreateProject.to(self.create_project),
            ListProjects.to(self.list_projects),
            GetProject.to(self.get_project),
            UpdateProject.to(self.update_project),
            DeleteProject.to(self.delete_project),
            CreateUser.to(self.create_user),
            ListUsers.to(self.list_users),
            GetUser.to(self.get_user),
            UpdateUser.to(self.update_user),
            ChangePassword.to(self.change_password),
            DeleteUser.to(self.delete_user),
            GrantRole.to(self.grant_role),
            WithdrawRole.to(self.withdraw_role),
            ListGrants.to(self.list_grants),
            GetQuotas.to(self.get_quotas),
            SetQuotas.to(self.set_quotas),
            ResetQuotas.to(self.reset_quotas),
        ]

    # --- projects ------------------------------------------------------------------------------------------

    async def create_project(self, ctx: Context, message: CreateProject) -> Project:
        made = Project(id=new_account_id(self.rng), created_ms=self.clock.now_ms(), **message.model_dump())
        await self.db.write(lambda db: accounts.create_project(db, made))
        return made

    async def list_projects(self, ctx: Context, message: ListProjects) -> list[Project]:
        def work(db: sqlite3.Connection) -> list[Project]:
            if message.user is not None:
                return accounts.list_projects(db, _visible_user(db, ctx, message.user).id)
            return accounts.list_projects(db, None if ctx.is_admin else ctx.user_id)

        return await self.db.read(work)

    async def get_project(self, ctx: Context, message: GetProject) -> Project:
        return await self.db.read(lambda db: visible_project(db, ctx, message.project))

    async def update_project(self, ctx: Context, message: UpdateProject) -> Project:
        changes = message.model_dump(exclude={"project"}, exclude_none=True)

        def work(db: sqlite3.Connection) -> Project:
            project = accounts.get_project(db, message.project)
            if project.id == ADMIN and message.enabled is False:
                raise _first("project")
            changed = project.model_copy(update=changes)
            accounts.update_project(db, changed)
            return changed

        return await self.db.write(work)

    async def delete_project(self, ctx: Context, message: DeleteProject) -> None:
        project = await self.get_project(ctx, GetProject(project=message.project))
        if project.id == ADMIN:
            raise _first("project")
        found = await self.bus.call(ctx, ListFloatingIps())
        held = [str(each.address) for each in found if each.project_id == project.id]
        if held:
            raise Conflict(f"project {project.name!r} holds the floating IP {held[0]}", hint="give it back before")

        def work(db: sqlite3.Connection) -> None:
            used = instances.get_usage(db, project.id).instances
            if used:
                raise Conflict(f"project {project.name!r} has {used} instances", hint="delete them before")
            accounts.delete_project(db, project.id)

        await self.db.write(work)

    # --- users ---------------------------------------------------------------------------------------------

    async def create_user(self, ctx: Context, message: CreateUser) -> User:
        hashed = await self.access.passwords.hash(message.password) if message.password is not None else None

        def work(db: sqlite3.Connection) -> User:
            project = accounts.get_project(db, message.default_project) if message.default_project else None
            user = User(
                id=new_account_id(self.rng),
                created_ms=self.clock.now_ms(),
                default_project_id=project.id if project else None,
                has_password=hashed is not None,
                **message.model_dump(exclude={"password", "default_project"}),
            )
            accounts.create_user(db, user, hashed)
            return user

        return await self.db.write(work)

    async def list_users(self, ctx: Context, message: ListUsers) -> list[User]:
        return await self.db.read(accounts.list_users)

    async def get_user(self, ctx: Context, message: GetUser) -> User:
        return await self.db.read(lambda db: _visible_user(db, ctx, message.user))

    async def update_user(self, ctx: Context, message: UpdateUser) -> User:
        hashed = await self.access.passwords.hash(message.password) if message.password is not None else None
        changes = message.model_dump(exclude={"user", "password", "default_project"}, exclude_none=True)

        def work(db: sqlite3.Connection) -> User:
            user = accounts.get_user(db, message.user)
            if user.id == ADMIN and message.enabled is False:
                raise _first("user")
            if message.default_project is not None:
                changes["default_project_id"] = accounts.get_project(db, message.default_project).id
            accounts.update_user(db, user.model_copy(update=changes))
            if hashed is not None:
                accounts.set_password(db, user.id, hashed)
                credentials.delete_tokens(db, user.id)
            return accounts.get_user(db, user.id)

        return await self.db.write(work)

    async def change_password(self, ctx: Context, message: ChangePassword) -> None:
        if await self.access.check_password(ctx.user_id, message.original) is None:
            raise Forbidden("this is not your password", field="original")
        hashed = await self.access.passwords.hash(message.password)

        def work(db: sqlite3.Connection) -> None:
            accounts.set_password(db, ctx.user_id, hashed)
            credentials.delete_tokens(db, ctx.user_id)

        await self.db.write(work)

    async def delete_user(self, ctx: Context, message: DeleteUser) -> None:
        def work(db: sqlite3.Connection) -> None:
            user = accounts.get_user(db, message.user)
            if user.id == ADMIN:
                raise _first("user")
            accounts.delete_user(db, user.id)

        await self.db.write(work)

    # --- roles and quotas ------------------------------------------------------------------------------------

    async def grant_role(self, ctx: Context, message: GrantRole) -> None:
        def work(db: sqlite3.Connection) -> None:
            user, project = accounts.get_user(db, message.user), accounts.get_project(db, message.project)
            accounts.grant(db, user.id, project.id, message.role)

        await self.db.write(work)

    async def withdraw_role(self, ctx: Context, message: WithdrawRole) -> None:
        def work(db: sqlite3.Connection) -> None:
            user, project = accounts.get_user(db, message.user), accounts.get_project(db, message.project)
            if (user.id, project.id, message.role) == (ADMIN, ADMIN, UserRole.ADMIN):
                raise _first("user's role")
            if not accounts.withdraw(db, user.id, project.id, message.role):
                raise NotFound(f"user {user.name!r} is no {message.role} of project {project.name!r}", field="role")

        await self.db.write(work)

    async def list_grants(self, ctx: Context, message: ListGrants) -> list[Grant]:
        def work(db: sqlite3.Connection) -> list[Grant]:
            whose = message.user if ctx.is_admin else message.user or ctx.user_id
            user = _visible_user(db, ctx, whose).id if whose is not None else None
            project = visible_project(db, ctx, message.project).id if message.project is not None else None
            return accounts.list_grants(db, user, project)

        return await self.db.read(work)

    async def get_quotas(self, ctx: Context, message: GetQuotas) -> Quotas:
        def work(db: sqlite3.Connection) -> Quotas:
            own = message.project == ctx.project_id
            project = (own and ctx.project_id) or visible_project(db, ctx, message.project).id
            return self.usual if message.usual else limits.get(db, project, self.usual)

        return await self.db.read(work)

    async def set_quotas(self, ctx: Context, message: SetQuotas) -> Quotas:
        try:
            Quotas.model_validate({**self.usual.model_dump(), **message.quotas})
        except ValueError:
            known = ", ".join(Quotas.model_fields)
            raise BadRequest("a quota has a name that is none, or is too low", hint=known, field="quotas") from None

        def work(db: sqlite3.Connection) -> Quotas:
            project = accounts.get_project(db, message.project)
            for name, most in message.quotas.items():
                limits.put(db, project.id, name, most)
            return limits.get(db, project.id, self.usual)

        return await self.db.write(work)

    async def reset_quotas(self, ctx: Context, message: ResetQuotas) -> Quotas:
        await self.db.write(lambda db: limits.clear(db, accounts.get_project(db, message.project).id))
        return self.usual


def visible_project(db: sqlite3.Connection, ctx: Context, name_or_id: str) -> Project:
    """Raises NotFound for what is not there and, in the same words, for what is none of theirs."""
    if not ctx.is_admin:
        own = accounts.list_projects(db, ctx.user_id) if ctx.user_id else []
        if not any(name_or_id in (each.id, each.name) for each in own):
            raise accounts.no_project(name_or_id)
    return accounts.get_project(db, name_or_id)


def _visible_user(db: sqlite3.Connection, ctx: Context, name_or_id: str) -> User:
    if not ctx.is_admin and name_or_id not in (ctx.user_id, accounts.get_user(db, ctx.user_id).name):
        raise accounts.no_user(name_or_id)
    return accounts.get_user(db, name_or_id)


def _first(kind: str) -> Conflict:
    return Conflict(f"the first administrator's {kind} cannot be taken away", hint="admin.json names it")
