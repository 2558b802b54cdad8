"""A canary for every kind of secret: used in launches and bad requests, and found nowhere that people read."""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Iterator, Sequence
from random import Random

import pytest

from launcher.accounts import CredentialKind
from launcher.amqp import AmqpBus
from launcher.bus import _Delivery, encode
from launcher.clock import SystemClock
from launcher.config import load
from launcher.dead_letters import DeadLetter
from launcher.errors import BadRequest, BusUnavailable, Unauthorized
from launcher.identity import new_token
from launcher.messages.access import LogIn
from launcher.messages.instances import CreateInstances
from launcher.models import InstanceId
from tests.contract.wire import CTX
from tests.flow.house import ADMIN, TOKEN, House, Json
from tests.flow.test_access import signed
from tests.waiting import eventually

USER_DATA = "canary: the password of the guest's database is canary-in-user-data"
PASSWORD = "canary-password-of-the-broker"


@pytest.fixture(autouse=True)
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG):
        yield


class Canaries:
    """Texts that must not be seen, and what was looked at."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def add_key(self, private_key: str) -> None:
        lines = [line for line in private_key.splitlines() if line and "-----" not in line]
        assert lines
        self.texts += lines

    def seen_in(self, *texts: str) -> list[str]:
        return [canary for canary in self.texts for text in texts if canary in text]


async def told(house: House, instances: Sequence[Json]) -> list[str]:
    """All that the API says of instances afterwards."""
    paths = [f"/events?instance_id={each['id']}&follow=false" for each in instances]
    paths += [f"/instances/{each['id']}{part}" for each in instances for part in ("", "/trace", "/readiness")]
    answers = []
    for path in [*paths, "/instances?deleted=true", "/keypairs", "/metrics", "/healthz"]:
        async with house.http.get(path) as response:
            answers.append(await response.text())
    return answers


async def test_a_launch_a_failure_and_an_end_tell_no_secret(house: House, caplog: pytest.LogCaptureFixture) -> None:
    canaries = Canaries(TOKEN, "canary-in-user-data", base64.b64encode(USER_DATA.encode()).decode())
    made = await house.ask("POST", "/keypairs", {"name": "mine"}, status=201)
    canaries.add_key(made["private_key"])
    wanted = {"key_name": "mine", "user_data": base64.b64encode(USER_DATA.encode()).decode()}
    launched = await house.launch(**wanted)
    await house.until(launched["id"], "ACTIVE")

    async def bug(point: str, instance_id: InstanceId) -> None:
        if point == "spawn":
            raise RuntimeError("a bug that nobody expected")

    house.virt.fault = bug
    failed = await house.launch(**wanted)
    await house.until(failed["id"], "ERROR")
    assert "a bug that nobody expected" in caplog.text
    await house.ask("DELETE", f"/instances/{launched['id']}", status=202)
    await house.until(launched["id"], "DELETED")
    assert canaries.seen_in(caplog.text, *await told(house, [launched, failed])) == []


async def test_passwords_keys_and_tokens_are_told_once(house: House, caplog: pytest.LogCaptureFixture) -> None:
    canaries, word = Canaries(ADMIN.password, ADMIN.secret_key, "canary-password"), "canary-password-of-eve"
    eve = await house.ask("POST", "/users", {"name": "eve", "password": word, "default_project": "admin"}, status=201)
    await house.ask("PUT", "/projects/admin/users/eve/roles/member", status=204)
    made = [await house.ask("POST", "/credentials", {"kind": kind}, status=201) for kind in CredentialKind]
    login = {"user": "eve", "password": word, "project": "admin"}
    made += [await house.ask("POST", "/tokens", login, status=201)]
    canaries.texts += [each.pop("secret") for each in made]
    told = [str(eve), str(made), str(await house.ask("POST", "/tokens", {**login, "password": word + "x"}, status=401))]
    told += [str(await house.ask("POST", "/tokens", {**login, "project": ["canary-password"]}, status=400))]
    told += [str(await house.ask("PUT", "/password", {"original": word, "password": word}, status=403))]
    for secret in (ADMIN.secret_key, "canary-password"):
        with pytest.raises(Unauthorized) as refused:
            await house.bus.call(CTX, signed(secret=secret, key=secret))
        told += [f"{refused.value} {refused.value.hint}"]
    for path in ("/users", "/users/eve", "/credentials", "/grants", "/tokens/self", "/metrics"):
        async with house.http.get(path) as response:
            told += [await response.text()]
    told += [repr(LogIn(user="eve", password=word)), repr(ADMIN)]
    assert canaries.seen_in(caplog.text, *told) == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/instances", {"user_data": "canary, which is not base64"}),
        ("/instances", {"user_data": ["canary"]}),
        ("/instances", {"password": "canary"}),
        ("/keypairs", {"name": "mine", "private_key": "canary"}),
        ("/keypairs", {"name": "mine", "public_key": "-----BEGIN OPENSSH PRIVATE KEY----- canary"}),
        ("/keypairs", {"name": "mine", "public_key": "ssh-rsa canary"}),
    ],
)
async def test_what_is_refused_is_not_repeated(
    house: House, caplog: pytest.LogCaptureFixture, path: str, body: Json
) -> None:
    needed = {"image": "ami-tiny", "flavor": "m1.tiny"} if path == "/instances" else {}
    problem = await house.ask("POST", path, {**needed, **body}, status=400)
    assert "canary" not in f"{problem} {caplog.text}"


async def test_a_token_that_is_wrong_is_not_repeated(house: House, caplog: pytest.LogCaptureFixture) -> None:
    token = new_token(Random(1))
    problem = await house.ask("GET", "/instances", status=401, headers={"Authorization": f"Bearer {token}"})
    problem |= await house.ask("GET", f"/instances?token={token}", status=400)
    assert token not in f"{problem} {caplog.text}"


async def test_a_poison_message_is_reported_without_its_content(house: House, caplog: pytest.LogCaptureFixture) -> None:
    message = CreateInstances(image="ami-tiny", flavor="m1.tiny", user_data="canary", max_count=1)
    body = encode(CTX, message, sent_ms=0).replace(b'"max_count":1', b'"max_count":"canary"')
    house.bus._put("controller", _Delivery(body, math.inf))

    async def buried() -> list[DeadLetter]:
        return list(house.bus.dead.newest)

    dead = await eventually(buried, what="the dead letter")
    async with house.http.get("/healthz") as health:
        assert "canary" not in f"{dead[0].reason} {caplog.text} {await health.text()}"


async def test_the_brokers_password_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    url = f"amqp://launcher:{PASSWORD}@127.0.0.1:1/"
    async with AmqpBus(url, clock=SystemClock(), rng=Random(1)) as bus:
        with pytest.raises(BusUnavailable) as refused:
            await bus.call(CTX, CreateInstances(image="ami-tiny", flavor="m1.tiny"))
    assert PASSWORD not in f"{refused.value} {refused.value.hint} {caplog.text}"


def test_a_setting_with_a_password_that_is_refused_is_not_repeated() -> None:
    with pytest.raises(BadRequest) as refused:
        load(None, [f"bus.url=ampq://launcher:{PASSWORD}@localhost/"])
    assert PASSWORD not in str(refused.value)
    assert "bus.url" in str(refused.value)
