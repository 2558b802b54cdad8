"""One suite for every hypervisor: the fake, and libvirt's embedded driver with QEMU under TCG."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from launcher.drivers.images import qcow2
from launcher.errors import DomainConflict, NotFound, SpawnFailed, StaleGeneration
from launcher.models import LaunchOrder, PowerState
from tests.contract.virt_rigs import FakeRig, LibvirtRig, Rig, order_for, start
from tests.waiting import until

FOREIGN = "7d1f0d50-5bf6-4c3e-8b4e-0000000f0e16"


@pytest.fixture(scope="session")
def embed_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libvirt allows one per process."""
    return tmp_path_factory.mktemp("embed")


@pytest.fixture(params=["fake", pytest.param("libvirt", marks=pytest.mark.host)])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    if request.param == "fake":
        fake = FakeRig(tmp_path)
        await start(fake)
        yield fake
        return
    request.getfixturevalue("sandboxed")
    root = request.getfixturevalue("embed_root")
    real = LibvirtRig(f"qemu:///embed?root={root}", pids=root / "run" / "qemu", directory=tmp_path)
    await start(real)
    yield real
    await real.clear()
    await real.virt.stop()


async def spawned(rig: Rig, number: int = 1, *, generation: int = 1) -> LaunchOrder:
    order = order_for(number, generation=generation)
    await rig.virt.spawn(order, await rig.disks(order))
    return order


async def test_a_spawned_domain_runs_and_is_listed_and_found(rig: Rig) -> None:
    order = await spawned(rig, 26, generation=7)
    (domain,) = await rig.virt.list_domains()
    assert domain == await rig.virt.find_domain(order.instance_id)
    assert (domain.instance_id, domain.number, domain.generation) == (order.instance_id, 26, 7)
    assert (domain.name, domain.power) == ("instance-0000001a", PowerState.RUNNING)


async def test_spawning_again_leaves_the_running_domain_alone(rig: Rig) -> None:
    order = await spawned(rig)
    await until(lambda: bool(rig.changes))
    rig.changes.clear()
    await rig.virt.spawn(order, await rig.disks(order))
    assert [domain.generation for domain in await rig.virt.list_domains()] == [1]
    assert rig.changes == []
    await rig.kill_guest(order)  # found once by a start that had nothing to do: it was not watched any more
    await until(lambda: rig.changes == [(order.instance_id, PowerState.STOPPED, "failed")])


async def test_a_newer_generation_replaces_the_older_one(rig: Rig) -> None:
    await spawned(rig, generation=1)
    await spawned(rig, generation=2)
    assert [domain.generation for domain in await rig.virt.list_domains()] == [2]
    await until(lambda: len(rig.changes) >= 2)
    assert {power for _, power, _ in rig.changes} == {PowerState.RUNNING}, "replacing is no surprise"


async def test_an_older_generation_is_refused(rig: Rig) -> None:
    await spawned(rig, generation=2)
    with pytest.raises(StaleGeneration, match="instance-00000001"):
        await spawned(rig, generation=1)
    assert [domain.generation for domain in await rig.virt.list_domains()] == [2]


async def test_destroy_may_be_repeated(rig: Rig) -> None:
    order = await spawned(rig)
    await rig.virt.destroy(order)
    assert await rig.virt.list_domains() == []
    await rig.virt.destroy(order)
    assert await rig.virt.find_domain(order.instance_id) is None


async def test_a_domain_that_never_was_is_destroyed_and_not_found(rig: Rig) -> None:
    order = order_for(9)
    await rig.virt.destroy(order)
    assert await rig.virt.find_domain(order.instance_id) is None
    with pytest.raises(NotFound, match="instance-00000009"):
        await rig.virt.get_diagnostics(order)


async def test_diagnostics_tell_state_and_memory(rig: Rig) -> None:
    order = await spawned(rig)
    diagnostics = await rig.virt.get_diagnostics(order)
    assert (diagnostics.power, diagnostics.memory_mb) == (PowerState.RUNNING, 64)
    assert diagnostics.cpu_time_ms >= 0


async def test_the_hosts_resources_are_known(rig: Rig) -> None:
    resources = await rig.virt.host_resources()
    assert resources.vcpus >= 1
    assert resources.memory_mb >= 1024
    assert resources.virt_type in ("qemu", "fake")
    assert resources.virt_reason


async def test_a_guest_that_dies_is_news_and_may_be_spawned_again(rig: Rig) -> None:
    order = await spawned(rig)
    await rig.kill_guest(order)
    await until(lambda: any(power is PowerState.STOPPED for _, power, _ in rig.changes))
    assert (order.instance_id, PowerState.STOPPED, "failed") in rig.changes
    await rig.virt.spawn(order, await rig.disks(order))
    assert [domain.power for domain in await rig.virt.list_domains()] == [PowerState.RUNNING]


async def test_our_own_destroy_is_no_news(rig: Rig) -> None:
    order, other = await spawned(rig, 1), await spawned(rig, 2)
    await rig.virt.destroy(order)
    await rig.kill_guest(other)  # events keep their order: when this one is here, the other would be too
    await until(lambda: (other.instance_id, PowerState.STOPPED, "failed") in rig.changes)
    assert [
        change for change in rig.changes if change[1] is PowerState.STOPPED and change[0] == order.instance_id
    ] == []


