"""The command line's pure parts, and what it may not import."""

from __future__ import annotations

import argparse
import json
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import doctor, events, output, wire
from launcher.cli.checks import host
from launcher.cli.checks.finding import BROKEN, OK, WITHOUT, Finding
from launcher.cli.client import Exit, Failure, find_endpoint
from launcher.cli.groups import parse_rule, rule_words
from launcher.cli.instances import added
from launcher.cli.lateness import evidence
from launcher.cli.login import key_path, ssh_command
from launcher.cli.main import main
from launcher.cli.websocket import BINARY, CLOSE, PING, Frames, accept_key, frame
from tests.unit.stub_api import ID, make_instance

HEAVY = {"aiohttp", "asyncio", "dataclasses", "http.client", "pydantic", "ssl", "launcher.models", "launcher.messages"}


def test_the_command_line_stays_light() -> None:
    """What these weigh, everybody who lists two instances waits for."""
    code = "import sys, launcher.cli.main as m; m.build_parser(['list']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()

    assert HEAVY.isdisjoint(loaded)


def test_the_option_comes_before_the_environment_and_that_before_the_usual_place(tmp_path: Path) -> None:
    for name in ("option", "variable", "usual/launcher"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "admin.json").write_text(json.dumps({"url": f"http://{name}/", "token": "lt_x"}))
    environ = {"LAUNCHER_STATE": str(tmp_path / "variable")}
    direct = {**environ, "LAUNCHER_URL": "http://direct", "LAUNCHER_TOKEN": "lt_y"}

    assert find_endpoint(None, environ)[:2] == ("http://variable", "lt_x")
    assert find_endpoint(None, direct)[:2] == ("http://direct", "lt_y")
    assert find_endpoint(str(tmp_path / "option"), direct)[:2] == ("http://option", "lt_x")


@pytest.mark.parametrize("content", ["", "[]", "{}", "null"])
def test_a_broken_admin_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "admin.json").write_text(content)

    with pytest.raises(Failure) as failure:
        find_endpoint(str(tmp_path), {})

    assert failure.value.exit_code == Exit.UNREACHABLE
    assert "admin.json: not the JSON" in failure.value.detail


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        ("", "Booting", "Booting"),
        ("Booting", "Booting\nlogin: ", "\nlogin: "),
        ("abc" * 1000 + "end", "c" * 9 + ("abc" * 1000)[1500:] + "end and more", " and more"),
        ("one boot", "another boot", "another boot"),
    ],
)
def test_a_followed_console_shows_only_what_is_new(before: str, now: str, new: str) -> None:
    assert added(before, now) == new


def test_control_sequences_of_a_guest_are_made_visible() -> None:
    assert output.harmless("a\x1b]0;owned\x07\tb\n\x9b31m") == "a\\x1b]0;owned\\x07\tb\n\\x9b31m"


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(0.4, "0 ms"), (999, "999 ms"), (1500, "1.5 s"), (312_000, "5m 12s"), (7_380_000, "2h 3m"), (9e8, "10d 10h")],
)
def test_durations(ms: float, shown: str) -> None:
    assert output.duration(ms) == shown


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ("tcp:22", {"protocol": "tcp", "from_port": 22}),
        ("udp:5000-5010@10.0.0.0/8", {"protocol": "udp", "from_port": 5000, "to_port": 5010, "cidr": "10.0.0.0/8"}),
        ("icmp", {"protocol": "icmp"}),
        ("icmp:8", {"protocol": "icmp", "from_port": 8}),
        ("icmp:0/0", {"protocol": "icmp", "from_port": 0, "to_port": 0}),
        ("tcp:0-0@fd00::/8", {"protocol": "tcp", "from_port": 0, "to_port": 0, "cidr": "fd00::/8"}),
        ("any@10.0.0.7", {"protocol": "any", "cidr": "10.0.0.7"}),
        ("any@10.0.0.0/99", {"protocol": "any", "cidr": "10.0.0.0/99"}),
        ("tcp:5432@web", {"protocol": "tcp", "from_port": 5432, "group": "web"}),
    ],
)
def test_rules_in_words(words: str, rule: dict[str, Any]) -> None:
    assert parse_rule(words) == rule
    usual = {"direction": "ingress", "from_port": None, "to_port": None, "group": None}
    shown = {**usual, "cidr": None if "group" in rule else "0.0.0.0/0", **rule}
    assert rule_words(shown) == words.replace("0-0@", "0@")


