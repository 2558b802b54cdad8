"""Two projects and their people, and what every verb of every dialect must answer to each of them.

A dialect joins by a list of `Verb`s; `test_tenants.py` asks them all, and fails when a verb of it is on no
list.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import ClientSession

from launcher.accounts import UserRole
from launcher.life import PLAIN
from launcher.services.api.openstack.ids import uuid_of
from tests.flow.house import House, Json
from tests.waiting import eventually

READER, MEMBER, ADMIN = UserRole.READER, UserRole.MEMBER, UserRole.ADMIN
PEOPLE = {"alice": ("alpha", MEMBER), "rita": ("alpha", READER), "bob": ("beta", MEMBER)}


@dataclass(frozen=True)
class Verb:
    """`route` is how the dialect names it; `path` and `body` name the first project's things in braces.

    `foreign` is what somebody of another project is answered with; below 400 it must tell nothing of the first
    project's. `works` are the statuses that somebody who may do it gets.
    """

    route: str
    path: str = ""
    needs: UserRole = READER
    body: object = None
    foreign: int = 404
    works: Sequence[int] = (200, 201, 202, 204)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def method(self) -> str:
        return self.route.partition(" ")[0]


Things = dict[str, str]
"""What the first project has, by the names used in verbs."""
TOLD = ("net", "image", "image_id", "role", "port", "network", "project", "user", "flavor")
"""Names among them that everybody may see, or that whoever asks has said."""


@dataclass(frozen=True)
class Dialect:
    """`verbs` in an order in which a member can do them one after another; `served` are the routes that there are."""

    verbs: Sequence[Verb]
    served: Callable[[House], set[str]]
    ask: Callable[[ClientSession, Verb, Things], Awaitable[tuple[int, str]]]


@asynccontextmanager
async def people(house: House) -> AsyncIterator[Mapping[str, ClientSession]]:
    """A session for each, with a bearer token of the one project in which it has a role."""
    tokens = {}
    for project in ("alpha", "beta"):
        await house.ask("POST", "/projects", {"name": project}, status=201)
    for name, (project, role) in PEOPLE.items():
        wanted = {"name": name, "password": f"{name}s-password", "default_project": project}
        await house.ask("POST", "/users", wanted, status=201)
        await house.ask("PUT", f"/projects/{project}/users/{name}/roles/{role}", status=204)
        login = {"user": name, "password": f"{name}s-password", "project": project}
        tokens[name] = (await house.ask("POST", "/tokens", login, status=201))["secret"]
    sessions = {name: ClientSession(house.url, headers=_headers(token)) for name, token in tokens.items()}
    try:
        yield sessions
    finally:
        for session in sessions.values():
            await session.close()


def _headers(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}", "X-Auth-Token": token}


async def ask(session: ClientSession, verb: Verb, things: Things) -> tuple[int, str]:
    path = filled(verb.path or verb.route.partition(" ")[2], things)
    body = filled(verb.body, things)
    try:
        async with (
            asyncio.timeout(10),
            session.request(verb.method, str(path), json=body, headers=verb.headers) as response,
        ):
            return response.status, await response.text()
    except TimeoutError:
        raise AssertionError(f"no answer to {verb.method} {path}") from None


def filled(what: object, things: Things) -> object:
    if isinstance(what, str):
        for name, value in things.items():
            what = what.replace("{" + name + "}", value)
        return what
    if isinstance(what, Mapping):
        return {key: filled(value, things) for key, value in what.items()}
    return [filled(each, things) for each in what] if isinstance(what, list) else what


async def make_things(house: House, owner: ClientSession) -> Things:
    """One of each kind, made by a member of the first project."""

    async def made(path: str, body: Json) -> Json:
        async with owner.post(path, json=body) as response:
            assert response.status < 300, await response.text()
            found: Json = await response.json()
            return found

    async with owner.get("/tokens/self") as response:
        alice = (await response.json())["credential"]
    await made("/keypairs", {"name": "alphas-key"})
    rules = [{"protocol": "tcp", "from_port": 80}]
    group = await made("/security-groups", {"name": "alphas-group", "rules": rules})
    launch = {"image": "ami-tiny", "flavor": "m1.tiny", "name": "alphas-machine", "key_name": "alphas-key"}
    instance = (await made("/instances", launch))["instances"][0]
    (nic,) = (await house.until(instance["id"], "ACTIVE"))["nics"]
    disk = (await made("/images", {"name": "alphas-image", "source": "upload"}))["images"][0]
    async with owner.put(f"/images/{disk['id']}/file", data=b"alphas-disk" * 100) as response:
        assert response.status == 200, await response.text()
    volume = await made("/volumes", {"name": "alphas-volume", "size_gb": 1})

    async def available() -> bool:
        async with owner.get(f"/volumes/{volume['id']}") as response:
            return bool((await response.json())["status"] == "available")

    await eventually(available, what="the volume")
    address = (await made("/floating-ips", {}))["address"]
    return {
        "volume": volume["id"],
        "snapshot": (await made("/snapshots", {"name": "alphas-snapshot", "volume": volume["id"]}))["id"],
        "instance": instance["id"],
        "key": "alphas-key",
        "group": "alphas-group",
        "rule": str(group["rules"][0]["id"]),
        "address": address,
        "fip": uuid_of("floating", address),
        "gid": uuid_of("group", group["id"]),
        "rid": uuid_of("rule", group["rules"][0]["id"]),
        "nic": uuid_of("port", f"{instance['id']}/{nic['mac']}"),
        "net": uuid_of("network", 1),
        "credential": (await made("/credentials", {"name": "alphas-credential"}))["id"],
        "disk": disk["id"],
        "image": "ami-tiny",
        "network": "default",
        "project": "alpha",
        "user": "alice",
        "role": "reader",
        "port": "22",
        "image_id": "00000000-0000-4000-8000-000000000001",
        "pid": alice["project_id"],
        "uid": alice["user_id"],
    }


def _native_served(house: House) -> set[str]:
    return {f"{each.method} {each.path}" for each in house.api.endpoints if not each.public}


ONE, INSTANCE = "/instances/{id}", "/instances/{instance}"
IMAGE, VOLUME, SNAPSHOT = "/images/{disk}", "/volumes/{volume}", "/snapshots/{snapshot}"
GROUP, FLOATING, PROJECT = "/security-groups/{group}", "/floating-ips/{address}", "/projects/{project}"
ROLE = f"{PROJECT}/users/{{user}}/roles/{{role}}"
RULES = {"rules": [{"protocol": "tcp", "from_port": 443}]}
LAUNCH = {"image": "{image}", "flavor": "m1.tiny", "key_name": "{key}"}
EVENTS = "/events?follow=false"
NATIVE = Dialect(
    ask=ask,
    served=_native_served,
    verbs=[
        Verb("GET /instances", foreign=200),
        Verb(f"GET {ONE}", INSTANCE),
        Verb(f"GET {ONE}/console", f"{INSTANCE}/console"),
        Verb(f"GET {ONE}/trace", f"{INSTANCE}/trace"),
        Verb(f"GET {ONE}/readiness", f"{INSTANCE}/readiness"),
        Verb(f"GET {ONE}/explain", f"{INSTANCE}/explain?address=203.0.113.7&port=80"),
        Verb(f"GET {ONE}/metadata-service/{{path:.*}}", f"{INSTANCE}/metadata-service/latest/meta-data/instance-id"),
        Verb(f"GET {ONE}/tcp/{{port}}", f"{INSTANCE}/tcp/{{port}}", needs=MEMBER, works=(502,)),
        Verb("GET /events", EVENTS, foreign=200),
        Verb("GET /events", f"{EVENTS}&instance_id={{instance}}"),
        Verb("GET /keypairs", foreign=200),
        Verb("GET /security-groups", foreign=200),
        Verb(f"GET {GROUP}"),
        Verb("GET /floating-ips", foreign=200),
        Verb(f"GET {FLOATING}"),
        Verb("GET /networks", foreign=200),
        Verb("GET /networks/{id}", "/networks/{network}", foreign=200),
        Verb("GET /images", foreign=200),
        Verb("GET /images/{image}", foreign=200),
        Verb("GET /images/{image}", IMAGE),
        Verb("GET /images/{image}/file", f"{IMAGE}/file"),
        Verb("GET /known-images", foreign=200),
        Verb("GET /flavors", foreign=200),
        Verb("GET /hosts", foreign=200),
        Verb("GET /projects", foreign=200),
        Verb(f"GET {PROJECT}"),
        Verb(f"GET {PROJECT}/quotas"),
        Verb("GET /users/{user}", works=(200, 404)),
        Verb("GET /grants", foreign=200),
        Verb("GET /grants", "/grants?project={project}"),
        Verb("GET /credentials", foreign=200),
        Verb("GET /tokens/self", foreign=200),
        Verb("GET /users", needs=ADMIN, foreign=403),
        Verb("GET /audit", needs=ADMIN, foreign=403),
        Verb("POST /gc", body={"dry_run": True}, needs=ADMIN, foreign=403),
        Verb("POST /images", body={"name": "{image}"}, needs=ADMIN, foreign=403),
        Verb("POST /image-copies/prune", needs=ADMIN, foreign=403),
        Verb("POST /networks", body={"name": "n", "cidr": "10.9.0.0/24"}, needs=ADMIN, foreign=403),
        Verb("DELETE /networks/{id}", "/networks/{network}", needs=ADMIN, foreign=403),
        Verb("POST /projects", body={"name": "gamma"}, needs=ADMIN, foreign=403),
        Verb(f"PATCH {PROJECT}", body={"enabled": False}, needs=ADMIN, foreign=403),
        Verb(f"DELETE {PROJECT}", needs=ADMIN, foreign=403),
        Verb(f"PUT {PROJECT}/quotas", body={"quotas": {"instances": 1}}, needs=ADMIN, foreign=403),
        Verb(f"DELETE {PROJECT}/quotas", needs=ADMIN, foreign=403),
        Verb("POST /users", body={"name": "eve"}, needs=ADMIN, foreign=403),
        Verb("PATCH /users/{user}", body={"enabled": False}, needs=ADMIN, foreign=403),
        Verb("DELETE /users/{user}", needs=ADMIN, foreign=403),
        Verb(f"PUT {ROLE}", needs=ADMIN, foreign=403),
        Verb(f"DELETE {ROLE}", needs=ADMIN, foreign=403),
        Verb("PUT /password", body={"original": "not it", "password": "new"}, foreign=403, works=(403,)),
        Verb("POST /credentials", body={"user": "{user}"}, foreign=403, works=(201, 403)),
        Verb("POST /credentials", body={"project": "{project}"}),
        Verb("POST /instances", body=LAUNCH, needs=MEMBER),
        Verb("POST /instances", body={**LAUNCH, "image": "{disk}", "key_name": None}, needs=MEMBER),
        Verb("POST /images", body={"name": "another", "source": "upload"}, needs=MEMBER, foreign=201),
        Verb("POST /images", body={"name": "copy", "source": "instance:{instance}"}, needs=MEMBER, works=(201, 409)),
        Verb("PATCH /images/{image}", IMAGE, body={"description": "mine"}, needs=MEMBER),
        Verb("PUT /images/{image}/file", f"{IMAGE}/file", needs=MEMBER, works=(409,)),
        Verb("DELETE /images/{image}", IMAGE, needs=MEMBER),
        Verb("GET /volumes", foreign=200),
        Verb("GET /volumes/{id}", VOLUME),
        Verb("GET /snapshots", foreign=200),
        Verb("GET /snapshots/{id}", SNAPSHOT),
        Verb("POST /volumes", body={"name": "another", "size_gb": 1}, needs=MEMBER, foreign=202),
        Verb("POST /snapshots", body={"volume": "{volume}"}, needs=MEMBER, works=(202, 409)),
        Verb("POST /volumes/{id}/size", f"{VOLUME}/size", body={"size_gb": 2}, needs=MEMBER, works=(202, 409)),
        Verb(
            "POST /volumes/{id}/attachment",
            f"{VOLUME}/attachment",
            body={"instance": "{instance}"},
            needs=MEMBER,
            works=(202, 409),
        ),
        Verb("DELETE /volumes/{id}/attachment", f"{VOLUME}/attachment", needs=MEMBER, works=(202, 409)),
        Verb("DELETE /snapshots/{id}", SNAPSHOT, needs=MEMBER, works=(202, 409)),
        Verb("DELETE /volumes/{id}", VOLUME, needs=MEMBER, works=(202, 409)),
        Verb("POST /keypairs", body={"name": "another"}, needs=MEMBER, foreign=201),
        Verb("POST /security-groups", body={"name": "another"}, needs=MEMBER, foreign=201),
        Verb(f"POST {GROUP}/rules", body=RULES, needs=MEMBER),
        Verb(f"DELETE {GROUP}/rules", body=RULES, needs=MEMBER),
        Verb(f"DELETE {GROUP}/rules/{{rule}}", needs=MEMBER),
        Verb(f"PUT {ONE}/security-groups", f"{INSTANCE}/security-groups", body={"security_groups": []}, needs=MEMBER),
        Verb("POST /floating-ips", body={}, needs=MEMBER, foreign=201),
        Verb(f"POST {FLOATING}/association", body={"instance": "{instance}"}, needs=MEMBER),
        Verb(f"DELETE {FLOATING}/association", needs=MEMBER),
        Verb(f"DELETE {FLOATING}", needs=MEMBER),
        Verb(f"PATCH {ONE}", INSTANCE, body={"shutdown_behaviour": "stop"}, needs=MEMBER),
        Verb(f"PUT {ONE}/lock", f"{INSTANCE}/lock", needs=MEMBER),
        Verb(f"DELETE {ONE}/lock", f"{INSTANCE}/lock", needs=MEMBER),
        *(
            Verb(f"POST {ONE}/{verb}", f"{INSTANCE}/{verb}", body={}, needs=MEMBER, works=(202, 409))
            for verb in (*PLAIN, "rebuild", "rescue")
        ),
        Verb(f"DELETE {ONE}", INSTANCE, needs=MEMBER),
        Verb(f"DELETE {GROUP}", "/security-groups/another", needs=MEMBER, foreign=204),
        Verb(f"DELETE {GROUP}", needs=MEMBER, works=(204, 409)),
        Verb("DELETE /keypairs/{name}", "/keypairs/{key}", needs=MEMBER),
        Verb("DELETE /credentials/{id}", "/credentials/{credential}", works=(204, 404)),
        Verb("DELETE /tokens/self", foreign=204),
    ],
)
