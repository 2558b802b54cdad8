"""Who is let in: bearer tokens and signatures, by messages as the dialects send them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging

import pytest

from launcher.accounts import UserRole
from launcher.errors import Forbidden, LauncherError, Unauthorized
from launcher.messages.access import VerifySignature
from launcher.messages.instances import CreateInstances, ListInstances
from launcher.messaging import Context
from tests.flow.house import ADMIN, House

NOBODY = Context(request_id="req-1", project_id="", user_id="", trace_id="0" * 32)
DATE, REGION = "20261125", "127.0"


def signed(
    *, version: int = 4, key: str = ADMIN.access_key, secret: str = ADMIN.secret_key, service: str = "ec2"
) -> VerifySignature:
    """A request's signature, made as the documents of EC2 say."""
    if version == 2:
        text = "GET\n127.0.0.1:8774\n/\nAWSAccessKeyId=LAADMIN&Action=DescribeInstances"
        made = base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()).decode()
        return VerifySignature(access_key=key, version=2, string_to_sign=text, signature=made)
    text = f"AWS4-HMAC-SHA256\n{DATE}T120000Z\n{DATE}/{REGION}/{service}/aws4_request\n{'0' * 64}"
    derived = b"AWS4" + secret.encode()
    for word in (DATE, REGION, service, "aws4_request", text):
        derived = hmac.new(derived, word.encode(), hashlib.sha256).digest()
    return VerifySignature(access_key=key, version=4, string_to_sign=text, signature=derived.hex())


async def refusal(house: House, message: VerifySignature) -> tuple[str, str, str]:
    with pytest.raises(Unauthorized) as refused:
        await house.bus.call(NOBODY, message)
    return refused.value.code, refused.value.message, refused.value.hint


@pytest.mark.parametrize("version", [2, 4])
async def test_a_signature_tells_who_asks(house: House, version: int) -> None:
    found = await house.bus.call(NOBODY, signed(version=version))
    assert (found.user_id, found.project_id, found.role) == ("admin", "admin", UserRole.ADMIN)


async def test_whatever_is_wrong_with_a_signature_is_told_in_the_same_words(house: House) -> None:
    good = signed()
    wrong = [
        signed(secret="another"),
        signed(version=2, secret="another"),
        signed(key="LANOBODY"),
        signed(version=2, key="LANOBODY"),
        signed(service="s3"),
        good.model_copy(update={"signature": ""}),
        good.model_copy(update={"signature": "é"}),
        good.model_copy(update={"string_to_sign": "one line"}),
        good.model_copy(update={"version": 2}),
        VerifySignature(access_key=ADMIN.token, version=2, string_to_sign="", signature=""),
    ]
    assert len({await refusal(house, each) for each in wrong}) == 1


async def test_guessing_locks_the_key_for_a_while(house: House, caplog: pytest.LogCaptureFixture) -> None:
    lockout = house.controller.access.lockout
    for _ in range(lockout.limit - 1):
        await refusal(house, signed(secret="guess"))
    await house.bus.call(NOBODY, signed())
    with caplog.at_level(logging.WARNING):
        words = {await refusal(house, signed(secret="guess")) for _ in range(lockout.limit)}
    assert "LAADMIN is locked" in caplog.text
    assert ADMIN.secret_key not in caplog.text
    assert words == {await refusal(house, signed())}
    lockout.records[ADMIN.access_key].until_ms = house.controller.clock.now_ms()
    await house.bus.call(NOBODY, signed())


async def test_keys_that_are_not_there_are_not_remembered(house: House) -> None:
    for number in range(50):
        await refusal(house, signed(key=f"LA{number}"))
    assert house.controller.access.lockout.records == {}


async def test_a_reader_looks_and_does_nothing(house: House) -> None:
    reader = NOBODY.model_copy(update={"project_id": "admin", "user_id": "r"})
    assert await house.bus.call(reader, ListInstances()) == []
    with pytest.raises(Forbidden, match="create_instances needs the role member in the project, yours is reader"):
        await house.bus.call(reader, CreateInstances(image="ami-tiny", flavor="m1.tiny"))


async def test_new_secrets_in_the_admins_file_replace_the_old(house: House) -> None:
    fresh = ADMIN.model_copy(update={"token": "lt_new", "access_key": "LANEW", "secret_key": "new"})
    await house.controller.access.keep_admin(fresh)
    await house.ask("GET", "/instances", status=401)
    await house.ask("GET", "/instances", status=200, headers={"Authorization": "Bearer lt_new"})
    await house.bus.call(NOBODY, signed(key="LANEW", secret="new"))
    with pytest.raises(LauncherError):
        await house.bus.call(NOBODY, signed())