@pytest.mark.parametrize("words", ["", "@10.0.0.0/8", ":22", "tcp:http", "tcp:22-", "tcp:-22", "tcp:²"])
def test_words_that_are_no_rule(words: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse_rule(words)


def test_server_sent_events_with_comments_and_several_lines_of_data() -> None:
    lines = [": alive", "", "id: 1", "event: instance", 'data: {"seq":', "data: 1}", "", "data: cut off"]

    assert list(events.parse(lines)) == [{"seq": 1}]


def test_ssh_goes_through_the_tunnel_and_shows_no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("LAUNCHER_TOKEN", "lt_secret")
    key_path("me").parent.mkdir(parents=True)
    key_path("me").write_text("key")

    command = ssh_command(make_instance(), None, "root", ["uname", "-a"])

    assert command[-5:] == ["-l", "root", ID, "uname", "-a"]
    assert command[command.index("-i") + 1] == str(key_path("me"))
    proxy = next(word for word in command if word.startswith("ProxyCommand=")).removeprefix("ProxyCommand=")
    assert shlex.split(proxy)[1:] == ["-m", "launcher.cli.websocket", f"{ID}/22"]
    assert f'UserKnownHostsFile="{tmp_path}/launcher/known_hosts/{ID}"' in command
    assert "lt_secret" not in " ".join(command)


@pytest.mark.parametrize("name", ["../../.ssh/id_ed25519", ".ssh", "a/b"])
def test_no_key_name_leaves_the_key_directory(name: str) -> None:
    with pytest.raises(Failure):
        key_path(name)


@pytest.mark.parametrize(("used", "word"), [(0, "stuck"), (15, "idle"), (950, "busy")], ids=["stuck", "idle", "busy"])
def test_the_vcpu_is_judged_by_two_looks(used: int, word: str) -> None:
    first = {"instance": make_instance(), "dhcp": None, "injection": None, "verdict": "late"}
    look = {"power": "running", "cpu_time_ms": 700, "memory_mb": 512}
    second = {**first, "domain": {**look, "cpu_time_ms": 700 + used}}

    assert dict(evidence({**first, "domain": look}, second))["vCPU"].startswith(word)


def test_only_ssh_takes_words_behind_two_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(["list", "--", "x"])

    assert leaving.value.code == Exit.USAGE
    assert "launcher ssh ID -- COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_frames_of_every_length_form(size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    sent = frame(BINARY, payload[:size])
    head = {126: 4, 127: 10}.get(sent[1] & 0x7F, 2)
    mask, masked = sent[head : head + 4], sent[head + 4 :]
    unmasked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(masked))
    assert unmasked == payload[:size]

    served = bytes([sent[0], sent[1] & 0x7F]) + sent[2:head] + unmasked
    frames, found = Frames(), []
    for at in range(0, len(served) + 1, 50_000):
        found += list(frames.feed(served[at : at + 50_000]))
    assert found == [(BINARY, payload[:size])]


def test_frames_that_arrive_together_and_in_halves() -> None:
    frames = Frames(b"\x89\x01p\x82\x02a")

    assert list(frames.feed(b"")) == [(PING, b"p")]
    assert list(frames.feed(b"b\x88\x00")) == [(BINARY, b"ab"), (CLOSE, b"")]


def test_the_handshake_of_rfc_6455() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    left.settimeout(5)
    with left, right:
        yield left, right


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcxyz", b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_bodies_of_every_framing(ends: tuple[socket.socket, socket.socket], sent: bytes, body: bytes) -> None:
    here, there = ends
    there.sendall(sent)
    there.close()

    assert wire.Answer(here).body() == body


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab",
    ],
)
def test_what_is_no_whole_answer_is_refused(ends: tuple[socket.socket, socket.socket], sent: bytes) -> None:
    here, there = ends
    there.sendall(sent)
    there.close()

    with pytest.raises(wire.WireError):
        wire.Answer(here).body()


def test_doctor_ends_with_what_the_machine_can_do() -> None:
    ok, less, no = (Finding(word, word, "") for word in (OK, WITHOUT, BROKEN))

    assert doctor.verdict([ok]) == "launcher can run real guests here."
    assert doctor.verdict([ok, less]) == "launcher can run real guests here, without: without."
    assert doctor.verdict([ok, less, no]).startswith("launcher cannot run real guests here yet: broken.")


def test_doctor_believes_the_trial_under_kvm_more_than_the_device(tmp_path: Path) -> None:
    if host.kvm(tmp_path).verdict != OK:
        pytest.skip("there is no /dev/kvm that opens here")
    trial = {"verdict": {"virt_type": "qemu", "reason": "a kernel printed nothing under KVM in 5 s"}}
    (tmp_path / host.KVM_MEMORY).write_text(json.dumps(trial))

    finding = host.kvm(tmp_path)

    assert finding.verdict == WITHOUT
    assert "printed nothing" in finding.found


def test_doctor_examines_this_machine_and_leaves_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = main(["doctor", "--json", "--state", str(tmp_path)])

    found = json.loads(capsys.readouterr().out)
    by_name = {finding["name"]: finding for finding in found["findings"]}
    assert len(by_name) == len(found["findings"])
    assert code == (Exit.OK if found["can_run_guests"] else Exit.REFUSED)
    assert by_name["server"]["verdict"] == WITHOUT
    assert all(finding["advice"] for finding in by_name.values() if finding["verdict"] == BROKEN)
    assert list(tmp_path.iterdir()) == []
