"""The command line against a whole launcher: the real roles, API and database, fake drivers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from launcher.cli import lateness
from launcher.cli.client import Exit
from launcher.errors import InvalidDomainConfig
from launcher.models import InstanceId
from tests.flow.conftest import Run
from tests.flow.house import TOKEN, House
from tests.waiting import eventually


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(lateness, "SAMPLE", 0.01)
    async with House(tmp_path).open() as house:
        monkeypatch.setenv("LAUNCHER_URL", house.url)
        monkeypatch.setenv("LAUNCHER_TOKEN", TOKEN)
        yield house


async def test_metadata_shows_what_the_guest_is_told(house: House, launcher: Run, tmp_path: Path) -> None:
    (tmp_path / "script").write_bytes(b"#!/bin/sh\n\x1b[31m\xff\n")
    await launcher(f"run ami-tiny --name web --metadata a=b --user-data {tmp_path}/script")

    table = (await launcher("metadata web"))[1]
    rows = [line.split(maxsplit=1) for line in table.splitlines()]
    assert rows[0] == ["PATH", "VALUE"]
    assert ["meta-data/tags/instance/a", "b"] in rows
    assert ["meta-data/instance-type", "m1.tiny"] in rows
    assert "\x1b" not in table

    assert (await launcher("metadata web /latest/"))[1] == "dynamic\nmeta-data\nuser-data"
    assert (await launcher("metadata web latest/meta-data/placement/"))[1] == "availability-zone\nregion"
    meta = json.loads((await launcher("metadata web openstack/latest/meta_data.json"))[1])
    page = json.loads((await launcher("metadata web openstack/latest/vendor_data.json --json"))[1])
    assert (meta["name"], meta["meta"]) == ("web", {"a": "b"})
    assert page["leaves"] == {"openstack/latest/vendor_data.json": "{}"}

    for words in ("metadata web latest/nothing", "metadata nobody"):
        assert (await launcher(words))[0] == Exit.NOT_FOUND
    assert "web" in (await launcher("_complete -- metadata w"))[1].split()


async def test_from_the_key_to_the_end(house: House, launcher: Run) -> None:
    assert (await launcher("keypair create me"))[1].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert (await launcher("group create web --rule tcp:22 --rule icmp"))[0] == Exit.OK

    code, out, err = await launcher("run ami-tiny --name web -k me --group web --metadata a=b --on-shutdown terminate")
    steps = [line.split()[0] for line in out.splitlines()[1:-1]]
    assert (code, err) == (0, "")
    assert steps[-1] == "active"
    assert {"networking", "imaging", "spawning"} <= set(steps)
    assert out.splitlines()[-1] == "launcher ssh web"

    shown = json.loads((await launcher("show web --json"))[1])
    instance_id = shown["id"]
    assert (shown["shutdown_behaviour"], shown["protected"]) == ("terminate", False)
    assert "ACTIVE" in (await launcher(f"show {instance_id[:8]}"))[1]
    assert "web" in (await launcher("list"))[1]
    assert "spawning" in (await launcher("events web"))[1]
    assert (await launcher("console web"))[0] == Exit.OK

    assert (await launcher("delete web --wait"))[:2] == (0, f"{instance_id[:8]}  web  DELETED\n")
    assert "DELETED" in (await launcher(f"show {instance_id[:8]}"))[1]
    assert (await launcher("list"))[1].count("\n") == 1
    assert house.leftovers() == []


async def test_a_trace_names_the_roles(house: House, launcher: Run) -> None:
    await launcher("run ami-tiny --name web")

    async def roles() -> bool:
        drawn = (await launcher("trace web"))[1]
        return {"controller", "scheduler", "compute", "network"} <= {
            line.partition(" ")[0] for line in drawn.splitlines()
        }

    assert await eventually(roles, what="spans of every role")


async def test_several_at_once_are_told_apart(house: House, launcher: Run) -> None:
    code, out, _ = await launcher("run ami-tiny --name web --count 3")

    assert code == 0
    assert out.count(" active ") == 3
    assert len({line for line in out.splitlines() if line.startswith("launcher ")}) == 3


async def test_a_failed_launch_names_the_step(house: House, launcher: Run) -> None:
    async def refuse(point: str, _: InstanceId) -> None:
        if point == "spawn":
            raise InvalidDomainConfig("no such CPU", hint="choose another")

    house.virt.fault = refuse

    code, _, err = await launcher("run ami-tiny --name web")

    assert code == Exit.FAULT
    assert "web: spawning failed" in err
    assert "no such CPU" in err
    assert "try: choose another" in err


async def test_a_late_launch_names_the_step(house: House, launcher: Run) -> None:
    house.virt.delay = 3.0

    code, _, err = await launcher("run ami-tiny --name web --timeout 0.5")

    assert code == Exit.LATE
    assert "late at active" in err
    assert "spawning for" in err


async def test_what_a_launch_needs_can_be_listed(house: House, launcher: Run, tmp_path: Path) -> None:
    await launcher("keypair create me")
    public_key = json.loads((await launcher("keypair list --json"))[1])["keypairs"][0]["public_key"]
    (tmp_path / "id.pub").write_text(public_key)

    assert (await launcher(f"keypair import you {tmp_path}/id.pub"))[0] == Exit.OK
    assert (await launcher("keypair delete you me"))[0] == Exit.OK
    assert (await launcher("keypair delete me"))[0] == Exit.NOT_FOUND
    assert "default" in (await launcher("group list"))[1]
    assert "ami-tiny" in (await launcher("image list"))[1]
    assert "kind" in (await launcher("image show ami-tiny"))[1]
    assert "m1.tiny" in (await launcher("flavor list"))[1]
    assert "node-1" in (await launcher("host list"))[1]


async def test_groups_and_their_rules(house: House, launcher: Run) -> None:
    assert (await launcher("group create web --description front"))[0] == Exit.OK
    assert (await launcher("group allow web TCP 80 --from 0.0.0.0/0"))[0] == Exit.OK
    assert (await launcher("group allow default tcp 5432 --from-group web"))[0] == Exit.OK
    assert (await launcher("group allow web tcp 80"))[0] == Exit.REFUSED
    shown = (await launcher("group show web"))[1].splitlines()
    assert shown[0].split() == ["name", "web"]
    assert shown[-1].split()[1:] == ["ingress", "tcp", "80", "0.0.0.0/0"]
    rule = json.loads((await launcher("group show default --json"))[1])["rules"][-1]
    assert (rule["group"], rule["to_port"]) == ("web", 5432)
    await launcher("run ami-tiny --name one --wait=active")
    assert (await launcher("group set one web default"))[:2] == (0, "one: web, default\n")
    assert "web, default" in (await launcher("show one"))[1]
    assert (await launcher("group delete web"))[0] == Exit.REFUSED
    assert (await launcher(f"group revoke default --id {rule['id']}"))[0] == Exit.OK
    assert (await launcher("group revoke web tcp 80"))[0] == Exit.OK
    assert (await launcher("group revoke web tcp 80"))[0] == Exit.NOT_FOUND
    assert (await launcher("group set one"))[:2] == (0, "one: default\n")
    assert (await launcher("group delete web"))[0] == Exit.OK


async def test_a_packet_is_explained(house: House, launcher: Run) -> None:
    await launcher("group create web --rule tcp:22 --rule icmp:8/0")
    await launcher("run ami-tiny --name one --group web --wait=active")
    ask = "network explain one --from 203.0.113.7"
    code, out, _ = await launcher(f"{ask} --port 22")
    assert (code, out) == (Exit.OK, "passes: group web: ingress tcp 22 from 0.0.0.0/0\n")
    code, out, _ = await launcher(f"{ask} --proto udp --port 0")
    assert (code, out.partition(":")[0]) == (Exit.REFUSED, "dropped")
    assert (await launcher(f"{ask} --proto icmp"))[0] == Exit.OK
    assert (await launcher(f"{ask} --proto icmp --type 0"))[0] == Exit.REFUSED
    assert json.loads((await launcher("network explain one --to 203.0.113.7 --port 80 --json"))[1])["passes"]
    with pytest.raises(SystemExit):
        await launcher("network explain one --port 80")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("group sh", ["show"]),
        ("group show w", ["web"]),
        ("group allow web tcp --from-group d", ["default"]),
        ("group set o", ["one"]),
        ("group set one w", ["web"]),
        ("group revoke web --i", ["--id"]),
    ],
)
async def test_groups_are_completed(house: House, launcher: Run, line: str, words: list[str]) -> None:
    await launcher("group create web")
    await launcher("run ami-tiny --name one --wait=active")
    assert (await launcher(f"_complete -- {line}"))[1].split() == words


async def test_a_refused_launch_says_what_is_wrong(house: House, launcher: Run) -> None:
    code, _, err = await launcher("run no-such-image")

    assert code == Exit.NOT_FOUND
    assert "no-such-image" in err


async def test_what_the_hosts_have_and_should_not(house: House, launcher: Run) -> None:
    await launcher("run ami-tiny --name web")
    assert (await launcher("audit"))[:2] == (0, "instances: 1, artefacts: 9, differences: 0\n")
    house.images.exports.add("disk-1")
    house.network.taps.clear()

    code, out, _ = await launcher("audit")
    assert code == Exit.REFUSED
    assert [line.split()[:4] for line in out.splitlines()[1:-1]] == [
        ["ownerless", "export", "disk-1", "node-1"],
        ["missing", "tap", "tap00000001", "node-1"],
    ]
    assert len(json.loads((await launcher("audit --json"))[1])["findings"]) == 2

    code, out, _ = await launcher("gc --dry-run")
    assert (code, out.splitlines()[-1]) == (0, "1 to remove")
    assert json.loads((await launcher("gc --json"))[1])["removed"][0]["name"] == "disk-1"
    assert (await launcher("gc"))[:2] == (0, "nothing removed\n")
    assert (await launcher("audit"))[0] == Exit.REFUSED
