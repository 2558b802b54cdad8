"""The messages' tables and their bytes, without a bus."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from launcher import auditing, messages
from launcher.accounts import Identity, UserRole
from launcher.bus import decode, decode_reply, encode, encode_failure, notice_key, routing_key
from launcher.errors import BadMessage, LauncherError, NotFound, RemoteError
from launcher.messages.access import Authenticate, Ping
from launcher.messages.compute import RunInstance
from launcher.messages.instances import GetInstance
from launcher.messages.network import AllocateFixedIp, FindLease
from launcher.messages.notices import HostHeartbeat
from launcher.messages.reports import ReportPower
from launcher.messages.scheduler import ScheduleInstance
from launcher.messaging import Call, Cast, Context, Message, Notice
from launcher.networks import FixedIp

CTX = Context(request_id="req-1", project_id="p", user_id="u", trace_id="a" * 32, span_id="b" * 16)
INSTANCE = "00000000-0000-4000-8000-000000000001"

EVERY: list[type[Message]] = [
    found
    for _, found in [*inspect.getmembers(messages, inspect.isclass), *inspect.getmembers(auditing, inspect.isclass)]
    if issubclass(found, Message) and found not in (Message, Call, Cast, Notice) and "[" not in found.__name__
]


# --- the tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", EVERY, ids=lambda each: each.__name__)
def test_every_message_says_where_it_goes_and_what_it_is(message: type[Message]) -> None:
    assert message.topic in {"controller", "scheduler", "compute", "network", "hosts", "events", "audits"}
    assert issubclass(message, Call | Cast | Notice)
    assert message.method.replace("_", "").isalnum()
    assert message.method.islower()


def test_no_topic_has_two_messages_of_one_method() -> None:
    twice = [key for key, count in Counter((each.topic, each.method) for each in EVERY).items() if count > 1]
    assert twice == []


@pytest.mark.parametrize("call", [each for each in EVERY if issubclass(each, Call)], ids=lambda each: each.__name__)
def test_every_call_knows_its_reply(call: type[Call[Any]]) -> None:
    assert call.reply_adapter() is call.reply_adapter()
    call.reply_adapter().json_schema()


def test_names_on_the_wire() -> None:
    assert AllocateFixedIp.method == "allocate_fixed_ip"
    assert RunInstance.method == ScheduleInstance.method == "run_instance"
    assert routing_key("compute", None) == "compute"
    assert routing_key("compute", "node-1.example") == "compute.node-1.example"
    assert notice_key(HostHeartbeat) == "notice.hosts"


def test_a_route_carries_its_reply() -> None:
    async def find(_: Context, __: FindLease) -> FixedIp | None:
        return None

    async def note(_: Context, __: ReportPower) -> None:
        return None

    assert FindLease.to(find).reply is FindLease.reply_adapter()
    assert ReportPower.to(note).reply is None


def test_what_is_traced_names_its_instance() -> None:
    message = AllocateFixedIp(instance_id=INSTANCE, project_id="p", mac="02:16:3e:00:00:01", hostname="h")
    assert message.traced
    assert message.subject == INSTANCE
    assert GetInstance(instance_id="web").subject is None


def test_a_context_within_a_span_changes_nothing_else() -> None:
    assert CTX.within("c" * 16).model_dump() == CTX.model_dump() | {"span_id": "c" * 16}


# --- the bytes -----------------------------------------------------------------------------------------


def test_the_request_has_novas_shape() -> None:
    body = encode(CTX, Authenticate(token_sha256="00"), sent_ms=1.5, deadline_ms=61001.5)
    assert json.loads(body) == {
        "method": "authenticate",
        "args": {"token_sha256": "00", "unscoped": False},
        "context": CTX.model_dump(),
        "sent_ms": 1.5,
        "deadline_ms": 61001.5,
    }


@given(text=st.text(), sent_ms=st.floats(min_value=0, max_value=1e13), deadline=st.none() | st.floats(0, 1e13))
def test_a_request_arrives_as_it_was_sent(text: str, sent_ms: float, deadline: float | None) -> None:
    sent = GetInstance(instance_id=text)
    envelope = decode(encode(CTX, sent, sent_ms=sent_ms, deadline_ms=deadline))
    assert GetInstance.model_validate(envelope.args) == sent
    assert (envelope.method, envelope.context) == ("get_instance", CTX)
    assert envelope.sent_ms == pytest.approx(sent_ms, abs=0.001)
    assert (envelope.deadline_ms is None) == (deadline is None)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_an_envelope_or_a_bad_message(body: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_reply_or_a_bad_message(body: bytes) -> None:
    with pytest.raises(BadMessage):
        decode_reply(GetInstance(instance_id="x"), body)


def test_a_reply_arrives_as_its_class() -> None:
    identity = Identity(user_id="u", project_id="p", role=UserRole.ADMIN)
    call = Authenticate(token_sha256="00")
    assert decode_reply(call, b'{"result":' + call.reply_adapter().dump_json(identity) + b"}") == identity


def test_a_reply_may_be_nothing() -> None:
    decode_reply(Ping(), b'{"result":null}')
    with pytest.raises(BadMessage, match="ping: unreadable answer"):
        decode_reply(Ping(), b"{}")


@pytest.mark.parametrize("kind", LauncherError.registry.values(), ids=lambda kind: kind.__name__)
def test_every_error_crosses_as_its_class(kind: type[LauncherError]) -> None:
    body = encode_failure(kind('no "luck"', hint="try\nagain", field="name"))
    with pytest.raises(LauncherError) as caught:
        decode_reply(Ping(), body)
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.hint, caught.value.field) == ('no "luck"', "try\nagain", "name")


def test_an_error_of_a_newer_version_is_a_remote_error() -> None:
    with pytest.raises(RemoteError, match="out_of_luck: none left"):
        decode_reply(Ping(), b'{"failure":{"code":"out_of_luck","message":"none left"}}')


def test_a_failure_of_another_shape_is_a_bad_message() -> None:
    with pytest.raises(BadMessage):
        decode_reply(Ping(), b'{"failure":{"reason":"?"}}')


def test_an_error_keeps_its_family() -> None:
    with pytest.raises(NotFound):
        decode_reply(Ping(), encode_failure(NotFound("i-1")))


# --- the models ----------------------------------------------------------------------------------------


def test_a_message_is_frozen_and_refuses_what_it_does_not_know() -> None:
    message = GetInstance(instance_id="x")
    with pytest.raises(ValidationError, match="frozen"):
        message.instance_id = "y"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        GetInstance.model_validate({"instance_id": "x", "more": 1})
