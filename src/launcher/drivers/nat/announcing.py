"""Telling a pool's neighbours at once who answers for an address now; who knew another would go on sending to it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path

_ARP = 0x0806
_ETHERNET, _IPV4, _REQUEST = b"\x00\x01", b"\x08\x00", b"\x00\x01"
_EVERYBODY = b"\xff" * 6
_DEVICES = Path("/sys/class/net")
_KIND_ETHERNET = "1"  # ARPHRD_ETHER


def announce(device: str, addresses: Iterable[IPv4Address]) -> None:
    """A device that is none of Ethernet has nobody to tell. Who is not told asks, so what fails is not said."""
    with contextlib.suppress(OSError):
        if (_DEVICES / device / "type").read_text().strip() != _KIND_ETHERNET:
            return
        mac = bytes.fromhex((_DEVICES / device / "address").read_text().strip().replace(":", ""))
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind((device, 0))
            for address in addresses:
                out.send(announcement(mac, address))


def announcement(mac: bytes, address: IPv4Address) -> bytes:
    """An ARP request for one's own address (RFC 5227 §2.3), which everybody must learn from."""
    head = _ETHERNET + _IPV4 + bytes([6, 4]) + _REQUEST
    return _EVERYBODY + mac + _ARP.to_bytes(2) + head + mac + address.packed + bytes(6) + address.packed
