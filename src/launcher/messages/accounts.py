"""To the controller: projects, users, their roles and quotas. Projects and users are named by id or by name."""

from __future__ import annotations

from pydantic import Field

from launcher.accounts import AccountName, Grant, Password, Project, User, UserRole, Words
from launcher.messaging import Call
from launcher.models import Quotas


class CreateProject(Call[Project]):
    """Raises Conflict when the name is taken."""

    topic = "controller"
    needs = UserRole.ADMIN
    name: AccountName
    description: Words = ""
    enabled: bool = True


class ListProjects(Call[list[Project]]):
    """Those that whoever asks has a role in; an admin sees all. `user` narrows it to that user's (admins; oneself)."""

    topic = "controller"
    needs = UserRole.READER
    user: str | None = None


class GetProject(Call[Project]):
    topic = "controller"
    needs = UserRole.READER
    project: str


class UpdateProject(Call[Project]):
    """What is left out stays. In a disabled project nobody can do anything; what runs in it goes on."""

    topic = "controller"
    needs = UserRole.ADMIN
    project: str
    name: AccountName | None = None
    description: Words | None = None
    enabled: bool | None = None


class DeleteProject(Call[None]):
    """With its key pairs, groups and credentials. Raises Conflict while it has instances or floating IPs."""

    topic = "controller"
    needs = UserRole.ADMIN
    project: str


class CreateUser(Call[User]):
    """Raises Conflict when the name is taken."""

    topic = "controller"
    needs = UserRole.ADMIN
    name: AccountName
    password: Password | None = Field(default=None, repr=False)
    email: Words | None = None
    description: Words = ""
    default_project: str | None = None
    enabled: bool = True


class ListUsers(Call[list[User]]):
    topic = "controller"
    needs = UserRole.ADMIN


class GetUser(Call[User]):
    """Oneself; an admin sees all."""

    topic = "controller"
    needs = UserRole.READER
    user: str


class UpdateUser(Call[User]):
    """What is left out stays. With a new password, tokens that were got by the old one end."""

    topic = "controller"
    needs = UserRole.ADMIN
    user: str
    name: AccountName | None = None
    password: Password | None = Field(default=None, repr=False)
    email: Words | None = None
    description: Words | None = None
    default_project: str | None = None
    enabled: bool | None = None


class ChangePassword(Call[None]):
    """One's own. Raises Forbidden when `original` is not the password; that counts as a failure to log in."""

    topic = "controller"
    needs = UserRole.READER
    original: Password = Field(repr=False)
    password: Password = Field(repr=False)


class DeleteUser(Call[None]):
    """With all credentials; what the user has launched stays the project's."""

    topic = "controller"
    needs = UserRole.ADMIN
    user: str


class GrantRole(Call[None]):
    """Repeating it is success."""

    topic = "controller"
    needs = UserRole.ADMIN
    user: str
    project: str
    role: UserRole


class WithdrawRole(Call[None]):
    """Raises NotFound when the user has not that role there. It is felt by the next request."""

    topic = "controller"
    needs = UserRole.ADMIN
    user: str
    project: str
    role: UserRole


class ListGrants(Call[list[Grant]]):
    """Of the user, in the project, or all. Who is no admin sees the own ones."""

    topic = "controller"
    needs = UserRole.READER
    user: str | None = None
    project: str | None = None


class GetQuotas(Call[Quotas]):
    """The own project's, or any (admins)."""

    topic = "controller"
    needs = UserRole.READER
    project: str
    usual: bool = Field(default=False, description="what holds where an administrator has said nothing")


class SetQuotas(Call[Quotas]):
    """What is left out stays as it is."""

    topic = "controller"
    needs = UserRole.ADMIN
    project: str
    quotas: dict[str, int] = Field(max_length=100)


class ResetQuotas(Call[Quotas]):
    """Those of the settings hold again."""

    topic = "controller"
    needs = UserRole.ADMIN
    project: str
