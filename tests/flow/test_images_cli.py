"""The command `image` against a whole launcher: imports with their progress, and what becomes of images."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from launcher.cli import images
from launcher.cli.client import Exit
from launcher.images import KnownImage
from tests.flow.conftest import Run
from tests.flow.house import TOKEN, House
from tests.flow.test_imports import make_downloads
from tests.mirror import Mirror

CONTENT = Random(2).randbytes(1_500_000)


@pytest.fixture
async def mirror() -> AsyncIterator[Mirror]:
    async with Mirror().serving() as mirror:
        yield mirror


@pytest.fixture
async def house(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr(images, "LOOK_EVERY", 0.01)
    url = mirror.add("debian.qcow2", CONTENT)
    known = KnownImage(name="debian-12", title="Debian 12", url=url, checksum="SHA256SUMS", user="debian")
    async with House(tmp_path, downloads=make_downloads(), known_images={"debian-12": known}).open() as house:
        monkeypatch.setenv("LAUNCHER_URL", house.url)
        monkeypatch.setenv("LAUNCHER_TOKEN", TOKEN)
        yield house


async def test_from_a_file_and_back(house: House, launcher: Run, tmp_path: Path) -> None:
    (tmp_path / "web.img").write_bytes(CONTENT)
    code, out, err = await launcher(f"image import {tmp_path}/web.img --name web --min-memory 64 --description mine")
    assert (code, out.splitlines()[1].split()[1:5]) == (Exit.OK, ["web", "machine", "active", "raw"])
    assert "100 %" in err
    assert "1.4 MiB" in (await launcher("image list"))[1]
    shown = (await launcher("image show web"))[1]
    assert "min_memory_mb  64" in shown
    assert (await launcher(f"image export web {tmp_path}/out.img"))[0] == Exit.OK
    assert (tmp_path / "out.img").read_bytes() == CONTENT
    assert (await launcher("image share web eve"))[0] == Exit.NOT_FOUND
    made = [(await house.ask("POST", "/projects", {"name": name}, status=201))["id"] for name in ("eve", "bob")]
    assert (await launcher("image share web eve bob"))[:2] == (Exit.OK, f"web: {', '.join(made)}\n")
    assert (await launcher("image unshare web eve bob"))[:2] == (Exit.OK, "web: nobody else\n")
    assert (await launcher("image set web --name site --public"))[0] == Exit.OK
    assert json.loads((await launcher("image show site --json"))[1])["public"]
    assert "site" in (await launcher("_complete -- image show s"))[1].split()
    assert (await launcher("image delete site"))[0] == Exit.OK
    assert (await launcher("image show site"))[0] == Exit.NOT_FOUND


async def test_a_file_that_does_not_pass_leaves_no_image(house: House, launcher: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.img").write_bytes(b"KDMV" + bytes(1000))
    code, _, err = await launcher(f"image import {tmp_path}/bad.img")
    assert code == Exit.REFUSED
    assert "vmdk" in err
    (tmp_path / "good.img").write_bytes(CONTENT)
    assert "checksum" in (await launcher(f"image import {tmp_path}/good.img --checksum sha256:{'0' * 64}"))[2]
    assert (await launcher(f"image import {tmp_path}/none.img"))[0] == Exit.USAGE
    assert "img" not in (await launcher("image list"))[1]


async def test_a_well_known_image_is_pulled_and_launched_by_all_who_wait(
    house: House, launcher: Run, mirror: Mirror
) -> None:
    assert "Debian 12" in (await launcher("image known"))[1]
    mirror.hold = asyncio.Event()
    assert "importing" in (await launcher("image pull debian-12 --no-wait"))[1]
    await mirror.half_sent.wait()
    waiting = asyncio.gather(launcher("image pull debian-12"), launcher("run debian-12 --name web"))
    mirror.hold.set()
    assert [code for code, _, _ in await waiting] == [Exit.OK, Exit.OK]
    assert mirror.times("debian.qcow2") == 1
    assert "ACTIVE" in (await launcher("list"))[1]


async def test_an_import_that_fails_says_why(house: House, launcher: Run, mirror: Mirror) -> None:
    code, _, err = await launcher(f"image import {mirror.url}/none.img --no-verify")
    assert code == Exit.FAULT
    assert "HTTP 404" in err
    assert (await launcher("run none.img"))[0] == Exit.REFUSED
    assert (await launcher("image pull nothing"))[0] == Exit.NOT_FOUND


async def test_copies_that_nobody_uses_are_pruned(house: House, launcher: Run) -> None:
    await launcher("run ami-tiny --name web")
    assert (await launcher("image prune"))[:2] == (Exit.OK, "node-1: 0 B freed\n")
    await launcher("delete web --wait")
    assert (await launcher("image prune"))[:2] == (Exit.OK, "node-1: 3 B freed\n")
