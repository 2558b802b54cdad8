"""Files of checksums as distributors write them."""

from __future__ import annotations

import pytest

from launcher.drivers.images.checksums import candidates, file_name, find
from launcher.image_supply import known_images
from launcher.images import check_url

A, B, LONG = "a" * 64, "b" * 64, "c" * 128


@pytest.mark.parametrize(
    ("text", "alone", "found"),
    [
        (f"{B}  other.img\n{A}  x.img\n", False, f"sha256:{A}"),
        (f"{A} *x.img\r\n", False, f"sha256:{A}"),
        (f"{LONG}  ./x.img\n", False, f"sha512:{LONG}"),
        (f"# x.img: 12 bytes\nSHA256 (x.img) = {A.upper()}\n", False, f"sha256:{A}"),
        (f"SHA512 (x.img)= {LONG}\n", False, f"sha512:{LONG}"),
        (f"{A}\n", True, f"sha256:{A}"),
        (f"{A}\n", False, None),
        (f"{A}  not-x.img\n{'d' * 32}  x.img\n", False, None),
        (f"{A}  x.img.asc\n", True, None),
        ("<html>nothing</html>", True, None),
        ("", True, None),
    ],
)
def test_a_checksum_is_found_by_its_files_name(text: str, alone: bool, found: str | None) -> None:
    assert find(text, "x.img", alone=alone) == found


def test_the_usual_places_are_beside_the_image() -> None:
    places = candidates("https://a/b/x.img?y=1#z")
    assert "https://a/b/SHA512SUMS" in places
    assert "https://a/b/x.img.sha256" in places
    assert candidates("https://a/b/x.img", "sums/all.txt") == ["https://a/b/sums/all.txt"]
    assert candidates("https://a/b/x.img", "https://c/d") == ["https://c/d"]
    assert file_name("https://a/b/x%20y.img?z") == "x y.img"


def test_every_known_image_says_where_its_checksum_is() -> None:
    known = known_images()
    assert {"debian-12", "ubuntu-24.04", "cirros-0.6.2"} <= known.keys()
    for image in known.values():
        assert check_url(image.url).startswith("https://")
        assert image.checksum
        assert image.user
