"""LibvirtVirt with a daemon of its own that is killed at bad moments."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from launcher.errors import HypervisorBusy, HypervisorUnavailable
from launcher.models import PowerState
from tests.contract.virt_rigs import LibvirtRig, order_for, start
from tests.host.libvirtd import Daemon
from tests.waiting import until

pytestmark = pytest.mark.host


@pytest.fixture
async def rig(daemon: Daemon, tmp_path: Path) -> AsyncIterator[LibvirtRig]:
    rig = LibvirtRig(daemon.uri, pids=daemon.directory / "run" / "qemu", directory=tmp_path, settle=3.0)
    await start(rig)
    yield rig
    for domain in await rig.virt.list_domains():
        with contextlib.suppress(HypervisorBusy):  # a daemon killed in a start may hold its lock; the test is over
            await rig.virt.destroy(order_for(domain.number))
    await rig.virt.stop()


async def test_a_killed_daemon_costs_time_and_no_guest(daemon: Daemon, rig: LibvirtRig) -> None:
    """Guests live on, calls wait for the new daemon, and events come again."""
    order = order_for(1, generation=4)
    await rig.virt.spawn(order, await rig.disks(order))
    await daemon.kill()
    waiting = asyncio.ensure_future(rig.virt.list_domains())
    await asyncio.sleep(0)
    await daemon.start()

    with contextlib.suppress(HypervisorUnavailable):  # the call may have left before the loss was noticed
        await waiting
    assert [(domain.generation, domain.power) for domain in await rig.virt.list_domains()] == [(4, PowerState.RUNNING)]
    await rig.kill_guest(order)
    await until(lambda: (order.instance_id, PowerState.STOPPED, "failed") in rig.changes)


async def test_a_guest_that_ended_while_the_daemon_was_away_is_reported(daemon: Daemon, rig: LibvirtRig) -> None:
    order = order_for(2)
    await rig.virt.spawn(order, await rig.disks(order))
    await daemon.kill()
    await rig.kill_guest(order)
    await daemon.start()
    await until(lambda: (order.instance_id, PowerState.STOPPED) in [change[:2] for change in rig.changes])


@pytest.mark.parametrize("delay", [0.02, 0.15, 0.35])
async def test_a_daemon_killed_while_it_starts_a_domain_leaves_one_or_none(
    daemon: Daemon, rig: LibvirtRig, delay: float
) -> None:
    """Spawn tells the truth about what runs, or that it does not know; repeating it gives exactly one domain."""
    order = order_for(3)
    disks = await rig.disks(order)
    launch = asyncio.ensure_future(rig.virt.spawn(order, disks))
    await asyncio.wait([launch], timeout=delay)
    await daemon.kill()
    await daemon.start()

    with contextlib.suppress(HypervisorUnavailable):
        await launch
        assert len(await rig.virt.list_domains()) == 1, "it said that the domain runs"
    await rig.virt.spawn(order, disks)
    assert [domain.instance_id for domain in await rig.virt.list_domains()] == [order.instance_id]


async def test_without_a_daemon_the_error_names_the_socket(sandboxed: None, tmp_path: Path) -> None:
    rig = LibvirtRig(f"qemu+unix:///system?socket={tmp_path}/absent", pids=tmp_path, directory=tmp_path)
    with pytest.raises(HypervisorUnavailable, match=f"{tmp_path}/absent"):
        await start(rig)
    await rig.virt.stop()
