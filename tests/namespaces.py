"""Network namespaces by name, and the drivers run in them: each may be a host of its own, or a guest."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
NAMES = Path("/run/netns")
LIMIT = 5.0
PORT = 7000


@contextlib.contextmanager
def namespaces(*names: str) -> Iterator[None]:
    """These, empty but for a loopback device that is up; gone in the end with all that is in them."""
    try:
        for name in names:
            run("ip", "netns", "add", name)
            inside(name, "ip", "link", "set", "lo", "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)


def run(*words: str) -> str:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def inside(name: str, *words: str) -> str:
    """A program in the namespace, with its own /sys."""
    return run("ip", "netns", "exec", name, *words)


def drive(name: str, script: str, *words: str) -> str:
    """A module of the tests in the namespace."""
    return inside(name, sys.executable, "-m", script, *words)


def join(one: str, one_end: str, other: str, other_end: str) -> None:
    """A cable between two namespaces, both ends up."""
    run("ip", "link", "add", one_end, "netns", one, "type", "veth", "peer", "name", other_end, "netns", other)
    for name, end in ((one, one_end), (other, other_end)):
        inside(name, "ip", "link", "set", end, "up")


def plug(host: str, bridge: str, guest: str, address: str) -> None:
    """The guest's eth0 on a bridge of the host."""
    end = f"to-{guest}"
    join(guest, "eth0", host, end)
    inside(host, "ip", "link", "set", end, "master", bridge)
    inside(guest, "ip", "address", "add", address, "dev", "eth0")


def open_udp(name: str) -> socket.socket:
    """A socket at PORT of everything in the namespace; it stays there."""
    home, there = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(NAMES / name, os.O_RDONLY)
    try:
        assert _libc.setns(there, 0) == 0
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("", PORT))
        made.settimeout(LIMIT)
        return made
    finally:
        assert _libc.setns(home, 0) == 0
        os.close(home)
        os.close(there)
