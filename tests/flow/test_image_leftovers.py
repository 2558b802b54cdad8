"""What is left of imports: told by the audit, removed when it is nobody's, and gone after kill -9 and a full disk."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import aiohttp
import pytest

from tests.flow.house import House, Json
from tests.flow.test_images import announce, send, upload
from tests.flow.test_imports import begin, make_downloads, settled
from tests.mirror import Mirror
from tests.serving import Server
from tests.small_volume import small_volume
from tests.waiting import eventually, until

KILLS = ("image.arrive:after:1", "image.admit:after:1", "image.active:after:1")


@pytest.fixture
async def mirror() -> AsyncIterator[Mirror]:
    async with Mirror().serving() as mirror:
        yield mirror


async def test_the_audit_knows_what_is_in_the_vault(tmp_path: Path) -> None:
    async with House(tmp_path).open() as house:
        image = await upload(house)
        assert (await house.ask("GET", "/audit", status=200))["findings"] == []
        (tmp_path / "vault" / ("0" * 64)).write_bytes(b"x")
        (tmp_path / "vault" / "arriving" / "half").write_bytes(b"x")
        house.vault.path(image["sha256"]).unlink()
        found = (await house.ask("GET", "/audit", status=200))["findings"]
        assert [(each["trouble"], each["kind"], each["name"]) for each in found] == [
            ("ownerless", "image", "0" * 64),
            ("ownerless", "image", "half"),
            ("missing", "image", image["sha256"]),
        ]
        await house.ask("POST", "/gc", {"dry_run": False}, status=200)
        found = (await house.ask("GET", "/audit", status=200))["findings"]
        assert [each["trouble"] for each in found] == ["missing"]


async def test_a_lost_database_is_no_order_to_throw_the_images_away(tmp_path: Path) -> None:
    async with House(tmp_path).open() as house:
        image = await upload(house)
    for path in tmp_path.glob("controller.db*"):
        path.unlink()
    async with House(tmp_path).open() as house:
        await house.controller.images.imports.tend()
        assert await house.vault.list_contents() == [image["sha256"]]
        (found,) = (await house.ask("GET", "/audit", status=200))["findings"]
        assert (found["trouble"], found["name"]) == ("unknown", image["sha256"])
        await house.ask("POST", "/gc", {"dry_run": False}, status=409)


@pytest.fixture
def small_vault(tmp_path: Path, sandboxed: None) -> Iterator[Path]:
    with small_volume(tmp_path / "vault", 1) as path:
        yield path


@pytest.mark.host
async def test_an_import_that_fills_the_disk_leaves_nothing_and_may_be_repeated(
    tmp_path: Path, small_vault: Path, mirror: Mirror
) -> None:
    content = Random(3).randbytes(3_000_000)
    url = mirror.add("cloud.img", content)
    async with House(tmp_path, downloads=make_downloads()).open() as house:
        image = await announce(house)
        refused = await send(house, image, content, status=507)
        assert "no space left" in refused["detail"]
        failed = await settled(house, await begin(house, url))
        assert (failed["state"], "no space left" in failed["reason"]) == ("error", True)

        async def empty() -> bool:
            return [path.name for path in small_vault.rglob("*")] == ["arriving"]

        await eventually(empty, what="an empty vault")
        assert (await house.ask("GET", "/audit", status=200))["findings"] == []
        subprocess.run(["mount", "-o", "remount,size=16m", small_vault], check=True)
        assert (await send(house, image, content))["state"] == "active"
        assert (await settled(house, await begin(house, url, name="again")))["state"] == "active"


def served(tmp_path: Path) -> Server:
    return Server(tmp_path / "state", settings=["virt.driver=fake", "images.fetch_from=['127.0.0.0/8']"])


async def asked(server: Server, method: str, path: str, **options: object) -> Json:
    headers = {"Authorization": f"Bearer {server.admin['token']}"}
    async with (
        aiohttp.ClientSession(server.admin["url"], headers=headers) as http,
        http.request(method, path, **options) as response,  # type: ignore[arg-type]
    ):
        found: Json = await response.json(content_type=None)
        return found


async def test_a_download_survives_kill_9_at_every_point(tmp_path: Path, mirror: Mirror) -> None:
    """The next process ends it; the vault has what the images have, and nothing else."""
    server, sums = served(tmp_path), []
    for number, point in enumerate(KILLS):
        content = Random(number).randbytes(2_500_000)
        url = mirror.add(f"{number}.img", content)
        sums.append(hashlib.sha256(content).hexdigest())
        server.environment = {"LAUNCHER_FAILPOINT": f"{point}:kill"}
        await server.start()
        made = await asked(server, "POST", "/images", json={"name": f"image-{number}", "source": url})
        await until(lambda: server.ended, within=20)
        server.environment = {}
        async with server.running():

            async def active(image: str = made["images"][0]["id"]) -> bool:
                return bool((await asked(server, "GET", f"/images/{image}"))["state"] == "active")

            await eventually(active, what=f"the image after {point}")
            assert json.loads(await server.cli("audit", "--json"))["findings"] == []
            vault = server.state / "vault"
            found = sorted(path.name for path in vault.rglob("*") if path.is_file())
            assert found == sorted(sums), point


async def test_an_upload_cut_by_kill_9_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    server = served(tmp_path)
    server.environment = {"LAUNCHER_FAILPOINT": "image.admit:after:1:kill"}
    await server.start()
    made = await asked(server, "POST", "/images", json={"name": "mine", "source": "upload"})
    path = f"/images/{made['images'][0]['id']}"
    with pytest.raises(aiohttp.ClientError):
        await asked(server, "PUT", f"{path}/file", data=io.BytesIO(bytes(3_000_000)))
    await until(lambda: server.ended, within=20)
    server.environment = {}
    async with server.running():
        found = await asked(server, "GET", path)
        assert (found["state"], found["reason"]) == ("error", "the upload was cut off: the server ended")
        assert [path for path in (server.state / "vault").rglob("*") if path.is_file()] == []
        assert json.loads(await server.cli("audit", "--json"))["findings"] == []
