"""The command line against a server that answers what the test tells it to."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from launcher.cli import lateness
from launcher.cli.client import Exit
from launcher.cli.main import main
from launcher.models import Fault, TaskState, VmState
from tests.unit.stub_api import CREATED_MS, ID, StubApi, make_event, make_instance, problem

OTHER = "0123ffff-0000-4000-8000-000000000002"
EVIDENCE = {
    "instance": make_instance(),
    "dhcp": {"instance_id": ID, "requested_ms": CREATED_MS + 2000, "answered_ms": None, "last_words": "DHCPDISCOVER"},
    "domain": {"power": "running", "cpu_time_ms": 700, "memory_mb": 512},
    "console_tail": ["Linux version 6", "Kernel panic \x1b[31m"],
    "injection": "storage-daemon",
    "verdict": "it asked by DHCP and got no answer",
}


@pytest.fixture
async def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StubApi]:
    """A running stub that the command line finds through its environment."""
    stub = StubApi({f"GET /instances/{ID}": make_instance(), "GET /instances/web": make_instance()})
    async with TestServer(stub.application()) as server:
        monkeypatch.setenv("LAUNCHER_URL", str(server.make_url("/")))
        monkeypatch.setenv("LAUNCHER_TOKEN", "lt_secret")
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        monkeypatch.setattr(lateness, "SAMPLE", 0.01)
        yield stub


@pytest.fixture
def launcher(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs a command as a shell would and gives (exit code, stdout, stderr)."""

    async def run(*words: str) -> tuple[int, str, str]:
        try:
            code = await asyncio.to_thread(main, words)
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


async def test_list_is_an_aligned_table(stub: StubApi, launcher: Callable[..., Any]) -> None:
    stub.answers["GET /instances"] = {"instances": [make_instance(), make_instance(OTHER, name="a-longer-name")]}

    code, out, _ = await launcher("list", "--status", "active")

    header, first, second = out.splitlines()
    assert (code, stub.asked) == (0, [("GET /instances?status=ACTIVE", None)])
    assert stub.headers[0]["Authorization"] == "Bearer lt_secret"
    assert header.index("STATUS") == first.index("ACTIVE") == second.index("ACTIVE")


async def test_list_reads_all_pages(stub: StubApi, launcher: Callable[..., Any]) -> None:
    def page(request: web.Request) -> web.Response:
        last = request.query.get("marker") == ID
        found = make_instance(OTHER) if last else make_instance()
        return web.json_response({"instances": [found], "next_marker": None if last else ID})

    stub.answers["GET /instances"] = page

    code, out, _ = await launcher("list", "--json")

    assert code == 0
    assert [each["id"] for each in json.loads(out)["instances"]] == [ID, OTHER]


@pytest.mark.parametrize("words", [("--json", "show", "web"), ("show", "web", "--json"), ("show", "--json", "web")])
async def test_json_may_stand_anywhere(stub: StubApi, launcher: Callable[..., Any], words: tuple[str, ...]) -> None:
    code, out, _ = await launcher(*words)

    assert code == 0
    assert json.loads(out)["id"] == ID


async def test_the_beginning_of_an_id_is_enough(stub: StubApi, launcher: Callable[..., Any]) -> None:
    stub.answers["GET /instances"] = {"instances": [make_instance(), make_instance(OTHER)]}

    assert (await launcher("show", "0123a"))[0] == Exit.OK
    code, _, err = await launcher("show", "0123")
    assert code == Exit.USAGE
    assert ID in err
    assert OTHER in err
    assert (await launcher("show", "9"))[0] == Exit.NOT_FOUND
    assert (await launcher("show", "no-such-name"))[0] == Exit.NOT_FOUND


async def test_a_refusal_shows_title_detail_and_hint(stub: StubApi, launcher: Callable[..., Any]) -> None:
    detail, hint = "10 of 10 instances used", "delete one"
    stub.answers["POST /instances"] = lambda _: problem(403, "quota exceeded", detail=detail, hint=hint, field="count")

    code, out, err = await launcher("run", "ami-tiny")

    assert (code, out) == (Exit.REFUSED, "")
    assert err.splitlines() == [
        "launcher: quota exceeded",
        "  10 of 10 instances used (field count)",
        "  try: delete one",
    ]


