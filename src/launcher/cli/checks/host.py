"""What the machine has: programs, devices, kernel features, room.

Everything that makes a device runs in `launcher.sandbox`, in a network of its own that ends with the probe.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import sys
from pathlib import Path

from launcher.cli.checks.finding import BROKEN, OK, WITHOUT, Finding
from launcher.drivers import process
from launcher.drivers.virt.domain_xml import FIRMWARE
from launcher.errors import LauncherError

EMULATOR = f"qemu-system-{platform.machine()}"
LIBVIRT_DRIVERS = "/usr/lib*/**/libvirt/connection-driver/libvirt_driver_qemu.so"
LIBVIRT_SOCKET = Path("/run/libvirt/libvirt-sock")
KVM_MEMORY = "kvm-verdict.json"
MEMORY_NEEDED_MB, DISK_NEEDED_MB = 512, 1024
_PROBE_LIMIT = 20.0
_PACKAGES = Path(process.__file__).parents[2]
"""Where the launcher that is running was imported from; the probes shall run the same one."""

# program, package, what happens without it ("" where no guest can run)
_PROGRAMS = (
    (EMULATOR, "qemu-system-x86", ""),
    ("ip", "iproute2", ""),
    ("dnsmasq", "dnsmasq-base", ""),
    ("iptables-restore", "iptables", ""),
    ("nft", "nftables", "guests do not reach beyond the host, and floating IPs lead nowhere"),
    ("slirp4netns", "slirp4netns", "guests do not reach out of the sandbox"),
    ("rabbitmq-server", "rabbitmq-server", "the roles talk over the bus in memory, with the same bytes"),
    ("ssh", "openssh-client", "`launcher ssh` cannot log in; the console can be read"),
    ("mke2fs", "e2fsprogs", "`launcher image build-tiny` cannot make the tiny image; bring images of your own"),
    ("dropbear", "dropbear-bin", "`launcher image build-tiny` cannot make the tiny image; bring images of your own"),
    ("busybox", "busybox-static", "`launcher image build-tiny` cannot make the tiny image; bring images of your own"),
)


def python() -> Finding:
    """An older one would not have come so far: the package asks for 3.11."""
    return Finding("python", OK, f"{platform.python_version()} in {sys.prefix}")


async def programs() -> list[Finding]:
    return list(await asyncio.gather(*(_program(*each) for each in _PROGRAMS)))


async def _program(name: str, package: str, instead: str) -> Finding:
    path = shutil.which(name, path=process.ENVIRONMENT["PATH"])
    if path is None:
        advice = f"apt install {package}"
        return Finding(name, WITHOUT if instead else BROKEN, f"not installed; {instead}".rstrip("; "), advice)
    if name != EMULATOR:
        return Finding(name, OK, path)
    try:
        said = await process.run([path, "--version"], timeout=_PROBE_LIMIT)
    except LauncherError as error:
        return Finding(name, BROKEN, error.message, f"apt install --reinstall {package}")
    return Finding(name, OK, f"{path}, {said.partition(chr(10))[0]}")


def libvirt() -> Finding:
    """The driver embedded in our own process is enough; a daemon is used only if the settings name one."""
    try:
        import libvirt as binding  # noqa: PLC0415 - a missing binding is a finding, not a crash
    except ImportError as error:
        return Finding("libvirt", BROKEN, str(error), "pip install libvirt-python, apt install libvirt0")
    number = binding.getVersion()
    version = f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    if any(Path("/").glob(LIBVIRT_DRIVERS[1:])):
        return Finding("libvirt", OK, f"{version}, its QEMU driver runs inside launcher; no libvirtd is needed")
    if LIBVIRT_SOCKET.exists():
        return Finding("libvirt", OK, f"{version}, by libvirtd at {LIBVIRT_SOCKET}")
    return Finding("libvirt", BROKEN, f"{version}, but no QEMU driver", "apt install libvirt-daemon")


def kvm(state: Path) -> Finding:
    """What the server found when it tried a kernel under KVM; the device alone proves nothing."""
    by_emulation = "guests run by emulation (TCG): they boot in seconds instead of tenths"
    if lack := _lack(Path("/dev/kvm")):
        return Finding("kvm", WITHOUT, f"{lack}; {by_emulation}")
    try:
        tried = dict(json.loads((state / KVM_MEMORY).read_text())["verdict"])
    except (OSError, ValueError, KeyError, TypeError):
        return Finding("kvm", OK, "/dev/kvm opens; whether a kernel runs under it, the server tries at its start")
    if tried.get("virt_type") == "kvm":
        return Finding("kvm", OK, str(tried.get("reason")))
    advice = f"after a change of the machine, delete {state / KVM_MEMORY} to have it tried again"
    return Finding("kvm", WITHOUT, f"{tried.get('reason')}; {by_emulation}", advice)


def tun() -> Finding:
    lack = _lack(Path("/dev/net/tun"))
    if lack:
        return Finding(
            "/dev/net/tun", BROKEN, f"{lack}; guests would have no network", "chmod 0666 /dev/net/tun, as udev does"
        )
    return Finding("/dev/net/tun", OK, "opens")


def _lack(device: Path) -> str:
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{device}: {error.strerror}"
    return ""


async def probes() -> list[Finding]:
    """A sandbox first; what needs one is tried only if there is one."""
    failed = await _try("ip", "link", "show", "lo")
    if failed:
        return [_no_sandbox(failed)]
    as_whom = "as root" if os.geteuid() == 0 else "in a user namespace, without root"
    sandbox = Finding("sandbox", OK, f"own network, mounts and process ids, {as_whom}; nothing of it stays on the host")
    bridge = "link add probe0 type bridge\n"
    vlan = f"{bridge}link add link probe0 name probe1 type vlan id 100\n"
    filters = "*filter\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n"
    tables = "table bridge probe { chain a { ether type arp arp operation request drop; }; }\n"
    tables += (
        "table inet probe { map a { type ifname . ipv4_addr : verdict; }; chain a { ct state established accept; }; }\n"
    )
    results = await asyncio.gather(
        _try("ip", "-batch", "-", stdin=bridge),
        _try("ip", "-batch", "-", stdin="tuntap add dev probe0 mode tap\n"),
        _try("iptables-restore", stdin=filters),
        _try("nft", "-f", "-", stdin=tables),
        _try("ip", "-batch", "-", stdin=vlan),
        _try("ip", "-batch", "-", stdin="link add probe0 type vxlan id 1 dstport 4789\n"),
    )
    return [sandbox, *(_probed(*each) for each in zip(_PROBED, results, strict=True))]


# name, what it is for, what happens without it ("" where no guest can run), what to try
_PROBED = (
    ("bridge", "made and gone", "", "modprobe bridge"),
    ("tap", "made and gone", "", "modprobe tun; see /dev/net/tun"),
    (
        "packet filter",
        "connection tracking rules load",
        "",
        "modprobe nf_conntrack; or another iptables: update-alternatives",
    ),
    ("nftables", "tables of bridge and inet load", "", "modprobe nf_tables nf_tables_bridge nft_ct"),
    ("8021q", "made and gone", '[network] mode = "vlan" needs overlay = "vxlan" or "none"', "modprobe 8021q"),
    ("vxlan", "made and gone", '[network] mode = "vlan" needs another overlay', "modprobe vxlan"),
)


def _probed(about: tuple[str, str, str, str], failed: str) -> Finding:
    name, found, instead, advice = about
    if not failed:
        return Finding(name, OK, found)
    return Finding(name, WITHOUT if instead else BROKEN, f"{failed}; {instead}".rstrip("; "), advice)


def _no_sandbox(failed: str) -> Finding:
    if os.geteuid() == 0:
        return Finding("sandbox", WITHOUT, f"{failed}; launcher works on the host's own network instead")
    advice = "sysctl kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0, or run as root"
    return Finding("sandbox", BROKEN, failed, advice)


async def _try(*command: str, stdin: str = "") -> str:
    """What a command that failed in the sandbox said first; nothing if it worked."""
    try:
        await process.run(
            [sys.executable, "-m", "launcher.sandbox", *command],
            stdin=stdin,
            timeout=_PROBE_LIMIT,
            environment={**process.ENVIRONMENT, "PYTHONPATH": str(_PACKAGES)},
        )
    except LauncherError as error:
        said = error.message.partition(": exit ")[2].partition(": ")[2] or error.message
        return next((line for line in said.splitlines() if line.strip()), "failed without a word")
    return ""


def bridge_filter() -> Finding:
    if Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
        return Finding("br_netfilter", OK, "traffic between guests of one bridge can be filtered")
    found = "not loaded; guests of one bridge reach each other unfiltered"
    return Finding("br_netfilter", WITHOUT, found, "modprobe br_netfilter")


def injection() -> Finding:
    """Keys go into the disk by qemu-storage-daemon, FUSE and debugfs, with nothing mounted on the host."""
    missing = [
        name
        for name in ("qemu-storage-daemon", "debugfs", "fusermount3")
        if shutil.which(name, path=process.ENVIRONMENT["PATH"]) is None
    ]
    lack = f"not installed: {', '.join(missing)}" if missing else _lack(Path("/dev/fuse"))
    if not lack:
        return Finding("key injection", OK, "/dev/fuse opens, qemu-storage-daemon and debugfs are there")
    advice = "apt install qemu-utils e2fsprogs fuse3" if missing else "chmod 0666 /dev/fuse, as udev does"
    return Finding("key injection", WITHOUT, f"{lack}; guests fetch their key from the metadata service", advice)


def uefi() -> Finding:
    """Images that a BIOS starts, and those with a kernel beside them, need none of it."""
    if FIRMWARE.exists():
        return Finding("UEFI", OK, str(FIRMWARE))
    return Finding("UEFI", WITHOUT, "no firmware; images that UEFI starts cannot be launched", "apt install ovmf")


def reaping() -> Finding:
    return Finding("reaping", OK, "launcher buries its own orphans; a PID 1 that is slow at it does not matter")


def memory() -> Finding:
    lines = Path("/proc/meminfo").read_text().splitlines()
    free_mb = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:"))
    if free_mb < MEMORY_NEEDED_MB:
        return Finding("memory", BROKEN, f"{free_mb} MiB free, {MEMORY_NEEDED_MB} needed", "end what you do not need")
    return Finding("memory", OK, f"{free_mb} MiB free, about {free_mb // 230} tiny guests")


def disk(state: Path) -> Finding:
    there = next(path for path in (state, *state.absolute().parents) if path.exists())
    free_mb = shutil.disk_usage(there).free // 1024**2
    if free_mb < DISK_NEEDED_MB:
        return Finding(
            "disk", BROKEN, f"{free_mb} MiB free in {there}, {DISK_NEEDED_MB} needed", "free space, or --state DIR"
        )
    return Finding("disk", OK, f"{free_mb} MiB free in {there}")


def state(directory: Path) -> Finding:
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            "state", BROKEN, f"{there} cannot be written to", "choose another: --state DIR or LAUNCHER_STATE"
        )
    return Finding("state", OK, f"{directory}" + ("" if there == directory else ", made by the first `launcher serve`"))


def images(state: Path) -> Finding:
    """Images are directories with a description; see drivers/images/library.py."""
    found = sorted(path.parent.name for path in (state / "images").glob("*/image.json"))
    if found:
        return Finding("images", OK, f"{', '.join(found)} in {state / 'images'}")
    return Finding("images", WITHOUT, f"none in {state / 'images'} yet", "launcher image build-tiny")
