"""Every verb of every dialect, asked by somebody of another project, a reader, a member and nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientSession

from launcher.accounts import UserRole
from tests.flow.ec2_tenants import EC2
from tests.flow.house import House
from tests.flow.openstack_tenants import OPENSTACK
from tests.flow.tenants import NATIVE, TOLD, Dialect, Things, Verb, ask, make_things, people
from tests.flow.test_floating_ips import POOLS

DIALECTS = {"native": NATIVE, "ec2": EC2, "openstack": OPENSTACK}
"""By name. A dialect that is added here is held to what the others are."""


@dataclass
class Town:
    house: House
    people: Mapping[str, ClientSession]
    things: Things


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with House(tmp_path, pools=POOLS).open() as house, people(house) as sessions:
        yield Town(house, sessions, await make_things(house, sessions["alice"]))


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


async def state_of_alpha(town: Town) -> list[str]:
    """All that its member can read, which is not to change by what strangers do."""
    reads = [verb for verb in NATIVE.verbs if verb.method == "GET" and verb.needs is UserRole.READER]
    steady = [
        verb for verb in reads if not any(word in verb.route for word in ("readiness", "trace", "events", "hosts"))
    ]
    return [(await ask(town.people["alice"], verb, town.things))[1] for verb in steady]


async def test_every_verb_is_on_the_list(town: Town, dialect: Dialect) -> None:
    assert {verb.route for verb in dialect.verbs} == dialect.served(town.house)


async def test_somebody_of_another_project_sees_and_changes_nothing(town: Town, dialect: Dialect) -> None:
    before, wrong = await state_of_alpha(town), []
    secrets = [value for kind, value in town.things.items() if kind not in TOLD]
    for verb in dialect.verbs:
        status, text = await dialect.ask(town.people["bob"], verb, town.things)
        told = [secret for secret in secrets if len(secret) > 3 and secret in text] if status < 400 else []
        if status != verb.foreign or told:
            wrong.append((verb.route, verb.path, status, text[:300], told))
    assert wrong == []
    assert await state_of_alpha(town) == before


async def outcomes(town: Town, dialect: Dialect, name: str, role: UserRole) -> list[tuple[str, str, int, str]]:
    """The verbs that were not answered as this role of the project should be."""
    wrong = []
    for verb in dialect.verbs:
        status, text = await dialect.ask(town.people[name], verb, town.things)
        expected = verb.works if role.covers(verb.needs) else (403,)
        if status not in expected:
            wrong.append((verb.route, verb.path, status, text[:300]))
    return wrong


async def test_a_reader_reads_and_changes_nothing(town: Town, dialect: Dialect) -> None:
    assert await outcomes(town, dialect, "rita", UserRole.READER) == []


async def test_a_member_does_all_but_what_is_an_admins(town: Town, dialect: Dialect) -> None:
    assert await outcomes(town, dialect, "alice", UserRole.MEMBER) == []


async def test_nobody_gets_in(town: Town, dialect: Dialect) -> None:
    async with ClientSession(town.house.url) as nobody:
        found = {verb.route: (await dialect.ask(nobody, verb, town.things))[0] for verb in dialect.verbs}
    assert {route: status for route, status in found.items() if status not in (401, 403)} == {}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/projects/alpha/users/alice/roles/member", None),
        ("PATCH", "/users/alice", {"enabled": False}),
        ("PATCH", "/projects/alpha", {"enabled": False}),
        ("PATCH", "/users/alice", {"password": "another"}),
        ("DELETE", "/users/alice", None),
    ],
)
async def test_who_is_put_out_is_out_at_once(town: Town, method: str, path: str, body: object) -> None:
    look = Verb("GET /instances")
    assert (await ask(town.people["alice"], look, town.things))[0] == 200
    async with town.house.http.request(method, path, json=body) as response:
        assert response.status < 300, await response.text()
    assert (await ask(town.people["alice"], look, town.things))[0] == 401