async def test_no_server_is_said_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: Callable[..., Any]
) -> None:
    monkeypatch.delenv("LAUNCHER_URL", raising=False)
    code, _, err = await launcher("--state", str(tmp_path), "list")
    assert code == Exit.UNREACHABLE
    assert str(tmp_path / "admin.json") in err

    (tmp_path / "admin.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "token": "lt_x"}))
    code, _, err = await launcher("list", "--state", str(tmp_path))
    assert code == Exit.UNREACHABLE
    assert "Connection refused" in err


REQUEST = {
    "image": "ami-tiny",
    "flavor": "m1.tiny",
    "key_name": "me",
    "name": "web",
    "min_count": 1,
    "max_count": 1,
    "user_data": base64.b64encode(b"#!/bin/sh\n").decode(),
    "metadata": {"a": "b"},
}


async def test_run_shows_each_step_and_ends_with_the_line_that_logs_in(
    stub: StubApi, launcher: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "script").write_bytes(b"#!/bin/sh\n")
    stub.answers["POST /instances"] = {"instances": [make_instance(vm_state=VmState.BUILDING)]}
    stub.answers[f"GET /instances/{ID}/readiness"] = {**EVIDENCE, "dhcp": {"answered_ms": CREATED_MS + 2345}}
    stub.greeting = b"SSH-2.0-dropbear\r\n"
    stub.events = [
        make_event(1, VmState.BUILDING, TaskState.SCHEDULING),
        make_event(2, VmState.BUILDING, TaskState.SPAWNING),
        make_event(3, VmState.ACTIVE, None, message="running on box"),
    ]

    words = f"run ami-tiny -k me --name web --metadata a=b --user-data {tmp_path}/script --wait active,ip,ssh"
    code, out, err = await launcher(*words.split())

    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["scheduling", "+100"],
        ["spawning", "+200"],
        ["active", "+300"],
    ]
    assert lines[4].split() == ["ip", "+2345", "ms", "10.0.0.3"]
    assert lines[5].endswith("SSH-2.0-dropbear")
    assert lines[6] == "launcher ssh web"
    assert stub.asked[0][1] == REQUEST


async def test_run_asks_again_with_the_same_key_when_the_answer_was_lost(
    stub: StubApi, launcher: Callable[..., Any]
) -> None:
    def lose_the_first(request: web.Request) -> web.Response:
        if len(stub.asked) == 1:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"instances": [make_instance()]})

    stub.answers["POST /instances"] = lose_the_first

    code, _, err = await launcher("run", "ami-tiny", "--no-wait")

    assert (code, err) == (0, "")
    first, second = (headers["Idempotency-Key"] for headers in stub.headers)
    assert first == second


async def test_run_tells_why_it_ended_in_error(stub: StubApi, launcher: Callable[..., Any]) -> None:
    fault = Fault(code="bad_image", step="imaging", message="not a qcow2", hint="", request_id="req-1", at_ms=1)
    stub.answers["POST /instances"] = {"instances": [make_instance(vm_state=VmState.BUILDING)]}
    stub.answers[f"GET /instances/{ID}"] = make_instance(vm_state=VmState.ERROR, fault=fault)
    stub.events = [
        make_event(1, VmState.BUILDING, TaskState.IMAGING),
        make_event(2, VmState.BUILDING, TaskState.CLEANING),
        make_event(3, VmState.ERROR, None),
    ]

    code, _, err = await launcher("run", "ami-tiny")

    assert code == Exit.FAULT
    assert err.startswith("launcher: web: imaging failed\n  not a qcow2 [bad_image, req-1]\n")


@pytest.mark.parametrize("stage", ["active", "ip", "ssh"])
async def test_a_late_launch_shows_the_evidence(stub: StubApi, launcher: Callable[..., Any], stage: str) -> None:
    stub.answers["POST /instances"] = {"instances": [make_instance(vm_state=VmState.BUILDING)]}
    looks = iter([700, 700, 700, 990])
    stub.answers[f"GET /instances/{ID}/readiness"] = lambda _: web.json_response(
        {**EVIDENCE, "domain": {**EVIDENCE["domain"], "cpu_time_ms": next(looks, 990)}}  # type: ignore[dict-item]
    )
    stub.events = [make_event(1, VmState.BUILDING, TaskState.SPAWNING)]
    if stage != "active":
        stub.events.append(make_event(2, VmState.ACTIVE, None))

    code, _, err = await launcher("run", "ami-tiny", "--wait", stage, "--timeout", "0.3")

    assert code == Exit.LATE
    assert f"late at {stage}" in err
    assert "it asked by DHCP and got no answer" in err
    assert "requested 2.0 s after the call, not answered (DHCPDISCOVER)" in err
    assert "ms of processor time" in err
    assert "Kernel panic \\x1b[31m" in err
    assert ("Connection refused" in err) == (stage == "ssh")


async def test_a_created_key_is_shown_once_and_remembered_for_its_owner_only(
    stub: StubApi, launcher: Callable[..., Any], tmp_path: Path
) -> None:
    pair = {"name": "me", "type": "ed25519", "fingerprint": "SHA256:x", "public_key": "ssh-ed25519 A"}
    stub.answers["POST /keypairs"] = {**pair, "private_key": "-----PRIVATE-----\n"}
    remembered = tmp_path / "data" / "launcher" / "keys" / "me"

    code, out, _ = await launcher("keypair", "create", "me")
    await launcher("keypair", "create", "me", "--file", str(tmp_path / "mine"))

    assert (code, out) == (0, "-----PRIVATE-----\n")
    for path in (remembered, tmp_path / "mine", remembered.with_name("me.old")):
        assert path.read_text() == "-----PRIVATE-----\n"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


