"""libvirt's QEMU driver inside this process: `qemu:///embed?root=DIR`, no daemon; its state is under DIR.

As root it looks up the account `libvirt-qemu` (Debian's libvirt-daemon-system makes it) although guests run as root.
Networks, storage pools and nwfilter do not exist there; bridges, taps and filters are ours anyway. One process
can have one DIR; a guest outlives the process and is found by the next that opens the same DIR.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from launcher.errors import HostResourceMissing

ACCOUNT = "libvirt-qemu"
LINKS = Path("/run")
LONGEST_ROOT = 107 - len("/lib/qemu/domain-99999-instance-00000001/monitor.sock")

SETTINGS = """\
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""
"""No labels, cgroups or mounts of libvirt's own, and QEMU writes the console log itself: no virtlogd needed."""

ROOTS_SETTINGS = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
"""
"""Only where this process is root: guests run as it does, so that files need no change of owner."""

NEVER_BORN = re.compile(rb"(<domstatus [^>]*\bpid=)'0'")
NOBODY = 2**22 + 1
"""The kernel numbers processes up to 2^22."""


def embed_root(uri: str) -> Path | None:
    """DIR of an embed URI; None for every other URI."""
    parts = urlsplit(uri)
    if (parts.scheme, parts.path) != ("qemu", "/embed"):
        return None
    roots = parse_qs(parts.query).get("root", [])
    return Path(roots[0]) if roots else None


def reachable(root: Path) -> Path:
    """`root`, or a link to it in /run where QEMU's monitor socket below it would have too long a path (unix(7)).

    Raises HostResourceMissing where /run cannot be written.
    """
    if len(bytes(root)) <= LONGEST_ROOT:
        return root
    link = LINKS / f"launcher-{hashlib.sha256(bytes(root)).hexdigest()[:12]}"
    root.mkdir(parents=True, exist_ok=True)
    try:
        if not link.is_symlink():
            link.symlink_to(root)
        if link.readlink() != root:
            raise HostResourceMissing(f"{link} leads to {link.readlink()}, not to {root}", hint="remove it")
    except OSError as error:
        raise HostResourceMissing(
            f"{root} is too long a path for QEMU's sockets ({LONGEST_ROOT} bytes), and {link}: {error.strerror}",
            hint="give a shorter --state DIR",
        ) from None
    return link


def prepare(root: Path) -> None:
    """Write what the driver reads when it is opened. Raises HostResourceMissing without its account."""
    if os.geteuid() == 0:
        _check_account()
    (root / "etc").mkdir(parents=True, exist_ok=True)
    settings = SETTINGS + (ROOTS_SETTINGS if os.geteuid() == 0 else "")
    (root / "etc" / "qemu.conf").write_text(settings)
    for status in (root / "run" / "qemu").glob("*.xml"):
        _let_go(status)


def _let_go(status: Path) -> None:
    """Of a domain whose libvirt was killed before its QEMU had a process, the driver would wait 30 s for a sign of
    life; of one whose process is gone it is not. Nobody else has the file open.
    """
    found = status.read_bytes()
    changed = NEVER_BORN.sub(rb"\1'%d'" % NOBODY, found, count=1)
    if changed != found:
        draft = status.with_suffix(".new")
        draft.write_bytes(changed)
        draft.replace(status)


def _check_account() -> None:
    try:
        pwd.getpwnam(ACCOUNT)
    except KeyError:
        raise HostResourceMissing(
            f"as root, libvirt's embedded driver needs the account {ACCOUNT} (it only looks it up)",
            hint=f"useradd --system {ACCOUNT}, or install libvirt-daemon-system, or use --sandbox",
        ) from None
