"""The commands `project`, `user` and `credentials`."""

from __future__ import annotations

import argparse
import sys
import time
from urllib.parse import quote

from launcher.cli import environment, output
from launcher.cli.client import Api, Exit, Failure, Json, find_endpoint
from launcher.cli.resources import delete_each, show_rows

_ROLES = ("reader", "member", "admin")


def add_project(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    create = verbs.add_parser("create", help="make a project (administrators)")
    create.add_argument("name")
    create.add_argument("--description", default="", metavar="TEXT")
    create.set_defaults(run=create_project)
    verbs.add_parser("list", help="yours; all, for administrators").set_defaults(run=list_projects)
    delete = verbs.add_parser("delete", help="delete empty projects (administrators)")
    delete.add_argument("projects", nargs="+", metavar="NAME")
    delete.set_defaults(run=delete_projects)
    quota = verbs.add_parser("quota", help="show what a project may hold, or set some of it (administrators)")
    quota.add_argument("project", metavar="NAME")
    quota.add_argument("quotas", nargs="*", metavar="QUOTA=N", help="for example instances=20")
    quota.add_argument("--reset", action="store_true", help="those of the server's settings again")
    quota.set_defaults(run=project_quota)


def create_project(args: argparse.Namespace) -> int:
    made = _api(args).post("/projects", {"name": args.name, "description": args.description})
    show_rows([made], made, ("id", "name"), args)
    return Exit.OK


def list_projects(args: argparse.Namespace) -> int:
    found = _api(args).get("/projects")
    show_rows(found["projects"], found, ("id", "name", "enabled", "description"), args)
    return Exit.OK


def delete_projects(args: argparse.Namespace) -> int:
    return delete_each(_api(args), "/projects", args.projects)


def project_quota(args: argparse.Namespace) -> int:
    api, path = _api(args), f"/projects/{quote(args.project, safe='')}/quotas"
    wanted = dict(_pair(word) for word in args.quotas)
    if args.reset:
        api.delete(path)
    found = api.put(path, {"quotas": wanted}) if wanted else api.get(path)
    if args.json:
        output.print_json(found)
    else:
        output.print_fields((name, str(most)) for name, most in found.items())
    return Exit.OK


def _pair(word: str) -> tuple[str, int]:
    name, equals, number = word.partition("=")
    if not (equals and number.isascii() and number.isdecimal()):
        raise Failure(f"{word!r} is no QUOTA=N", exit_code=Exit.USAGE)
    return name, int(number)


def add_user(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    create = verbs.add_parser("create", help="make a user (administrators)")
    create.add_argument("name")
    _add_password(create)
    create.add_argument("--project", metavar="NAME", help="give it a role there; its usual project")
    create.add_argument("--role", choices=_ROLES, default="member", help="the role in that project (member)")
    create.set_defaults(run=create_user)
    verbs.add_parser("list", help="all users and their roles (administrators)").set_defaults(run=list_users)
    delete = verbs.add_parser("delete", help="delete users and their credentials (administrators)")
    delete.add_argument("users", nargs="+", metavar="NAME")
    delete.set_defaults(run=delete_users)
    password = verbs.add_parser("password", help="set a user's password (administrators)")
    password.add_argument("user", metavar="NAME")
    _add_password(password)
    password.set_defaults(run=set_password)
    for verb, text in (("grant", "give a role in a project"), ("revoke", "take a role in a project")):
        role = verbs.add_parser(verb, help=f"{text} (administrators)")
        role.add_argument("user", metavar="NAME")
        role.add_argument("project", metavar="PROJECT")
        role.add_argument("role", choices=_ROLES, nargs="?", default="member")
        role.set_defaults(run=grant if verb == "grant" else revoke)


def _add_password(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--password", metavar="TEXT", help="others on this machine can see it; - reads it from stdin")


def create_user(args: argparse.Namespace) -> int:
    api, body = _api(args), {"name": args.name, "password": _password(args), "default_project": args.project}
    made = api.post("/users", {name: value for name, value in body.items() if value is not None})
    if args.project:
        api.request("PUT", _role_path(args.project, made["id"], args.role))
    show_rows([made], made, ("id", "name"), args)
    return Exit.OK


def list_users(args: argparse.Namespace) -> int:
    api = _api(args)
    found, roles = api.get("/users"), dict[str, list[str]]()
    for each in api.get("/grants")["grants"]:
        roles.setdefault(each["user"]["id"], []).append(f"{each['role']} of {each['project']['name']}")
    rows = [{**user, "roles": ", ".join(roles.get(user["id"], ()))} for user in found["users"]]
    show_rows(rows, found, ("id", "name", "enabled", "roles"), args)
    return Exit.OK


def delete_users(args: argparse.Namespace) -> int:
    return delete_each(_api(args), "/users", args.users)


def set_password(args: argparse.Namespace) -> int:
    password = _password(args)
    if password is None:
        raise Failure("no password is given", exit_code=Exit.USAGE, hint="--password - reads it from stdin")
    _api(args).request("PATCH", f"/users/{quote(args.user, safe='')}", body={"password": password})
    return Exit.OK


def grant(args: argparse.Namespace) -> int:
    _api(args).request("PUT", _role_path(args.project, args.user, args.role))
    return Exit.OK


def revoke(args: argparse.Namespace) -> int:
    _api(args).delete(_role_path(args.project, args.user, args.role))
    return Exit.OK


def _role_path(project: str, user: str, role: str) -> str:
    return f"/projects/{quote(project, safe='')}/users/{quote(user, safe='')}/roles/{role}"


def _password(args: argparse.Namespace) -> str | None:
    """From a terminal it is asked for without an echo."""
    given: str | None = args.password
    if given != "-":
        return given
    if sys.stdin.isatty():
        import getpass  # noqa: PLC0415 - hardly ever needed

        return getpass.getpass()
    return sys.stdin.readline().rstrip("\n")


def add_credentials(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    create = verbs.add_parser("create", help="make one; its secret is shown this once")
    create.add_argument(
        "--kind",
        choices=("access-key", "token", "application"),
        default="access-key",
        help="for EC2's signatures, for this command and HTTP, or for OpenStack's clients (access-key)",
    )
    create.add_argument("--name", metavar="TEXT", help="to tell it from others")
    create.add_argument("--user", metavar="NAME", help="for somebody else (administrators)")
    create.add_argument("--project", metavar="NAME", help="for this one of the user's projects")
    create.add_argument("--role", choices=_ROLES, help="at most this role, whatever the user's is")
    create.add_argument("--expires-in", type=float, metavar="S", help="seconds until it ends")
    create.add_argument("--env", action="store_true", help='say it as variables: eval "$(launcher credentials …)"')
    create.set_defaults(run=create_credential)
    listing = verbs.add_parser("list", help="yours; all, for administrators")
    listing.add_argument("--user", metavar="NAME", help="only this user's")
    listing.set_defaults(run=list_credentials)
    end = verbs.add_parser("revoke", help="end some, now")
    end.add_argument("credentials", nargs="+", metavar="ID")
    end.set_defaults(run=revoke_credentials)


def create_credential(args: argparse.Namespace) -> int:
    api = _api(args)
    wanted = {name: getattr(args, name) for name in ("kind", "name", "user", "project", "role")}
    body: Json = {**wanted, "expires_in_s": args.expires_in}
    made = api.post("/credentials", {name: value for name, value in body.items() if value is not None})
    if args.env:
        output.print_exports(environment.of_credential(api.endpoint, made))
    elif args.json:
        output.print_json(made)
    else:
        output.print_fields((name, str(made[name])) for name in ("id", "secret", "kind", "name", "role"))
    return Exit.OK


def list_credentials(args: argparse.Namespace) -> int:
    found = _api(args).get("/credentials", {"user": args.user})
    rows = [{**each, "project": each["project_id"] or "-", "ends": _ends(each)} for each in found["credentials"]]
    show_rows(rows, found, ("id", "kind", "name", "user_id", "project", "role", "ends"), args)
    return Exit.OK


def _ends(credential: Json) -> str:
    left = (credential["expires_ms"] or 0) / 1000 - time.time()
    return f"in {left:.0f} s" if credential["expires_ms"] else "never"


def revoke_credentials(args: argparse.Namespace) -> int:
    return delete_each(_api(args), "/credentials", args.credentials)


def _api(args: argparse.Namespace) -> Api:
    return Api(find_endpoint(args.state))