RULE = {"id": 7, "direction": "ingress", "protocol": "tcp", "from_port": 22, "to_port": 80, "cidr": "10.0.0.0/8"}
GROUP = {"id": 1, "project_id": "demo", "name": "web", "description": "", "rules": [{**RULE, "group": None}]}


async def test_a_group_is_made_from_rules_in_words(stub: StubApi, launcher: Callable[..., Any]) -> None:
    stub.answers["POST /security-groups"] = GROUP
    rule = {"protocol": "tcp", "cidr": "10.0.0.0/8", "from_port": 22, "to_port": 80}

    words = ("group", "create", "web", "--rule", "tcp:22-80@10.0.0.0/8")
    code, out, _ = await launcher(*words)

    assert (code, stub.asked[0][1]) == (0, {"name": "web", "description": "", "rules": [rule]})
    assert "tcp:22-80@10.0.0.0/8" in out
    assert (await launcher("group", "create", "web", "--rule", "tcp:http"))[0] == Exit.USAGE


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ("tcp 80", {"from_port": 80}),
        ("tcp 80 --from 10.0.0.0/8", {"from_port": 80, "cidr": "10.0.0.0/8"}),
        ("tcp 5432-5440 --from-group web", {"from_port": 5432, "to_port": 5440, "group": "web"}),
        ("icmp 8/0", {"protocol": "icmp", "from_port": 8, "to_port": 0}),
        ("any --egress", {"protocol": "any", "direction": "egress"}),
        ("tcp 53 --to ::/0", {"from_port": 53, "direction": "egress", "cidr": "::/0"}),
        ("tcp --egress --to-group db", {"direction": "egress", "group": "db"}),
    ],
)
async def test_rules_are_added_and_removed(
    stub: StubApi, launcher: Callable[..., Any], words: str, rule: dict[str, Any]
) -> None:
    stub.answers["POST /security-groups/web/rules"] = {"rules": GROUP["rules"]}
    stub.answers["DELETE /security-groups/web/rules"] = lambda _: web.Response(status=204)
    asked = {"rules": [{"direction": "ingress", "protocol": "tcp", **rule}]}

    code, out, _ = await launcher("group", "allow", "web", *words.split())
    assert (code, stub.asked) == (0, [("POST /security-groups/web/rules", asked)])
    assert out.splitlines()[1].split() == ["7", "ingress", "tcp", "22-80", "10.0.0.0/8"]
    assert (await launcher("group", "revoke", "web", *words.split()))[0] == 0
    assert stub.asked[1] == ("DELETE /security-groups/web/rules", asked)


async def test_a_rule_is_removed_by_its_id(stub: StubApi, launcher: Callable[..., Any]) -> None:
    stub.answers["DELETE /security-groups/web/rules/7"] = lambda _: web.Response(status=204)

    assert (await launcher("group", "revoke", "web", "--id", "7"))[0] == 0
    for wrong in ("", "tcp 80 --id 7", "tcp eighty", "tcp 80 --egress --from ::/0", "tcp --from ::/0 --to ::/0"):
        assert (await launcher("group", "revoke", "web", *wrong.split()))[0] == Exit.USAGE, wrong
    assert len(stub.asked) == 1


async def test_an_instance_is_put_into_groups(stub: StubApi, launcher: Callable[..., Any]) -> None:
    stub.answers[f"PUT /instances/{ID}/security-groups"] = make_instance()

    code, out, _ = await launcher("group", "set", ID, "web", "db")
    assert (code, out) == (0, "web: default\n")
    assert stub.asked[-1][1] == {"security_groups": ["web", "db"]}
    assert json.loads((await launcher("group", "set", ID, "--json"))[1])["id"] == ID


NETWORK: dict[str, Any] = {
    **{"id": 7, "name": "back", "project_id": None, "mode": "flat_dhcp", "bridge": "br101", "cidr": "10.1.0.0/24"},
    **{"gateway": "10.1.0.1", "dns": ["9.9.9.9"], "domain": "novalocal", "segment": None, "cidr6": None},
}


