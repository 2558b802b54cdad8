"""Every failpoint lies on the way of a launch, of a failed one, of what is done between, or of an end.

Those in the files of real images are passed in `tests/host/test_kills.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher import failpoints
from launcher.failpoints import Armed
from launcher.life import OPERATIONS, Action
from launcher.models import VmState
from tests.flow.house import House
from tests.flow.test_life import act, done
from tests.flow.test_volumes import attach, machine_of, volume_of, volume_until
from tests.waiting import until

FILES = {name for name in failpoints.POINTS if name.startswith("image.")} | {"volume.file", "volume.trash"}


class Passed(dict[str, Armed]):
    """Nothing is armed, and what was passed is noted."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def get(self, name: str, default: object = None) -> object:  # type: ignore[override]
        self.names.add(name)
        return default


async def test_every_point_is_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = Passed()
    monkeypatch.setattr(failpoints, "ARMED", passed)
    async with House(tmp_path, max_attempts=1).open() as house:
        launched = await house.launch()
        await house.until(launched["id"], "ACTIVE")
        assert passed.names == failpoints.LAUNCH.keys() - FILES
        house.break_step("spawning")
        failed = await house.launch()
        await house.until(failed["id"], "ERROR")
        assert passed.names >= failpoints.FAILURE.keys()
        house.broken.clear()
        for action, operation in OPERATIONS.items():
            if action is Action.SNAPSHOT:
                continue
            await act(house, launched, action)
            await done(house, launched, operation.end)
        await house.ask("POST", "/images", {"name": "copy", "source": f"instance:{launched['id']}"}, status=201)
        await done(house, launched, VmState.ACTIVE)
        await house.ask("DELETE", f"/instances/{launched['id']}", status=202)
        await house.until(launched["id"], "DELETED")
        assert passed.names - FILES == failpoints.POINTS.keys() - failpoints.VOLUMES.keys() - FILES


async def test_every_point_of_volumes_is_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = Passed()
    monkeypatch.setattr(failpoints, "ARMED", passed)
    async with House(tmp_path).open() as house:
        machine, volume = await machine_of(house), await volume_of(house)
        await attach(house, volume, machine)
        await house.ask("POST", f"/volumes/{volume['id']}/size", {"size_gb": 2}, status=202)
        await volume_until(house, volume["id"], "in-use")
        house.virt.clinging.add("volume-00000001")
        await house.ask("DELETE", f"/volumes/{volume['id']}/attachment", status=202)
        await until(lambda: "volume.fault" in passed.names)
        house.virt.clinging.clear()
        await volume_until(house, volume["id"], "available")
        await house.ask("DELETE", f"/volumes/{volume['id']}", status=202)
        await volume_until(house, volume["id"], "deleted")
        assert passed.names & failpoints.VOLUMES.keys() == failpoints.VOLUMES.keys() - FILES