async def test_a_lost_disk_is_named_in_the_error_and_leaves_nothing(rig: Rig) -> None:
    order = order_for()
    disks = await rig.disks(order)
    await rig.lose_disk(disks)
    with pytest.raises(SpawnFailed, match=f"{disks.root}.*No such file"):
        await rig.virt.spawn(order, disks)
    assert await rig.virt.list_domains() == []


async def test_a_foreign_domain_is_not_seen_and_not_touched(rig: Rig) -> None:
    order = order_for()
    await rig.add_foreign(order.instance_id, "somebodys")
    assert await rig.virt.list_domains() == []
    assert await rig.virt.find_domain(order.instance_id) is None
    await rig.virt.destroy(order)
    assert await rig.list_foreign() == ["somebodys"]


@pytest.mark.parametrize(("uuid", "name"), [(order_for().instance_id, "somebodys"), (FOREIGN, "instance-00000001")])
async def test_a_uuid_or_a_name_in_foreign_hands_is_a_conflict(rig: Rig, uuid: str, name: str) -> None:
    await rig.add_foreign(uuid, name)
    with pytest.raises(DomainConflict, match="instance-00000001"):
        await spawned(rig)
    assert await rig.list_foreign() == [name]


async def test_destroy_outlives_a_cancelled_spawn(rig: Rig) -> None:
    """The thread of a cancelled spawn goes on; its domain must not appear after the destroy."""
    order = order_for()
    launch = asyncio.ensure_future(rig.virt.spawn(order, await rig.disks(order)))
    for _ in range(3):
        await asyncio.sleep(0)
    launch.cancel()
    await asyncio.wait([launch])
    await rig.virt.destroy(order)
    assert await rig.virt.list_domains() == []


async def test_the_loop_turns_while_a_domain_starts_and_ends(rig: Rig) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.ensure_future(turn())
    order = await spawned(rig)
    await rig.virt.destroy(order)
    turning.cancel()
    assert turns > 0


# --- between the launch and the end ----------------------------------------------------------------


async def power_of(rig: Rig, order: LaunchOrder) -> PowerState | None:
    found = await rig.virt.find_domain(order.instance_id)
    return found.power if found else None


async def test_a_paused_domain_stands_until_it_may_run_again(rig: Rig) -> None:
    order = await spawned(rig)
    for verb, power in ((rig.virt.pause, PowerState.PAUSED), (rig.virt.unpause, PowerState.RUNNING)):
        for _ in range(2):
            await verb(order)
            assert await power_of(rig, order) is power
    older = order.model_copy(update={"generation": 2})
    for missing in (order_for(9), older):
        with pytest.raises(NotFound, match=missing.name):
            await rig.virt.pause(missing)


async def test_a_suspended_domain_goes_on_as_the_next_generation(rig: Rig, tmp_path: Path) -> None:
    """Its end is no news, its next end is."""
    order, memory = await spawned(rig), tmp_path / "memory"
    for _ in range(2):
        await rig.virt.suspend(order, memory)
        assert await rig.virt.list_domains() == []
    assert all(power is not PowerState.STOPPED for _, power, _ in rig.changes)
    later = order.model_copy(update={"generation": 2})
    for _ in range(2):
        await rig.virt.resume(later, memory)
        (domain,) = await rig.virt.list_domains()
        assert (domain.generation, domain.power, domain.number) == (2, PowerState.RUNNING, order.number)
    assert not memory.exists()
    await rig.kill_guest(order)
    await until(lambda: (order.instance_id, PowerState.STOPPED, "failed") in rig.changes)


async def test_without_its_memory_nothing_goes_on(rig: Rig, tmp_path: Path) -> None:
    order, memory = await spawned(rig), tmp_path / "memory"
    await rig.virt.suspend(order, memory)
    for _ in range(2):
        await rig.virt.forget(order, memory)
    assert not memory.exists()
    with pytest.raises(SpawnFailed, match="memory"):
        await rig.virt.resume(order.model_copy(update={"generation": 2}), memory)
    with pytest.raises(NotFound, match=order.name):
        await rig.virt.suspend(order, memory)
    assert await rig.virt.list_domains() == []


async def test_the_power_button_may_be_pressed_whatever_is_there(rig: Rig) -> None:
    """A guest without a system does not hear it."""
    order = await spawned(rig)
    rig.deafen(order)
    await rig.virt.shut_down(order)
    assert await power_of(rig, order) is PowerState.RUNNING
    await rig.virt.destroy(order)
    await rig.virt.shut_down(order)


async def test_a_root_disk_is_copied_while_its_guest_runs(rig: Rig, tmp_path: Path) -> None:
    order = await spawned(rig)
    for _ in range(2):
        await rig.virt.copy_root(order, tmp_path / "copy")
    if isinstance(rig, LibvirtRig):
        found = qcow2.read_header(tmp_path / "copy")
        assert (found.virtual_size, found.backing_file) == (1 << 20, None)
    domain = await rig.virt.find_domain(order.instance_id)
    assert domain is not None
    assert domain.power is PowerState.RUNNING
    with pytest.raises(NotFound):
        await rig.virt.copy_root(order_for(generation=2), tmp_path / "copy")