async def test_networks_are_made_shown_and_deleted(stub: StubApi, launcher: Callable[..., Any]) -> None:
    stub.answers["POST /networks"] = NETWORK
    stub.answers["GET /networks"] = {"networks": [NETWORK]}
    stub.answers["GET /networks/back"] = NETWORK
    stub.answers["DELETE /networks/back"] = lambda _: web.Response(status=204)

    code, out, _ = await launcher("network", "create", "back", "10.1.0.0/24", "--dns", "9.9.9.9", "--project", "demo")
    assert (code, stub.asked[0][1]) == (
        0,
        {"name": "back", "cidr": "10.1.0.0/24", "dns": ["9.9.9.9"], "project_id": "demo"},
    )
    assert out.split() == (await launcher("network", "list"))[1].split()
    assert "everybody" in out
    shown = (await launcher("network", "show", "back"))[1]
    assert "10.1.0.1" in shown
    assert "9.9.9.9" in shown
    assert (await launcher("network", "delete", "back", "nowhere"))[0] == Exit.NOT_FOUND
    assert (await launcher("_complete", "--", "network", "delete", "b"))[1].split() == ["back"]
    assert (await launcher("_complete", "--", "network", "delete", "7"))[1].split() == ["7"]


async def test_nics_are_asked_for_by_network_and_address(stub: StubApi, launcher: Callable[..., Any]) -> None:
    stub.answers["POST /instances"] = {"instances": [make_instance()]}

    nics = ("--network", "default", "--network", "back=10.1.0.9")
    assert (await launcher("run", "ami-tiny", *nics, "--no-wait"))[0] == 0
    asked = stub.asked[0][1]
    assert asked is not None
    assert asked["networks"] == [{"network": "default"}, {"network": "back", "address": "10.1.0.9"}]


async def test_delete_tries_all_and_waits_for_the_end(stub: StubApi, launcher: Callable[..., Any]) -> None:
    stub.answers[f"DELETE /instances/{ID}"] = make_instance(task_state=TaskState.DELETING)
    stub.answers[f"GET /instances/{ID}"] = lambda _: web.json_response(make_instance(vm_state=VmState.DELETED))

    code, out, err = await launcher("delete", OTHER, ID, "--wait")

    assert code == Exit.NOT_FOUND
    assert out == "0123abcd  web  DELETED\n"
    assert OTHER in err


async def test_console_goes_on_until_the_instance_is_gone(stub: StubApi, launcher: Callable[..., Any]) -> None:
    said = iter(["Booting\r\n", "Booting\r\nlogin: ", None])
    stub.answers[f"GET /instances/{ID}/console"] = lambda _: (
        web.Response(text=text) if (text := next(said)) is not None else problem(404, "not found")
    )

    assert await launcher("console", ID, "-f") == (0, "Booting\nlogin: ", "")


async def test_events_are_lines_of_json_if_asked(stub: StubApi, launcher: Callable[..., Any]) -> None:
    stub.events = [make_event(1, VmState.BUILDING, TaskState.SPAWNING), make_event(2, VmState.ACTIVE, None)]

    _, out, _ = await launcher("events", "web", "--json")

    assert [json.loads(line)["seq"] for line in out.splitlines()] == [1, 2]


async def test_completion_knows_commands_options_and_live_names(stub: StubApi, launcher: Callable[..., Any]) -> None:
    stub.answers["GET /instances"] = {"instances": [make_instance()]}
    stub.answers["GET /flavors"] = {"flavors": [{"name": "m1.tiny"}, {"name": "m1.small"}]}

    async def complete(*words: str) -> list[str]:
        return str((await launcher("_complete", "--", *words))[1]).split()

    assert await complete("keyp") == ["keypair"]
    assert await complete("keypair", "") == ["create", "delete", "import", "list"]
    assert await complete("run", "--fl") == ["--flavor"]
    assert await complete("run", "-t", "m1.s") == ["m1.small"]
    assert await complete("ssh", "") == ["web"]
    assert await complete("ssh", "012") == [ID]
    assert await complete("image", "show", "") == []
    stub.answers["GET /floating-ips"] = {"floating_ips": [{"address": "203.0.113.1"}, {"address": "203.0.113.2"}]}
    assert await complete("floating-ip", "delete", "") == ["203.0.113.1", "203.0.113.2"]
    assert await complete("floating-ip", "associate", "203.0.113.2") == ["203.0.113.2"]
    assert await complete("floating-ip", "create", "--address", "") == []


async def test_the_tunnel_joins_stdin_and_stdout(stub: StubApi) -> None:
    stub.greeting = b"SSH-2.0-x\r\n"
    pipe = asyncio.subprocess.PIPE
    words = (sys.executable, "-m", "launcher.cli.websocket", f"{ID}/22")
    process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    sent = os.urandom(300_000)

    async def read() -> bytes:
        assert process.stdout is not None
        return await process.stdout.readexactly(len(stub.greeting) + len(sent))

    reading = asyncio.create_task(read())
    process.stdin.write(sent)

    assert await asyncio.wait_for(reading, 20) == stub.greeting + sent
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 10) == 0
