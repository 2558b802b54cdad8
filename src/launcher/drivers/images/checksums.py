"""Files of checksums as distributors write them; pure.

5f9c… *debian.qcow2              GNU: SHA256SUMS, SHA512SUMS, .sha512
SHA256 (fedora.qcow2) = 5f9c…    BSD: CHECKSUM
5f9c…                            alone, where the file is named after the image
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote, urljoin, urlsplit

BESIDE = (".sha256", ".sha512", ".SHA256", ".CHECKSUM")
"""Named after the image."""
SHARED = ("SHA256SUMS", "SHA512SUMS", "CHECKSUM", "sha256sum.txt")
"""Of everything in a directory."""

_GNU = re.compile(r"([0-9A-Fa-f]{64}|[0-9A-Fa-f]{128})(?:\s+\*?(\S.*))?")
_BSD = re.compile(r"SHA(?:256|512) ?\((.+)\) ?= ?([0-9A-Fa-f]{64}|[0-9A-Fa-f]{128})")


def candidates(url: str, source: str = "") -> Sequence[str]:
    """The URLs at which the checksum of this URL's file may stand; `source` names the only one."""
    plain = url.partition("?")[0].partition("#")[0]
    if source:
        return [urljoin(plain, source)]
    return [*(plain + suffix for suffix in BESIDE), *(urljoin(plain, name) for name in SHARED)]


def file_name(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2]


def find(text: str, name: str, *, alone: bool) -> str | None:
    """The checksum of the file `name`, as `sha256:…` or `sha512:…`; with `alone` a line may leave its name out."""
    for line in text.splitlines():
        if bsd := _BSD.fullmatch(line.strip()):
            named, digest = bsd[1], bsd[2]
        elif gnu := _GNU.fullmatch(line.strip()):
            named, digest = gnu[2], gnu[1]
        else:
            continue
        if (named or "").rpartition("/")[2] == name or (named is None and alone):
            return f"{'sha256' if len(digest) == 64 else 'sha512'}:{digest.lower()}"
    return None
