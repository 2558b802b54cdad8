"""The image catalogue: uploads, who may see and use what, and what a deletion leaves."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from launcher.accounts import Credential, CredentialKind, Project, User, UserRole
from launcher.clock import SystemClock
from launcher.db import accounts, credentials
from launcher.messages.images import BeginUpload
from launcher.models import Quotas
from launcher.services.controller.credentials import sha256
from launcher.services.controller.imports import UPLOAD_PATIENCE_MS
from tests.flow.house import House, Json
from tests.waiting import eventually

CONTENT = b"disk" * 300_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


async def announce(house: House, name: str = "mine", **more: object) -> Json:
    made = await house.ask("POST", "/images", {"name": name, "source": "upload", **more}, status=201)
    found: Json = made["images"][0]
    return found


async def send(house: House, image: Json, content: bytes = CONTENT, status: int = 200) -> Json:
    async with house.http.put(f"/images/{image['id']}/file", data=io.BytesIO(content)) as response:
        found: Json = await response.json(content_type=None)
        assert response.status == status, found
        return found


async def upload(house: House, name: str = "mine", content: bytes = CONTENT, **more: object) -> Json:
    return await send(house, await announce(house, name, **more), content)


class Other:
    """Somebody of another project, without any right but its own."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def ask(self, method: str, path: str, body: object = None, *, status: int) -> Json:
        async with self.http.request(method, path, json=body) as response:
            found: Json = await response.json(content_type=None)
            assert response.status == status, found
            return found


@pytest.fixture
async def other(house: House) -> AsyncIterator[Other]:
    token = "lt_somebody"

    def make(db: sqlite3.Connection) -> None:
        accounts.create_project(db, Project(id="eve", name="eve", created_ms=0.0))
        accounts.create_user(db, User(id="eve", name="eve", created_ms=0.0), None)
        accounts.grant(db, "eve", "eve", UserRole.MEMBER)
        held = {"id": "1", "kind": CredentialKind.TOKEN, "name": "", "user_id": "eve", "project_id": "eve"}
        credentials.create(db, Credential(**held, role=UserRole.MEMBER, created_ms=0.0), sha256(token))

    await house.controller.db.write(make)
    async with aiohttp.ClientSession(house.url, headers={"Authorization": f"Bearer {token}"}) as http:
        yield Other(http)


async def test_an_upload_becomes_an_image_and_comes_out_as_it_went_in(house: House) -> None:
    image = await announce(house, min_memory_mb=64, description="mine", checksum=f"sha256:{SHA256}")
    assert (image["state"], image["size"], image["project_id"], image["public"]) == ("queued", None, "admin", False)
    refused = await house.ask("POST", "/instances", {"image": "mine", "flavor": "m1.tiny"}, status=409)
    assert "is queued" in refused["detail"]
    found = await send(house, image)
    assert (found["state"], found["size"], found["sha256"], found["format"]) == ("active", len(CONTENT), SHA256, "raw")
    made = await house.launch(image="mine")
    await house.until(made["id"], "ACTIVE")
    async with house.http.get("/images/mine/file", headers={"Range": "bytes=4-7"}) as response:
        assert (response.status, await response.read()) == (206, b"disk")
        assert response.headers["X-Checksum-Sha256"] == SHA256


async def test_bytes_that_are_not_what_was_announced_are_an_error_and_may_come_again(house: House) -> None:
    image = await announce(house, checksum=f"sha512:{hashlib.sha512(CONTENT).hexdigest()}")
    refused = await send(house, image, b"other", status=422)
    assert "checksum" in refused["detail"]
    found = await house.ask("GET", "/images/mine", status=200)
    assert (found["state"], found["reason"][:12]) == ("error", "the 5 bytes ")
    assert await house.vault.list_arrivals() == await house.vault.list_contents() == []
    assert (await send(house, image))["state"] == "active"
    await send(house, image, status=409)


