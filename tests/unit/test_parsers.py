"""What reads a stranger's bytes: whatever they are, the outcome is a value or the error that is promised."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from launcher import failpoints
from launcher.admin_file import keep_admin
from launcher.bus import decode, decode_reply, encode_failure
from launcher.cli import events, websocket, wire
from launcher.cli.client import Failure, find_endpoint, refused
from launcher.cli.groups import parse_rule
from launcher.config import Config, load
from launcher.drivers.firewall import chains, rules
from launcher.drivers.images import gate, library, qcow2
from launcher.drivers.network.dnsmasq import read_evidence, release_packet, stray_leases
from launcher.errors import BadImage, BadMessage, BadRequest, LauncherError, NotFound
from launcher.messages.access import Authenticate, Ping
from launcher.messages.reports import RecordSpans
from launcher.models import ImageFormat
from launcher.services.api.callers import TRACEPARENT
from launcher.services.controller import key_pairs
from tests.malformed import NASTY
from tests.orders import NETWORK, make_lease, make_order

ANY_TEXT = st.text() | st.sampled_from(NASTY)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parsers")


# --- the bus -----------------------------------------------------------------------------------------


@given(JSON, st.sampled_from(["method", "args", "context", "sent_ms", "deadline_ms"]))
def test_any_json_is_an_envelope_or_a_bad_message(value: Any, name: str) -> None:
    whole = {"method": "ping", "args": {}, "context": {}, "sent_ms": 0, "deadline_ms": None}
    for body in (value, {**whole, name: value}):
        with pytest.raises(BadMessage) as refused:
            decode(json.dumps(body).encode())
        assert refused.value.message.isprintable()
        assert len(refused.value.message) < 1000


@given(JSON, st.sampled_from(["code", "message", "hint", "field", "more"]))
def test_any_failure_is_an_error_with_words_or_a_bad_message(value: Any, name: str) -> None:
    for reply in ({"failure": value}, {"failure": {"code": "x", "message": "y", name: value}}, {"result": value}):
        with contextlib.suppress(LauncherError):
            decode_reply(Authenticate(token_sha256=""), json.dumps(reply).encode())
            pytest.fail("neither raised nor refused")
        with pytest.raises(LauncherError) as raised:
            decode_reply(Authenticate(token_sha256=""), json.dumps(reply).encode())
        assert all(isinstance(text, str) for text in (raised.value.message, raised.value.hint, raised.value.field))


@given(st.text(), st.text())
def test_any_words_of_an_error_cross_the_bus(message: str, hint: str) -> None:
    """Also half a character, as it stands in the name of a file."""
    with pytest.raises(NotFound) as raised:
        decode_reply(Ping(), encode_failure(NotFound(f"\udc80{message}", hint=hint)))
    assert raised.value.message == f"\\udc80{message}"
    assert raised.value.hint == hint


@pytest.mark.parametrize("time", ["nan", "inf", float("nan"), float("-inf"), None])
def test_a_span_has_a_time(time: object) -> None:
    """One without was kept, and its trace could never be shown again."""
    ids = {"trace_id": "t", "span_id": "s", "parent_id": None}
    span = {
        **ids,
        "role": "r",
        "host": "h",
        "name": "n",
        "kind": "hop",
        "queued_ms": None,
        "start_ms": 0,
        "end_ms": time,
    }
    with pytest.raises(ValidationError):
        RecordSpans.model_validate({"spans": [span]})


# --- the API ---------------------------------------------------------------------------------------------


@given(st.from_regex(r"\A00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z") | ANY_TEXT)
def test_a_trace_is_continued_by_its_own_name_or_not_at_all(header: str) -> None:
    found = TRACEPARENT.fullmatch(header)
    if found is not None:
        assert int(found[1], 16) > 0
        assert int(found[2], 16) > 0
        assert header == f"00-{found[1]}-{found[2]}-{header[-2:]}"
    assert TRACEPARENT.fullmatch(f"00-{'0' * 32}-{'1' * 16}-01") is None


def key_blob(inner: bytes) -> bytes:
    return struct.pack(">I", 11) + b"ssh-ed25519" + struct.pack(">I", len(inner)) + inner


@given(
    st.sampled_from(key_pairs.KEY_TYPES),
    st.binary(max_size=80) | st.binary(max_size=60).map(key_blob),
    ANY_TEXT,
)
def test_any_line_is_a_public_key_or_refused(kind: str, blob: bytes, comment: str) -> None:
    for line in (comment, f"{kind} {comment}", f"{kind} {base64.b64encode(blob).decode()} {comment}"):
        with contextlib.suppress(BadRequest):
            found = key_pairs.parse("name", line)
            assert found.public_key.isprintable()
            assert found.public_key == line.strip()


@given(st.text(st.characters(exclude_categories=["C", "Z"])))
def test_a_key_of_ours_is_read_as_it_was_made(comment: str) -> None:
    _, public, _ = key_pairs.generate("x")
    line = f"{public} {comment}".strip()
    assert key_pairs.parse("x", f"  {line}\n").public_key == line
    with pytest.raises(BadRequest):
        key_pairs.parse("x", f"{line}\n{line}")


# --- the settings --------------------------------------------------------------------------------------------


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="replace")))
def test_any_file_is_a_configuration_or_refused(directory: Path, content: bytes) -> None:
    path = directory / "config.toml"
    path.write_bytes(content)
    with contextlib.suppress(BadRequest):
        load(path, ["virt.driver=fake"])


SECTIONS = [name for name in Config.model_fields if name != "flavors"]
SETTINGS = [f"{name}.{key}" for name in SECTIONS for key in type(getattr(Config(), name)).model_fields]


@given(st.sampled_from(SETTINGS) | ANY_TEXT, JSON.map(json.dumps) | ANY_TEXT)
def test_any_setting_is_taken_or_refused(name: str, value: str) -> None:
    with contextlib.suppress(BadRequest):
        found = load(None, [f"{name}={value}"])
        assert found.network.network().gateway in found.network.cidr
        assert int(found.api.listen.rpartition(":")[2]) < 65536


@pytest.mark.parametrize(
    "setting",
    [
        *("api.listen=localhost:65536", "api.listen=a\x00b:80", "bus.url=amqp://host:99999/", "bus.url=amqp://["),
        *("network.bridge=br 100", "network.bridge=-x", "network.name=a\nb", "network.domain=a\nb", "host.name=#"),
        *(
            "flavors.x=1",
            "fake.vcpus=" + "9" * 5000,
            "network.dns=" + "[" * 5000,
        ),
        *("network.cidr=0.0.0.0/33", "network.cidr=10.0.0.1/24", "fake.vcpus=1\n[api]"),
    ],
    ids=lambda setting: setting[:24],
)
def test_a_hostile_setting_is_refused(setting: str, directory: Path) -> None:
    path = directory / "flavors.toml"
    path.write_text('[[flavors]]\nname = "a"\nvcpus = 1\nmemory_mb = 64\nroot_gb = 0\n')
    with pytest.raises(BadRequest) as refused:
        load(path, [setting])
    assert len(refused.value.message) < 600


def test_a_password_in_a_broken_url_is_not_repeated() -> None:
    for url in (
        "amqp://me:sword/fish@host:1",
        "amqp://me:sword@fish@host:x",
        "amqp://me:swordfish@",
        "ampq://a:sword/@h",
    ):
        with pytest.raises(BadRequest) as refused:
            load(None, [f"bus.url={url}"])
        assert "sword" not in refused.value.message
        assert "fish" not in refused.value.message


@given(ANY_TEXT | st.from_regex(r"\A(imaging|lease|\w{1,5}):(before|after):\d{1,30}:(kill|raise|sleep=\d{1,3})\Z"))
def test_any_words_are_failpoints_or_refused(text: str) -> None:
    try:
        armed = failpoints.parse(text)
    except ValueError as error:
        assert str(error).startswith(failpoints.VARIABLE)  # noqa: PT017 - the other outcome is fine
    else:
        assert set(armed) <= set(failpoints.POINTS)


# --- images ------------------------------------------------------------------------------------------------


WHOLE = bytearray(qcow2._overlay(b"/base", b"raw", 2**30))
WHOLE[8:20] = bytes(12)  # no backing file
CHANGES = st.lists(st.tuples(st.integers(0, 130), st.binary(min_size=1, max_size=9)), max_size=4)


@given(CHANGES, st.sampled_from([len(WHOLE), 130, 104, 103, 72, 4]))
def test_any_file_is_an_image_that_keeps_to_itself_or_refused(
    directory: Path, changes: list[tuple[int, bytes]], length: int
) -> None:
    content = bytearray(WHOLE)
    for at, piece in changes:
        content[at : at + len(piece)] = piece
    path = directory / "disk"
    path.write_bytes(content[:length])
    with contextlib.suppress(BadImage):
        found = gate.inspect(path)
        assert 0 <= found.virtual_size <= 2**46
        assert found.format is ImageFormat.RAW or qcow2.read_header(path).backing_file is None


def test_the_image_that_is_changed_above_is_one(directory: Path) -> None:
    (directory / "whole").write_bytes(WHOLE)
    assert gate.inspect(directory / "whole") == gate.Passed(ImageFormat.QCOW2, len(WHOLE), 2**30)


@given(st.integers(0, 2**44), st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=200))
def test_an_overlay_is_read_as_it_was_written(directory: Path, size: int, name: str) -> None:
    path = directory / "overlay"
    path.unlink(missing_ok=True)
    backing = Path("/") / name.replace("/", "_")
    qcow2.write_overlay(path, backing=backing, backing_format=ImageFormat.RAW, size=size)
    found = qcow2.read_header(path)
    assert (found.backing_file, found.incompatible_features) == (str(backing), 0)
    assert 0 <= found.virtual_size - size < 512


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=100), JSON)
def test_any_description_is_an_image_or_refused(directory: Path, content: bytes, value: Any) -> None:
    home = directory / "library" / ("a" * 252)
    home.mkdir(parents=True, exist_ok=True)
    (home / "disk").write_bytes(b"1234")
    stored = {"format": "raw", "size": 4, "virtual_size": 4, "sha256": "0" * 64}
    for text in (content, json.dumps({"disk": {**stored, "virtual_size": value}, "kernel_args": value}).encode()):
        (home / library.DESCRIPTION).write_bytes(text)
        with contextlib.suppress(BadImage):
            (found,) = library.read_image(directory / "library", home.name)
            assert found.size == 4
    assert len(library.list_images(directory / "library")) <= 1


def test_a_library_with_odd_things_in_it_is_listed(directory: Path) -> None:
    """A server that cannot list its library does not start."""
    shelf = directory / "odd"
    stored = {"format": "raw", "size": 4, "virtual_size": 4, "sha256": "0" * 64}
    for name in ("directory/image.json", "a" * 252, "\udcff", "ok"):
        (shelf / name).mkdir(parents=True)
        if "/" not in name:
            for part in ("disk", "kernel"):
                (shelf / name / part).write_bytes(b"1234")
            (shelf / name / library.DESCRIPTION).write_text(json.dumps({"disk": stored, "kernel": stored}))
    assert [image.name for image in library.list_images(shelf)] == ["ok", "ok-kernel"]


@given(ANY_TEXT)
def test_a_name_never_leads_out_of_the_library(directory: Path, name: str) -> None:
    with pytest.raises((BadImage, NotFound)):
        library.read_image(directory / "empty", name)


# --- the network ---------------------------------------------------------------------------------------------

LEASE = make_lease(make_order(1))
LOG_LINES = st.from_regex(
    r"\A(Nov|Feb|Xxx) +\d{1,9} \d\d:\d\d:\d\d dnsmasq-dhcp\[\d+\]: DHCP(ACK|REQUEST|OFFER)\(br100\) "
    rf"(10\.0\.0\.3 )?({LEASE.mac}|[0-9a-f:]{{17}})( \w+)?\Z"
)


@given(st.lists(LOG_LINES | ANY_TEXT, max_size=6).map("\n".join), st.floats(0, 4e9))
def test_any_log_of_the_dhcp_server_is_evidence_or_none(log: str, written_s: float) -> None:
    found = read_evidence(log, LEASE, written_s=written_s)
    assert not found.last_words or (LEASE.mac in found.last_words and "\n" not in found.last_words)


@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_guest_cannot_begin_a_line_of_the_log(end: str) -> None:
    forged = f"Nov 22 12:47:35 dnsmasq-dhcp[7]: 9 DHCPACK(br100) 10.0.0.3 {LEASE.mac} x"
    log = f"Nov 22 12:47:35 dnsmasq-dhcp[7]: 9 vendor class: {end}{forged}\n"
    assert read_evidence(log, LEASE, written_s=2e9).answered_ms is None


@given(st.lists(st.from_regex(r"\A\d+ [0-9a-f:]{17} \d{1,3}\.\d{1,3}\.0\.\d \S \S\Z") | ANY_TEXT).map("\n".join))
def test_any_file_of_leases_gives_leases_that_can_be_released(text: str) -> None:
    for mac, address in stray_leases(text, ""):
        assert len(release_packet(mac, address, NETWORK.gateway)) == 300


@given(st.lists(st.tuples(st.sampled_from(["-A", ":", "#", "*", ""]), ANY_TEXT)))
def test_whatever_iptables_save_says_is_a_table(lines: list[tuple[str, str]]) -> None:
    text = "\n".join(f"{verb} {' '.join(rest.split())}" for verb, rest in lines)
    table = chains.play({}, f"*filter\n:INPUT ACCEPT [0:0]\n{text}\nCOMMIT\n")
    assert "INPUT" in table
    assert all(isinstance(number, int) for number in rules.instances(table))
    assert chains.play(table, chains.transaction("filter", ())) == table


# --- the command line ------------------------------------------------------------------------------------------


@given(JSON.map(json.dumps) | ANY_TEXT, st.lists(ANY_TEXT, max_size=3))
def test_any_stream_is_events_or_a_failure(data: str, others: list[str]) -> None:
    lines = [*others, *(f"data: {line}" for line in data.split("\n")), ""]
    with contextlib.suppress(Failure):
        for event in events.parse(lines):
            assert isinstance(event["seq"], int)


@given(st.lists(st.dictionaries(st.just("more"), JSON), max_size=5))
def test_events_arrive_as_they_were_sent(bodies: list[dict[str, Any]]) -> None:
    sent = [{"seq": number, "more": repr(body)} for number, body in enumerate(bodies)]
    lines = [line for event in sent for line in (f"id: {event['seq']}", f"data: {json.dumps(event)}", "", ": quiet")]
    assert list(events.parse(lines)) == sent


@contextlib.contextmanager
def server_says(content: bytes) -> Iterator[socket.socket]:
    near, far = socket.socketpair()
    with near, far:
        near.settimeout(5)
        far.sendall(content)
        far.shutdown(socket.SHUT_WR)
        yield near


HEADERS = st.sampled_from(
    [
        b"content-length: 5",
        b"content-length: -1",
        b"content-length: " + b"9" * 5000,
        b"transfer-encoding: chunked",
        b"x",
    ]
)


@given(
    st.sampled_from([b"200", b"999", b"2" * 5000, b"-1", b"\xb2"]),
    st.lists(HEADERS | st.binary(max_size=20), max_size=3),
    st.binary(max_size=40) | st.just(b"5\r\nhello\r\n0\r\n\r\n") | st.just(b"-5\r\nhello"),
)
def test_any_answer_is_read_or_refused(status: bytes, headers: list[bytes], body: bytes) -> None:
    for content in (body, b"\r\n".join((b"HTTP/1.1 " + status + b" OK", *headers, b"", body))):
        with server_says(content) as near, contextlib.suppress(wire.WireError, OSError):
            answer = wire.Answer(near)
            assert 100 <= answer.status < 600
            assert len(b"".join(answer.pieces())) <= len(content)


@given(st.binary(max_size=200))
def test_any_refusal_has_words(body: bytes) -> None:
    assert refused(500, body).title


@given(st.lists(st.tuples(st.sampled_from([1, 2, 8, 9, 10]), st.binary(max_size=300)), max_size=5), st.integers(1, 50))
def test_frames_come_out_as_they_went_in_however_they_were_cut(sent: list[tuple[int, bytes]], cut: int) -> None:
    whole = b"".join(_unmasked(opcode, payload) for opcode, payload in sent)
    frames = websocket.Frames()
    found = [each for at in range(0, len(whole), cut) for each in frames.feed(whole[at : at + cut])]
    assert found == sent


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_any_bytes_are_frames_or_the_beginning_of_one(pieces: list[bytes]) -> None:
    frames = websocket.Frames()
    payloads = [payload for piece in pieces for _, payload in frames.feed(piece)]
    assert sum(map(len, payloads)) + len(frames.buffer) <= sum(map(len, pieces))


def _unmasked(opcode: int, payload: bytes) -> bytes:
    """As a server sends it."""
    size = len(payload)
    head = bytes([0x80 | opcode, size]) if size < 126 else bytes([0x80 | opcode, 126]) + size.to_bytes(2, "big")
    return head + payload


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_any_file_names_a_server_or_is_a_failure(directory: Path, content: bytes) -> None:
    (directory / "admin.json").write_bytes(content)
    with contextlib.suppress(Failure):
        assert find_endpoint(str(directory), {}).source == str(directory / "admin.json")


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_any_file_has_the_admins_token_or_is_named(directory: Path, content: bytes) -> None:
    path = directory / "admin.json"
    path.write_bytes(content)
    try:
        assert keep_admin(directory, url="http://h", region="r", rng=Random(1)).token
    except BadRequest as error:
        assert str(path) in error.message  # noqa: PT017 - the other outcome is fine


@given(ANY_TEXT | st.from_regex(r"\A\w{0,4}:?\d{0,6}(-\d{1,6})?(@[\d./]{1,12})?\Z"))
def test_any_word_is_a_rule_or_refused(word: str) -> None:
    with contextlib.suppress(argparse.ArgumentTypeError):
        assert set(parse_rule(word)) <= {"protocol", "cidr", "group", "from_port", "to_port"}
