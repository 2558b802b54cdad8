"""The kernel's table of connections, by netlink: what was let in once is known there and passes every filter.

The table outlives the instances. An address that goes to its next one must not bring the flows of the last along.

Source: linux/netfilter/nfnetlink_conntrack.h. Not conntrack(8): started three times for each launch, it would cost more
than the filters themselves.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

from launcher.errors import FirewallFailed

_NETFILTER = 12
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # of the subsystem 1, conntrack
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ORIGINAL, _REPLY, _ID, _ZONE = 1, 2, 12, 18
_KEY = {_ORIGINAL, _ID, _ZONE}
_TYPE = 0x3FFF
_FAMILY = struct.pack("BBH", socket.AF_INET, 0, 0)
_RECEIVED = 1 << 17


def cut(address: IPv4Address) -> int:
    """Forget every flow from or to the address; how many those were. Blocks. Raises FirewallFailed."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as netlink:
            netlink.bind((0, 0))
            flows = list(_flows_of(netlink, address.packed))
            for key in flows:
                _delete(netlink, key)
    except OSError as error:
        raise FirewallFailed(
            f"{address}: the connections of its last owner cannot be looked up: {error.strerror}",
            hint="load the kernel module: `modprobe nf_conntrack_netlink`",
        ) from error
    return len(flows)


def _flows_of(netlink: socket.socket, packed: bytes) -> Iterator[bytes]:
    """What names each flow for its deletion: the attributes as the kernel gave them."""
    netlink.send(_message(_GET, _REQUEST | _DUMP))
    done = False
    while not done:
        data = netlink.recv(_RECEIVED)
        interesting = packed in data  # of a full table hardly any part is, and parsing takes long
        for kind, body in _messages(data):
            done = done or kind == _DONE
            if kind == _ERROR:
                _raise(body)
            elif interesting and kind == _GET - 1:
                attributes = dict(_attributes(body[4:]))
                if any(packed in addresses for addresses in map(_addresses, _tuples(attributes))):
                    yield b"".join(_attribute(kind, attributes[kind]) for kind in _KEY & attributes.keys())


def _delete(netlink: socket.socket, key: bytes) -> None:
    """One that has just ended by itself is gone, too."""
    netlink.send(_message(_DELETE, _REQUEST | _ACK, key))
    with contextlib.suppress(FileNotFoundError):
        for kind, body in _messages(netlink.recv(_RECEIVED)):
            if kind == _ERROR:
                _raise(body)


def _raise(body: bytes) -> None:
    number = -struct.unpack_from("i", body)[0]
    if number:
        raise (
            FileNotFoundError(number, "no such flow")
            if number == errno.ENOENT
            else OSError(number, os.strerror(number))
        )


def _tuples(attributes: dict[int, bytes]) -> Iterator[bytes]:
    for kind in (_ORIGINAL, _REPLY):
        if kind in attributes:
            yield attributes[kind]


def _addresses(tuple_: bytes) -> set[bytes]:
    """Source and destination: the first attribute of a tuple holds both."""
    return {address for _, address in _attributes(dict(_attributes(tuple_))[1])}


def _message(kind: int, flags: int, attributes: bytes = b"") -> bytes:
    body = _FAMILY + attributes
    return struct.pack("IHHII", 16 + len(body), kind, flags, 1, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        length, kind = struct.unpack_from("IH", data, at)
        yield kind, data[at + 16 : at + length]
        at += (length + 3) & ~3


def _attribute(kind: int, value: bytes) -> bytes:
    nested = 0x8000 if kind == _ORIGINAL else 0
    return struct.pack("HH", 4 + len(value), kind | nested) + value + bytes(-len(value) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        length, kind = struct.unpack_from("HH", data, at)
        yield kind & _TYPE, data[at + 4 : at + length]
        at += (length + 3) & ~3