@pytest.mark.parametrize(
    ("make", "format", "said"),
    [
        (["create", "-f", "qcow2", "x", "1M"], "raw", "registered as raw"),
        (["create", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", "-u", "x", "1M"], None, "backing file"),
        (["create", "-f", "vmdk", "x", "1M"], None, "vmdk image"),
        (["create", "-f", "qcow2", "x", "2T"], None, "a disk of 2199023255552 bytes"),
    ],
)
async def test_what_does_not_pass_the_gate_is_never_active(
    house: House, tmp_path: Path, make: list[str], format: str | None, said: str
) -> None:
    subprocess.run(["qemu-img", *make], cwd=tmp_path, check=True, capture_output=True)
    refused = await send(house, await announce(house, format=format), (tmp_path / "x").read_bytes(), status=422)
    assert said in refused["detail"]
    assert said in (await house.ask("GET", "/images/mine", status=200))["reason"]
    assert await house.vault.list_contents() == []


async def test_an_upload_that_is_cut_off_is_an_error_and_leaves_nothing(house: House) -> None:
    image = await announce(house)
    _, writer = await asyncio.open_connection(*house.url.removeprefix("http://").split(":"))
    token = house.http.headers["Authorization"]
    head = (f"PUT /images/{image['id']}/file HTTP/1.1", "Host: x", f"Authorization: {token}", "Content-Length: 1000000")
    writer.write("\r\n".join((*head, "", "")).encode() + b"x" * 300_000)
    await writer.drain()

    async def saving() -> bool:
        return bool((await house.ask("GET", "/images/mine"))["state"] == "saving")

    await eventually(saving, what="saving")
    await send(house, image, status=409)
    writer.close()

    async def failed() -> Json | None:
        found = await house.ask("GET", "/images/mine", status=200)
        return found if found["state"] == "error" else None

    async def swept() -> bool:
        return await house.vault.list_arrivals() == []

    assert "cut off" in (await eventually(failed, what="the error"))["reason"]
    await eventually(swept, what="nothing of it")
    assert (await send(house, image))["state"] == "active"


async def test_an_upload_over_the_limit_is_refused_from_its_length(tmp_path: Path) -> None:
    async with House(tmp_path, largest_image=1000).open() as house:
        refused = await send(house, await announce(house), status=422)
        assert "at most 1000" in refused["detail"]
        assert await house.vault.list_arrivals() == []


async def test_the_next_process_knows_what_was_being_uploaded_is_lost(tmp_path: Path) -> None:
    async with House(tmp_path).open() as house:
        image = await announce(house)
        ctx = house.controller.own_context().model_copy(update={"project_id": "admin"})
        await house.controller.images.begin_upload(ctx, BeginUpload(image=image["id"]))
        arrival = await house.vault.open_arrival(image["id"], resume=False)
        await arrival.append(b"x")
        await arrival.close()
    async with House(tmp_path).open() as house:
        found = await house.ask("GET", "/images/mine", status=200)
        assert (found["state"], found["reason"]) == ("error", "the upload was cut off: the server ended")
        assert await house.vault.list_arrivals() == []


async def test_an_upload_of_which_nothing_comes_any_more_is_given_up_and_a_slow_one_is_not(tmp_path: Path) -> None:
    async with House(tmp_path).open() as house:
        imports, image = house.controller.images.imports, await announce(house)
        ctx = house.controller.own_context().model_copy(update={"project_id": "admin"})
        await house.controller.images.begin_upload(ctx, BeginUpload(image=image["id"]))
        later = house.controller.clock.now_ms() + UPLOAD_PATIENCE_MS + 1000
        imports.clock = StoppedClock(later)
        arriving = tmp_path / "vault" / "arriving" / image["id"]
        for last_ms, state in ((later - 5000, "saving"), (later - UPLOAD_PATIENCE_MS - 5000, "error")):
            arriving.write_bytes(b"x")
            os.utime(arriving, (last_ms / 1000, last_ms / 1000))
            await imports.tend()
            assert (await house.ask("GET", "/images/mine", status=200))["state"] == state
        assert not arriving.exists()


class StoppedClock(SystemClock):
    """Says the same for ever."""

    def __init__(self, at_ms: float) -> None:
        self.at_ms = at_ms

    def now_ms(self) -> float:
        return self.at_ms


async def test_a_triple_boots_by_the_kernel_and_ramdisk_it_names(house: House) -> None:
    for kind in ("kernel", "ramdisk"):
        await upload(house, kind, kind.encode() * 100, kind=kind)
    machine = await upload(house, "root", kernel_id="kernel", ramdisk_id="ramdisk", kernel_args="quiet")
    made = await house.launch(image="root")
    order = house.order_of(await house.until(made["id"], "ACTIVE"))
    assert (order.image.id, order.image.kernel_args) == (machine["id"], "quiet")
    assert order.kernel
    assert order.ramdisk
    assert (order.kernel.name, order.ramdisk.name) == ("kernel", "ramdisk")
    refused = await house.ask("DELETE", "/images/kernel", status=409)
    assert "root" in refused["detail"]
    for field, name in (("kernel_id", "ramdisk"), ("ramdisk_id", "root")):
        await house.ask("PATCH", "/images/root", {field: name}, status=400)
    await house.ask("POST", "/images", {"name": "x", "source": "upload", "kernel_id": "nothing"}, status=404)
    await house.ask("PATCH", "/images/root", {"kernel_id": "", "ramdisk_id": ""}, status=200)
    await house.ask("DELETE", "/images/kernel", status=200)


async def test_bytes_stay_until_the_last_instance_that_needs_them_has_gone(house: House) -> None:
    image = await upload(house)
    made = await house.launch(image="mine")
    await house.until(made["id"], "ACTIVE")
    deleted = await house.ask("DELETE", "/images/mine", status=200)
    assert (deleted["state"], deleted["reason"]) == ("deleted", "1 instances still need its bytes")
    await house.ask("GET", f"/images/{image['id']}", status=404)
    await house.ask("POST", "/instances", {"image": "mine", "flavor": "m1.tiny"}, status=404)
    await house.controller.images.imports.tend()
    assert await house.vault.list_contents() == [SHA256]
    await house.ask("DELETE", f"/instances/{made['id']}", status=202)
    await house.until(made["id"], "DELETED")
    await house.controller.images.imports.tend()
    assert await house.vault.list_contents() == []


async def test_two_images_of_one_content_share_it(house: House) -> None:
    await upload(house, "a")
    await upload(house, "b")
    assert await house.vault.list_contents() == [SHA256]
    await house.ask("DELETE", "/images/a", status=200)
    assert await house.vault.list_contents() == [SHA256]
    await house.ask("DELETE", "/images/b", status=200)
    assert await house.vault.list_contents() == []


async def test_an_image_is_its_projects_until_it_is_shared(house: House, other: Other) -> None:
    image = await upload(house)
    one = f"/images/{image['id']}"
    for path in (one, "/images/mine", f"{one}/file"):
        await other.ask("GET", path, status=404)
    await other.ask("POST", "/instances", {"image": image["id"], "flavor": "m1.tiny"}, status=404)
    assert "mine" not in [each["name"] for each in (await other.ask("GET", "/images", status=200))["images"]]

    await house.ask("PATCH", one, {"projects": ["eve"]}, status=200)
    await other.ask("GET", "/images/mine", status=200)
    await other.ask("POST", "/instances", {"image": "mine", "flavor": "m1.tiny"}, status=202)
    for method, body in (("PATCH", {"description": "hers"}), ("DELETE", None)):
        await other.ask(method, one, body, status=403)
    await house.ask("PATCH", one, {"projects": []}, status=200)
    await other.ask("GET", one, status=404)

    await house.ask("PATCH", one, {"public": True}, status=200)
    await other.ask("GET", one, status=200)


async def test_only_an_admin_gives_an_image_to_everybody(other: Other) -> None:
    body: Json = {"name": "hers", "source": "upload"}
    await other.ask("POST", "/images", {**body, "public": True}, status=403)
    await other.ask("POST", "/images", body, status=201)
    await other.ask("PATCH", "/images/hers", {"public": True}, status=403)
    await other.ask("POST", "/images", {"name": "ami-tiny"}, status=403)


async def test_ones_own_image_answers_to_a_name_before_a_public_one(house: House, other: Other) -> None:
    await other.ask("POST", "/images", {"name": "ami-tiny", "source": "upload"}, status=201)
    assert (await other.ask("GET", "/images/ami-tiny", status=200))["project_id"] == "eve"
    assert (await house.ask("GET", "/images/ami-tiny", status=200))["project_id"] == "admin"


async def test_the_newest_active_image_answers_to_a_name(house: House) -> None:
    await upload(house, "a")
    second = await upload(house, "a", b"new" * 1000)
    await announce(house, "a")
    assert (await house.ask("GET", "/images/a", status=200))["id"] == second["id"]


async def test_an_image_that_needs_more_than_the_flavor_has_is_refused(house: House) -> None:
    await upload(house, min_memory_mb=4096, min_disk_gb=30)
    for flavor, said in (("m1.small", "MB of memory"), ("m1.large", "")):
        asked = {"image": "mine", "flavor": flavor}
        found = await house.ask("POST", "/instances", asked, status=400 if said else 202)
        assert said in found.get("detail", "")
    await house.ask("PATCH", "/images/mine", {"min_disk_gb": 100}, status=200)
    found = await house.ask("POST", "/instances", {"image": "mine", "flavor": "m1.large"}, status=400)
    assert "needs 100 GB of disk" in found["detail"]


async def test_a_project_has_so_many_images_and_no_more(tmp_path: Path) -> None:
    async with House(tmp_path, quotas=Quotas(images=2)).open() as house:
        await announce(house, "a")
        await announce(house, "b")
        refused = await house.ask("POST", "/images", {"name": "c", "source": "upload"}, status=403)
        assert refused["code"] == "quota_exceeded"
        await house.ask("DELETE", "/images/a", status=200)
        await announce(house, "c")


async def test_a_deleted_image_of_the_library_comes_back_only_when_it_is_registered(tmp_path: Path) -> None:
    async with House(tmp_path).open() as house:
        await house.ask("DELETE", "/images/ami-tiny", status=200)
    async with House(tmp_path).open() as house:
        await house.ask("GET", "/images/ami-tiny", status=404)
        await house.ask("POST", "/images", {"name": "ami-tiny"}, status=201)
        made = await house.launch()
        await house.until(made["id"], "ACTIVE")
