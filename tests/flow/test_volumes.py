"""Volumes through the whole house: made, attached, detached, extended, copied, deleted; and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from launcher.models import Quotas
from tests.flow.conftest import Run
from tests.flow.house import TOKEN, House, Json
from tests.waiting import eventually, until


async def volume_of(house: House, status: str = "available", **body: object) -> Json:
    made = await house.ask("POST", "/volumes", {"size_gb": 1, **body}, status=202)
    return await volume_until(house, made["id"], status)


async def volume_until(house: House, volume_id: str, status: str, path: str = "volumes") -> Json:
    async def look() -> Json | None:
        found = await house.ask("GET", f"/{path}/{volume_id}", status=200)
        return found if found["status"] == status else None

    return await eventually(look, what=f"{volume_id} becoming {status}")


async def machine_of(house: House, **body: object) -> Json:
    launched = await house.launch(**body)
    return await house.until(launched["id"], "ACTIVE")


async def attach(house: House, volume: Json, machine: Json, **body: object) -> Json:
    await house.ask("POST", f"/volumes/{volume['id']}/attachment", {"instance": machine["id"], **body}, status=202)
    return await volume_until(house, volume["id"], "in-use")


async def detach(house: House, volume: Json) -> Json:
    await house.ask("DELETE", f"/volumes/{volume['id']}/attachment", status=202)
    return await volume_until(house, volume["id"], "available")


def plugged(house: House) -> dict[str, list[str]]:
    """Which volumes each machine has, as the hypervisor sees it."""
    return {instance_id: sorted(disks) for instance_id, disks in house.virt.plugged.items() if disks}


async def test_a_volume_is_made_attached_detached_and_deleted(house: House) -> None:
    machine, volume = await machine_of(house), await volume_of(house, name="data", metadata={"for": "tests"})
    assert (volume["name"], volume["size_gb"], volume["host"]) == ("data", 1, "node-1")
    there = await attach(house, volume, machine)
    assert there["attachment"]["device"] == "vdb"
    assert plugged(house) == {machine["id"]: ["volume-00000001"]}
    assert (await detach(house, volume))["attachment"] is None
    assert plugged(house) == {}
    await house.ask("DELETE", f"/volumes/{volume['id']}", status=202)
    assert (await volume_until(house, volume["id"], "deleted"))["deleted_ms"]
    assert house.volumes.volumes == {}
    assert (await house.ask("GET", "/volumes", status=200))["volumes"] == []


async def test_repeating_is_success_and_who_holds_it_is_told(house: House) -> None:
    machine, other = await machine_of(house, name="web"), await machine_of(house)
    volume = await attach(house, await volume_of(house, name="data"), machine)
    path = f"/volumes/{volume['id']}"
    again = await house.ask("POST", f"{path}/attachment", {"instance": "web"}, status=202)
    assert again["generation"] == volume["generation"]
    for method, where, body in (
        ("POST", f"{path}/attachment", {"instance": other["id"]}),
        ("DELETE", path, None),
        ("DELETE", f"{path}/attachment?instance={other['id']}", None),
        ("POST", "/snapshots", {"volume": volume["id"]}),
    ):
        refused = await house.ask(method, where, body, status=409)
        assert "data is in-use, at instance web as /dev/vdb" in refused["detail"]
    second = await volume_of(house)
    taken = await house.ask(
        "POST", f"/volumes/{second['id']}/attachment", {"instance": "web", "device": "vdb"}, status=409
    )
    assert "is data" in taken["detail"]
    await detach(house, volume)
    await house.ask("DELETE", f"{path}/attachment", status=202)  # nothing to do


async def test_a_volume_is_there_again_after_its_machine_was_started_again(house: House) -> None:
    machine, volume = await machine_of(house), await volume_of(house)
    await attach(house, volume, machine, device="vdx")
    house.virt.domains.clear()
    house.virt.plugged.clear()
    await house.compute.reporting.power(house.order_of(machine), None, "lost by the test")
    await until(lambda: bool(plugged(house)))
    (disk,) = house.virt.plugged[machine["id"]].values()
    assert (disk.device, disk.serial) == ("vdx", volume["id"])


async def test_the_first_free_device_is_behind_the_disks_of_the_machine_itself(tmp_path: Path) -> None:
    async with House(tmp_path).open() as house:
        flavor = house.controller.admission.flavors["m1.tiny"]
        more = flavor.model_copy(update={"ephemeral_gb": 1, "swap_mb": 64})
        house.controller.admission.flavors = {"m1.tiny": more}
        machine, volume = await machine_of(house), await volume_of(house)
        path = f"/volumes/{volume['id']}/attachment"
        await house.ask("POST", path, {"instance": machine["id"], "device": "vdc"}, status=409)
        there = await attach(house, volume, machine)
        assert there["attachment"]["device"] == "vdd"


async def test_a_stopped_machine_gets_it_when_it_starts(house: House) -> None:
    machine, volume = await machine_of(house), await volume_of(house)
    house.virt.end(machine["id"], "shutdown")
    await house.until(machine["id"], "STOPPED")
    await attach(house, volume, machine)
    assert plugged(house) == {}
    await detach(house, volume)


async def test_a_suspended_machine_keeps_its_volumes_as_they_are(house: House) -> None:
    machine, volume = await machine_of(house), await volume_of(house)
    await attach(house, volume, machine)
    path = f"/volumes/{volume['id']}"
    await house.ask("POST", f"/instances/{machine['id']}/suspend", status=202)
    await house.until(machine["id"], "SUSPENDED")
    for method, where, body in (("DELETE", f"{path}/attachment", None), ("POST", f"{path}/size", {"size_gb": 2})):
        refused = await house.ask(method, where, body, status=409)
        assert "suspended" in refused["detail"]
    other = await volume_of(house)
    await house.ask("POST", f"/volumes/{other['id']}/attachment", {"instance": machine["id"]}, status=409)


async def test_a_stopped_machine_starts_with_what_it_has_then(house: House) -> None:
    machine = await machine_of(house)
    kept, taken = await volume_of(house), await volume_of(house)
    for volume in (kept, taken):
        await attach(house, volume, machine)
    await house.ask("POST", f"/instances/{machine['id']}/stop", {}, status=202)
    await house.until(machine["id"], "STOPPED")
    await detach(house, taken)
    await house.ask("POST", f"/instances/{machine['id']}/start", status=202)
    await house.until(machine["id"], "ACTIVE")
    assert plugged(house) == {machine["id"]: ["volume-00000001"]}


async def test_terminating_frees_volumes_or_ends_them(house: House) -> None:
    machine = await machine_of(house)
    kept, going = await volume_of(house), await volume_of(house)
    await attach(house, kept, machine)
    await attach(house, going, machine, delete_on_termination=True)
    await house.ask("DELETE", f"/instances/{machine['id']}", status=202)
    await house.until(machine["id"], "DELETED")
    assert (await volume_until(house, kept["id"], "available"))["attachment"] is None
    await volume_until(house, going["id"], "deleted")
    assert [*house.volumes.volumes] == [kept["id"]]


async def test_a_volume_grows_attached_or_not_and_never_shrinks(house: House) -> None:
    machine, volume = await machine_of(house), await volume_of(house)
    path = f"/volumes/{volume['id']}/size"
    await house.ask("POST", path, {"size_gb": 2}, status=202)
    assert (await volume_until(house, volume["id"], "available"))["size_gb"] == 2
    await attach(house, volume, machine)
    await house.ask("POST", path, {"size_gb": 3}, status=202)
    assert (await volume_until(house, volume["id"], "in-use"))["size_gb"] == 3
    assert house.volumes.volumes[volume["id"]].size_gb == 3
    await house.ask("POST", path, {"size_gb": 3}, status=400)


async def test_a_snapshot_keeps_what_was_there_and_outlives_its_volume(house: House) -> None:
    machine, volume = await machine_of(house), await volume_of(house)
    house.volumes.volumes[volume["id"]].content = "as it was"
    await attach(house, volume, machine)
    made = await house.ask("POST", "/snapshots", {"volume": volume["id"], "force": True}, status=202)
    snapshot = await volume_until(house, made["id"], "available", "snapshots")
    assert house.virt.copied == [machine["id"]]
    house.volumes.volumes[volume["id"]].content = "as it is"
    await detach(house, volume)
    await house.ask("DELETE", f"/volumes/{volume['id']}", status=202)
    await volume_until(house, volume["id"], "deleted")
    copy = await volume_of(house, size_gb=2, snapshot=snapshot["id"])
    assert (copy["snapshot_id"], house.volumes.volumes[copy["id"]].content) == (snapshot["id"], "as it was")
    await house.ask("POST", "/volumes", {"size_gb": 1, "snapshot": copy["id"]}, status=404)
    await house.ask("DELETE", f"/snapshots/{snapshot['id']}", status=202)
    await volume_until(house, snapshot["id"], "deleted", "snapshots")
    assert [*house.volumes.volumes] == [copy["id"]]


async def test_the_last_of_a_quota_is_given_once(tmp_path: Path) -> None:
    async with House(tmp_path, quotas=Quotas(volumes=3, gigabytes=5, snapshots=1)).open() as house:
        answers = await asyncio.gather(
            *(house.http.post("/volumes", json={"size_gb": 1 + number % 2}) for number in range(12))
        )
        assert sorted(answer.status for answer in answers) == [202] * 3 + [403] * 9
        first = (await house.ask("GET", "/volumes", status=200))["volumes"][0]
        await volume_until(house, first["id"], "available")
        refused = await house.ask("POST", f"/volumes/{first['id']}/size", {"size_gb": 9}, status=403)
        assert "gigabytes" in refused["detail"]
        await house.ask("DELETE", f"/volumes/{first['id']}", status=202)
        await volume_until(house, first["id"], "deleted")
        await volume_of(house)


async def test_what_a_guest_does_not_let_go_of_is_said_and_may_be_forced(house: House) -> None:
    machine, volume = await machine_of(house), await volume_of(house)
    await attach(house, volume, machine)
    house.virt.clinging.add("volume-00000001")
    await house.ask("DELETE", f"/volumes/{volume['id']}/attachment", status=202)

    async def told() -> Json | None:
        found = await house.ask("GET", f"/volumes/{volume['id']}", status=200)
        return found if found["fault"] else None

    held = await eventually(told, what="why it takes so long")
    assert (held["status"], held["fault"]["code"]) == ("detaching", "disk_held")
    await house.ask("DELETE", f"/volumes/{volume['id']}/attachment?force=true", status=202)
    assert (await volume_until(house, volume["id"], "available"))["fault"] is None
    await house.until(machine["id"], "ACTIVE")  # reset, and started again without it
    assert plugged(house) == {}


async def test_what_nobody_owns_is_found_and_removed(house: House) -> None:
    machine, volume = await machine_of(house), await volume_of(house)
    await attach(house, volume, machine)
    assert (await house.ask("GET", "/audit", status=200))["findings"] == []
    lost = house.volumes.volumes[volume["id"]]
    house.virt.plugged[machine["id"]].clear()
    found = (await house.ask("GET", "/audit", status=200))["findings"]
    assert [(each["trouble"], each["kind"], each["name"]) for each in found] == [
        ("missing", "plugged", "volume-00000001")
    ]
    for _ in range(3):
        await house.controller.sweep.sweep()
    await until(lambda: bool(plugged(house)))
    disk = house.virt.plugged[machine["id"]]["volume-00000001"]
    await detach(house, volume)
    await house.ask("DELETE", f"/volumes/{volume['id']}", status=202)
    await volume_until(house, volume["id"], "deleted")
    house.volumes.volumes[volume["id"]] = lost
    house.virt.plugged[machine["id"]] = {disk.name: disk}
    found = (await house.ask("GET", "/audit", status=200))["findings"]
    assert [(each["trouble"], each["kind"]) for each in found] == [("ownerless", "plugged"), ("ownerless", "volume")]
    await house.ask("POST", "/gc", {}, status=200)
    assert (house.volumes.volumes, plugged(house)) == ({}, {})


async def test_the_command_line_does_it_all(house: House, launcher: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCHER_URL", house.url)
    monkeypatch.setenv("LAUNCHER_TOKEN", TOKEN)
    await machine_of(house, name="web")
    for line, said in (
        ("volume create data --size 1", "available"),
        ("volume attach data web --device /dev/vdc", "/dev/vdc"),
        ("volume list", "in-use"),
        ("volume extend data 2", "2 GiB"),
        ("volume snapshot data --name old --force", "available"),
        ("volume show data", "volume-00000001"),
        ("volume detach data", "available"),
        ("volume create copy --snapshot old", "available"),
        ("snapshot list", "old"),
        ("snapshot delete old", ""),
        ("volume delete data copy", ""),
    ):
        code, out, err = await launcher(line)
        assert (code, err) == (0, ""), (line, err)
        assert said in out, (line, out)
