"""Projects, users, credentials and the variables for other clients, by the command line against a whole launcher."""

from __future__ import annotations

import json
import shlex
import stat
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path
from random import Random

import pytest

from launcher.admin_file import keep_admin
from launcher.cli.client import Exit
from launcher.errors import Unauthorized
from tests.flow.conftest import Run
from tests.flow.house import ADMIN, TOKEN, House, Json
from tests.flow.test_access import NOBODY, signed


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    async with House(tmp_path).open() as house:
        monkeypatch.setenv("LAUNCHER_URL", house.url)
        monkeypatch.setenv("LAUNCHER_TOKEN", TOKEN)
        yield house


def exported(out: str) -> dict[str, str]:
    """What a shell would make of the lines."""
    words = [shlex.split(line) for line in out.splitlines()]
    assert all(len(each) == 2 and each[0] == "export" for each in words)
    return dict(each[1].split("=", 1) for each in words)


async def test_a_user_comes_works_and_goes(
    house: House, launcher: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await launcher("project create web --description 'of the shop'"))[0] == Exit.OK
    monkeypatch.setattr("sys.stdin", StringIO("canary-password\n"))
    assert (await launcher("user create bob --password - --project web --role reader"))[0] == Exit.OK
    assert "reader of web" in (await launcher("user list"))[1]
    token = exported((await launcher("credentials create --kind token --user bob --env"))[1])
    assert token["LAUNCHER_URL"] == house.url
    monkeypatch.setenv("LAUNCHER_TOKEN", token["LAUNCHER_TOKEN"])
    assert "web" in (await launcher("project list"))[1]
    code, _, err = await launcher("run ami-tiny")
    assert (code, "role member" in err) == (Exit.REFUSED, True)
    monkeypatch.setenv("LAUNCHER_TOKEN", TOKEN)
    assert (await launcher("user grant bob web member"))[0] == Exit.OK
    assert (await launcher("project quota web instances=1"))[1].split()[:2] == ["instances", "1"]
    bob = {"user": "bob", "password": "canary-password", "project": "web"}
    mine = (await house.ask("POST", "/tokens", bob, status=201))["secret"]
    headers = {"Authorization": f"Bearer {mine}"}
    body = {"image": "ami-tiny", "flavor": "m1.tiny"}
    made = (await house.ask("POST", "/instances", body, status=202, headers=headers))["instances"][0]
    assert (await house.ask("POST", "/instances", body, status=403, headers=headers))["code"] == "quota_exceeded"
    assert (await launcher("project delete web"))[0] == Exit.REFUSED
    await house.until(made["id"], "ACTIVE")
    await house.ask("DELETE", f"/instances/{made['id']}", status=202)
    await house.until(made["id"], "DELETED")
    assert (await launcher("project quota web --reset"))[1].split()[:2] == ["instances", "1000"]
    assert (await launcher("project delete web"))[0] == Exit.OK
    assert (await launcher("user delete bob"))[0] == Exit.OK
    await house.ask("GET", "/instances", status=401, headers=headers)


async def test_access_keys_are_told_once_and_end_at_once(house: House, launcher: Run) -> None:
    made = exported((await launcher("credentials create --name ci --role reader --env"))[1])
    key, secret = made["AWS_ACCESS_KEY_ID"], made["AWS_SECRET_ACCESS_KEY"]
    assert (made["EC2_ACCESS_KEY"], made["EC2_SECRET_KEY"]) == (key, secret)
    who = await house.bus.call(NOBODY, signed(key=key, secret=secret))
    assert (who.user_id, who.role) == ("admin", "reader")
    listed = (await launcher("credentials list"))[1]
    assert key in listed
    assert secret not in listed
    assert (await launcher(f"credentials revoke {key}"))[0] == Exit.OK
    with pytest.raises(Unauthorized):
        await house.bus.call(NOBODY, signed(key=key, secret=secret))
    assert (await launcher(f"credentials revoke {key}"))[0] == Exit.NOT_FOUND


async def test_a_token_ends_by_itself(house: House, launcher: Run) -> None:
    made = json.loads((await launcher("credentials create --kind token --expires-in 0.001 --json"))[1])
    await house.ask("GET", "/instances", status=401, headers={"Authorization": f"Bearer {made['secret']}"})
    await house.controller.prune()
    assert made["id"] not in (await launcher("credentials list"))[1]


