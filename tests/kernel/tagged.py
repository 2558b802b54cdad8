"""Runs in another kernel: the VLAN driver on a wire of its own, and what is seen at the wire's other end.

Prints one line of JSON: the VLAN id and the payload of each frame that two projects' guests sent, and which guest heard
the frame that came in by the wire with a tag.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from launcher.drivers.network.uplinks import Tags
from launcher.drivers.network.vlan import VlanNetwork
from tests.host.overlay_host import network

ETHERNET, OURS, DOT1Q = 3, 0x88B5, 0x8100  # ETH_P_ALL; the ethertype for local experiments
SOL_PACKET, PACKET_AUXDATA, VLAN_VALID = 263, 8, 0x10
EVERYBODY = b"\xff" * 6
SEGMENTS = (100, 101)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def open_raw(device: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERNET))
    opened.bind((device, ETHERNET))
    opened.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    opened.settimeout(5.0)
    return opened


def receive(wire: socket.socket) -> tuple[int | None, bytes]:
    """The next frame of ours: its VLAN id, which the kernel takes out of the frame and tells beside it."""
    while True:
        frame, aside, *_ = wire.recvmsg(2000, 200)
        vlan = None
        for level, kind, data in aside:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                status, *_, tag, protocol = struct.unpack("IIIHHHH", data[:20])
                vlan = tag & 0xFFF if status & VLAN_VALID and protocol in (0, DOT1Q) else None
        if frame[12:14] == DOT1Q.to_bytes(2, "big"):
            vlan, frame = int.from_bytes(frame[14:16], "big") & 0xFFF, frame[:12] + frame[16:]
        if frame[12:14] == OURS.to_bytes(2, "big"):
            return vlan, frame[14:].rstrip(b"\0")


def a_frame(last: int, payload: bytes, *, vlan: int | None = None) -> bytes:
    tag = struct.pack("!HH", DOT1Q, vlan) if vlan is not None else b""
    return EVERYBODY + bytes([2, 0, 0, 0, 0, last]) + tag + OURS.to_bytes(2, "big") + payload.ljust(60, b"\0")


async def main() -> None:
    ip("link", "add", "e0", "type", "veth", "peer", "name", "wire")
    for device in ("e0", "wire"):
        ip("link", "set", device, "up")
    driver = VlanNetwork(Path("/run"), uplink=Tags("e0"))
    await driver.start()
    guests = {}
    for segment in SEGMENTS:
        for _ in range(2):  # it may be repeated
            await driver.ensure_bridge(network(segment))
        ip("link", "add", f"guest{segment}", "type", "veth", "peer", "name", f"port{segment}")
        ip("link", "set", f"port{segment}", "master", f"br{segment}", "up")
        ip("link", "set", f"guest{segment}", "up")
        guests[segment] = open_raw(f"guest{segment}")
    wire = open_raw("wire")
    found: dict[str, Any] = {"sent": [], "heard": []}
    for segment, guest in guests.items():
        guest.send(a_frame(1, f"from {segment}".encode()))
        vlan, payload = receive(wire)
        found["sent"].append([vlan, payload.decode()])
    for segment in reversed(SEGMENTS):  # were they one network, the first guest would hear the second's frame first
        wire.send(a_frame(9, f"to {segment}".encode(), vlan=segment))
    for segment, guest in guests.items():
        found["heard"].append([segment, receive_foreign(guest).decode()])
    sys.stdout.write(f"\nRESULT {json.dumps(found)}\n")
    sys.stdout.flush()


def receive_foreign(guest: socket.socket) -> bytes:
    """What came first that the guest did not send itself."""
    while True:
        vlan, payload = receive(guest)
        if not payload.startswith(b"from"):
            assert vlan is None, "a guest sees no tag"
            return payload


if __name__ == "__main__":
    asyncio.run(main())
