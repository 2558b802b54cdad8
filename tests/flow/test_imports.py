"""Images from a web server that behaves badly: what is active is whole and right, and nothing else is left."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from ipaddress import ip_network
from pathlib import Path
from random import Random

import pytest

from launcher.clock import SystemClock
from launcher.drivers.images.download import HttpDownloads
from launcher.images import KnownImage
from tests.flow.house import House, Json
from tests.mirror import Mirror
from tests.waiting import eventually

CONTENT = Random(1).randbytes(1_500_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
async def mirror() -> AsyncIterator[Mirror]:
    async with Mirror().serving() as mirror:
        yield mirror


def make_downloads(*, allowed: str = "127.0.0.0/8", pauses: int = 4) -> HttpDownloads:
    return HttpDownloads(
        clock=SystemClock(), rng=Random(1), allowed=[ip_network(allowed)], pauses=[0.01] * pauses, quiet=0.5
    )


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with House(tmp_path, downloads=make_downloads()).open() as house:
        yield house


async def begin(house: House, source: str, **more: object) -> Json:
    made: Json = await house.ask("POST", "/images", {"name": "cloud", "source": source, **more}, status=201)
    found: Json = made["images"][0]
    return found


async def settled(house: House, image: Json) -> Json:
    async def look() -> Json | None:
        found = await house.ask("GET", f"/images/{image['id']}", status=200)
        return found if found["state"] in ("active", "error") else None

    return await eventually(look, what="the import's end")


async def whole(house: House, image: Json) -> Json:
    """The image once it is active, with the right bytes, and nothing beside it."""
    found = await settled(house, image)
    assert (found["state"], found["reason"], found["sha256"]) == ("active", "", SHA256)
    async with house.http.get(f"/images/{image['id']}/file") as response:
        assert await response.read() == CONTENT
    await clean(house, SHA256)
    return found


async def clean(house: House, *contents: str) -> None:
    async def look() -> bool:
        return (await house.vault.list_contents(), await house.vault.list_arrivals()) == (sorted(contents), [])

    await eventually(look, what="a vault with nothing beside what is needed")


async def broken(house: House, image: Json) -> str:
    """Why it is in error; nothing of it is left."""
    found = await settled(house, image)
    assert found["state"] == "error"
    await clean(house)
    return str(found["reason"])


@pytest.mark.parametrize("sums", ["SHA256SUMS", "SHA512SUMS", "cloud.img.sha512", "CHECKSUM", "cloud.img.SHA256"])
async def test_an_image_is_fetched_and_held_against_its_distributors_checksum(
    house: House, mirror: Mirror, sums: str
) -> None:
    found = await whole(house, await begin(house, mirror.add("cloud.img", CONTENT, sums=sums)))
    assert found["checksum_source"] == f"{mirror.url}/{sums}"
    assert (found["format"], found["size"], found["virtual_size"]) == ("raw", len(CONTENT), len(CONTENT))
    assert mirror.times("cloud.img") == 1
    made = await house.launch(image="cloud")
    await house.until(made["id"], "ACTIVE")


async def test_a_dropped_connection_is_taken_up_where_it_ended(house: House, mirror: Mirror) -> None:
    mirror.drop_after = [400_000, 300_000, 0]
    await whole(house, await begin(house, mirror.add("cloud.img", CONTENT)))
    ranges = [wanted for path, wanted in mirror.asked if path == "/cloud.img"]
    assert ranges[0] == ""
    assert ranges[1:] == sorted(ranges[1:])
    assert len(ranges) == 4
    assert mirror.sent["/cloud.img"] < len(CONTENT) + 200_000


async def test_a_source_that_knows_no_ranges_is_read_from_the_beginning(house: House, mirror: Mirror) -> None:
    mirror.ranges, mirror.drop_after = False, [1_000_000]
    await whole(house, await begin(house, mirror.add("cloud.img", CONTENT)))


async def test_a_source_that_changes_in_between_is_read_anew(house: House, mirror: Mirror) -> None:
    url = mirror.add("cloud.img", b"\1" * len(CONTENT), sums=None)
    mirror.add("cloud.img", b"\1" * len(CONTENT), sums=None)
    mirror.hold = asyncio.Event()
    image = await begin(house, url, checksum=f"sha256:{SHA256}")
    await mirror.half_sent.wait()
    mirror.files["/cloud.img"], mirror.etag, mirror.drop_after = CONTENT, '"2"', []
    mirror.hold = None
    await mirror.cut()
    await whole(house, image)


async def test_busy_sources_are_asked_again(house: House, mirror: Mirror) -> None:
    url = mirror.add("cloud.img", CONTENT, sums=None)
    mirror.statuses = [503, 429, 500]
    await whole(house, await begin(house, url, checksum=f"sha256:{SHA256}"))
    assert mirror.times("cloud.img") == 4


async def test_a_silent_source_is_given_up_with_a_reason(house: House, mirror: Mirror) -> None:
    mirror.hold = asyncio.Event()
    mirror.ranges = False
    house.downloads.quiet = 0.05  # type: ignore[attr-defined]
    reason = await broken(house, await begin(house, mirror.add("cloud.img", CONTENT)))
    assert "given up" in reason


@pytest.mark.parametrize(("length", "said"), [(len(CONTENT) + 1000, ""), (-1, ""), (len(CONTENT) - 1000, "checksum")])
async def test_a_wrong_length_makes_no_wrong_image(house: House, mirror: Mirror, length: int, said: str) -> None:
    url = mirror.add("cloud.img", CONTENT, sums=None)
    mirror.say_length = length
    image = await begin(house, url, checksum=f"sha256:{SHA256}")
    if said:
        assert said in await broken(house, image)
    else:
        await whole(house, image)


async def test_a_wrong_checksum_is_an_error_with_both(house: House, mirror: Mirror) -> None:
    url = mirror.add("cloud.img", CONTENT, sums=None)
    mirror.files["/SHA256SUMS"] = f"{'0' * 64} *cloud.img\n".encode()
    reason = await broken(house, await begin(house, url))
    assert SHA256 in reason
    assert "0" * 64 in reason
    refused = await house.ask("POST", "/instances", {"image": "cloud", "flavor": "m1.tiny"}, status=409)
    assert "is error" in refused["detail"]


async def test_without_a_checksum_only_who_says_so_gets_it(house: House, mirror: Mirror) -> None:
    url = mirror.add("cloud.img", CONTENT, sums=None)
    assert "no checksum" in await broken(house, await begin(house, url))
    await whole(house, await begin(house, url, verify=False))


@pytest.mark.parametrize("source", ["latest.txt", "/deep/latest.txt"])
async def test_the_file_with_the_checksum_may_be_named(house: House, mirror: Mirror, source: str) -> None:
    url = mirror.add("cloud.img", CONTENT, sums=None)
    mirror.files["/" + source.strip("/")] = f"SHA256 (cloud.img) = {SHA256.upper()}\n".encode()
    await whole(house, await begin(house, url, checksum_source=source))


async def test_two_projects_wait_for_one_download(house: House, mirror: Mirror) -> None:
    mirror.hold = asyncio.Event()
    url = mirror.add("cloud.img", CONTENT)
    made = [await begin(house, url, name=f"cloud-{number}") for number in range(5)]
    again = await begin(house, url, name="cloud-0")
    assert again["id"] == made[0]["id"]
    await mirror.half_sent.wait()
    mirror.hold.set()
    for image in made:
        await whole(house, image)
    assert mirror.times("cloud.img") == 1


async def test_progress_is_told_while_it_comes_and_launches_are_refused(house: House, mirror: Mirror) -> None:
    mirror.hold = asyncio.Event()
    image = await begin(house, mirror.add("cloud.img", CONTENT))

    async def look() -> Json | None:
        found: Json = await house.ask("GET", "/images/cloud", status=200)
        return found if found["progress"] and found["progress"]["done"] > 100_000 else None

    await mirror.half_sent.wait()
    found = await eventually(look, what="progress")
    assert found["state"] == "importing"
    assert found["progress"]["total"] == len(CONTENT)
    assert found["progress"]["done"] < len(CONTENT)
    refused = await house.ask("POST", "/instances", {"image": "cloud", "flavor": "m1.tiny"}, status=409)
    assert "importing" in refused["detail"]
    mirror.hold.set()
    await whole(house, image)


async def test_who_deletes_it_ends_the_download(house: House, mirror: Mirror) -> None:
    mirror.hold = asyncio.Event()
    image = await begin(house, mirror.add("cloud.img", CONTENT))
    await mirror.half_sent.wait()
    await house.ask("DELETE", f"/images/{image['id']}", status=200)
    await clean(house)
    await house.ask("GET", f"/images/{image['id']}", status=404)


async def test_one_of_two_who_wait_may_go(house: House, mirror: Mirror) -> None:
    mirror.hold = asyncio.Event()
    url = mirror.add("cloud.img", CONTENT)
    first, second = await begin(house, url, name="a"), await begin(house, url, name="b")

    async def both_wait() -> bool:
        return [len(shared.waiting) for shared in house.controller.images.imports.shared.values()] == [2]

    await eventually(both_wait, what="two that wait for one download")
    await mirror.half_sent.wait()
    await house.ask("DELETE", f"/images/{first['id']}", status=200)
    mirror.hold.set()
    await whole(house, second)
    assert mirror.times("cloud.img") == 1


async def test_a_content_that_is_here_is_not_fetched_again(house: House, mirror: Mirror) -> None:
    url = mirror.add("cloud.img", CONTENT)
    await whole(house, await begin(house, url))
    await whole(house, await begin(house, url, name="other"))
    assert mirror.times("cloud.img") == 1


async def test_the_next_process_goes_on_where_this_one_ended(tmp_path: Path, mirror: Mirror) -> None:
    mirror.hold = asyncio.Event()
    url = mirror.add("cloud.img", CONTENT)
    async with House(tmp_path, downloads=make_downloads()).open() as house:
        image = await begin(house, url)
        await mirror.half_sent.wait()

        async def look() -> bool:
            found = await house.ask("GET", "/images/cloud", status=200)
            return bool(found["progress"] and found["progress"]["done"] >= 700_000)

        await eventually(look, what="half of it")
    mirror.hold = None
    async with House(tmp_path, downloads=make_downloads()).open() as house:
        await whole(house, image)
    last = [wanted for path, wanted in mirror.asked if path == "/cloud.img"][-1]
    assert int(last.removeprefix("bytes=").rstrip("-")) >= 700_000


async def test_a_part_that_was_damaged_is_fetched_anew(tmp_path: Path, mirror: Mirror) -> None:
    mirror.hold = asyncio.Event()
    url = mirror.add("cloud.img", CONTENT)
    async with House(tmp_path, downloads=make_downloads()).open() as house:
        image = await begin(house, url)
        await mirror.half_sent.wait()
    (part,) = (tmp_path / "vault" / "arriving").iterdir()
    part.write_bytes(b"\0" * 700_000)
    mirror.hold = None
    async with House(tmp_path, downloads=make_downloads()).open() as house:
        await whole(house, image)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1"]
)
async def test_private_addresses_are_not_asked_however_they_are_written(
    tmp_path: Path, mirror: Mirror, host: str
) -> None:
    mirror.add("cloud.img", CONTENT)
    port = mirror.url.rpartition(":")[2]
    async with House(tmp_path, downloads=make_downloads(allowed="192.0.2.0/24", pauses=0)).open() as house:
        reason = await broken(house, await begin(house, f"http://{host}:{port}/cloud.img", verify=False))
    assert "no public address" in reason or "not a canonical IPv4" in reason
    assert mirror.asked == []


async def test_a_redirect_leads_to_no_private_address_either(house: House, mirror: Mirror) -> None:
    for number, place in enumerate(
        ("http://169.254.169.254/x", "file:///etc/passwd", "http://[::ffff:169.254.169.254]/x")
    ):
        mirror.redirects[f"/{number}.img"] = place
        reason = await broken(house, await begin(house, f"{mirror.url}/{number}.img", name=f"x{number}", verify=False))
        assert "no public address" in reason or "no http" in reason


async def test_a_redirect_within_what_is_allowed_is_followed(house: House, mirror: Mirror) -> None:
    mirror.add("real.img", CONTENT)
    mirror.redirects["/cloud.img"] = "/real.img"
    await whole(house, await begin(house, f"{mirror.url}/cloud.img", checksum=f"sha256:{SHA256}"))


@pytest.mark.parametrize(
    "source",
    ["ftp://a/b", "file:///etc/passwd", "http://", "http://user:secret@127.0.0.1/x", "nonsense", "http://a b/"],
)
async def test_what_is_no_web_address_is_refused_at_once(house: House, source: str) -> None:
    refused = await house.ask("POST", "/images", {"name": "x", "source": source}, status=400)
    assert refused["field"] == "source"
    assert "secret" not in refused["detail"]


async def test_a_missing_file_is_said_at_once(house: House, mirror: Mirror) -> None:
    assert "HTTP 404" in await broken(house, await begin(house, f"{mirror.url}/none", verify=False))
    assert mirror.times("none") == 1


@pytest.mark.parametrize("length", [None, -1])
async def test_an_image_over_the_limit_is_refused_before_or_while_it_comes(
    tmp_path: Path, mirror: Mirror, length: int | None
) -> None:
    mirror.say_length = length
    async with House(tmp_path, downloads=make_downloads(), largest_image=1_000_000).open() as house:
        image = await begin(house, mirror.add("cloud.img", CONTENT, sums=None), verify=False)
        assert "at most 1000000" in await broken(house, image)


async def test_a_known_image_is_pulled_by_its_name(tmp_path: Path, mirror: Mirror) -> None:
    url = mirror.add("debian.qcow2", CONTENT, sums="SHA512SUMS")
    known = KnownImage(
        name="debian-12", title="Debian 12", url=url, checksum="SHA512SUMS", user="debian", min_memory_mb=256
    )
    async with House(tmp_path, downloads=make_downloads(), known_images={"debian-12": known}).open() as house:
        image = await begin(house, "known:debian-12", name="debian-12")
        found = await whole(house, image)
        assert (found["name"], found["min_memory_mb"]) == ("debian-12", 256)
        assert "log in as debian" in found["description"]
        assert (await begin(house, "known:debian-12", name="debian-12"))["id"] == image["id"]
        await house.ask("POST", "/images", {"name": "x", "source": "known:nothing"}, status=404)
        listed = await house.ask("GET", "/known-images", status=200)
        assert [each["name"] for each in listed["known_images"]] == ["debian-12"]