async def test_the_environment_has_what_other_clients_need(tmp_path: Path, launcher: Run) -> None:
    admin = keep_admin(tmp_path, url="http://127.0.0.1:1", region="here", rng=Random(1))
    assert stat.S_IMODE((tmp_path / "admin.json").stat().st_mode) == 0o600
    found = exported((await launcher(f"env --state {tmp_path}"))[1])
    assert found["AWS_ENDPOINT_URL_EC2"] == "http://127.0.0.1:1"
    assert found["EC2_URL"] == "http://127.0.0.1:1/services/Cloud"
    assert found["OS_AUTH_URL"] == "http://127.0.0.1:1/identity/v3"
    assert found["AWS_DEFAULT_REGION"] == found["OS_REGION_NAME"] == "here"
    assert (found["AWS_ACCESS_KEY_ID"], found["AWS_SECRET_ACCESS_KEY"]) == (admin.access_key, admin.secret_key)
    assert (found["OS_USERNAME"], found["OS_PASSWORD"], found["OS_PROJECT_NAME"]) == ("admin", admin.password, "admin")
    assert found["OS_USER_DOMAIN_NAME"] == found["OS_PROJECT_DOMAIN_NAME"] == "Default"
    assert (await launcher(f"env --state {tmp_path / 'nowhere'}"))[0] != Exit.OK


async def test_what_an_application_credential_got_cannot_make_more(house: House) -> None:
    made = await house.ask("POST", "/credentials", {"kind": "application", "name": "app", "role": "member"}, status=201)
    by_name = {"credential": "app", "user": "admin", "secret": made["secret"]}
    await house.ask("POST", "/tokens", {**by_name, "secret": "guess"}, status=401)
    await house.ask("POST", "/tokens", {**by_name, "user": "eve"}, status=401)
    await house.ask("POST", "/tokens", by_name, status=201)
    token = await house.ask("POST", "/tokens", {"credential": made["id"], "secret": made["secret"]}, status=201)
    headers = {"Authorization": f"Bearer {token['secret']}"}
    assert (await house.ask("GET", "/tokens/self", status=200, headers=headers))["role"] == "member"
    await house.ask("POST", "/credentials", {}, status=403, headers=headers)
    await house.ask("DELETE", f"/credentials/{made['id']}", status=204)
    await house.ask("GET", "/tokens/self", status=401, headers=headers)


async def test_guessing_passwords_locks_the_user_and_says_so_to_nobody(house: House) -> None:
    right = {"user": "admin", "password": ADMIN.password, "project": "admin"}
    await house.ask("POST", "/tokens", right, status=201)
    wrong = [{**right, "password": "x"}, {**right, "user": "eve"}, {**right, "project": "none"}]
    said = [await house.ask("POST", "/tokens", each, status=401) for each in wrong]
    assert len({(each["detail"], each["hint"]) for each in said}) == 1
    for _ in range(house.controller.access.lockout.limit):
        await house.ask("POST", "/tokens", wrong[0], status=401)
    assert (await house.ask("POST", "/tokens", right, status=401))["detail"] == said[0]["detail"]
    await house.ask("PUT", "/password", {"original": ADMIN.password, "password": "y"}, status=403)


async def test_who_changes_the_password_ends_what_the_old_one_got(house: House) -> None:
    right = {"user": "admin", "password": ADMIN.password, "project": "admin"}
    token = (await house.ask("POST", "/tokens", right, status=201))["secret"]
    await house.ask("PUT", "/password", {"original": ADMIN.password, "password": "new one"}, status=204)
    await house.ask("GET", "/instances", status=401, headers={"Authorization": f"Bearer {token}"})
    await house.ask("POST", "/tokens", right, status=401)
    await house.ask("POST", "/tokens", {**right, "password": "new one"}, status=201)
    await house.ask("GET", "/instances", status=200)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/users/admin", None),
        ("DELETE", "/projects/admin", None),
        ("PATCH", "/users/admin", {"enabled": False}),
        ("PATCH", "/projects/admin", {"enabled": False}),
        ("DELETE", "/projects/admin/users/admin/roles/admin", None),
    ],
)
async def test_the_first_administrator_stays(house: House, method: str, path: str, body: object) -> None:
    await house.ask(method, path, body, status=409)


@pytest.mark.parametrize("quotas", [{"instances": -1}, {"nonsense": 1}, {"security_groups": 0}])
async def test_a_quota_that_cannot_be_is_refused(house: House, quotas: Json) -> None:
    await house.ask("PUT", "/projects/admin/quotas", {"quotas": quotas}, status=400)
