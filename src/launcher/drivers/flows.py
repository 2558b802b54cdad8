"""The kernel's table of connections, by netlink: what was let in once is known there and passes every filter.

The table outlives the instances and the rules. An address that goes to its next instance must not bring the flows of
the last along, and what a removed rule had let in must end.

Source: linux/netfilter/nfnetlink_conntrack.h. Not conntrack(8): started for each launch, it would cost more than the
filters themselves.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from launcher.errors import FirewallFailed

Address = IPv4Address | IPv6Address
End = tuple[int, Address]
"""An address in a zone of connection tracking; 0 is no zone. Networks with the same addresses are in several."""

NETFILTER = 12
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # of the subsystem 1, conntrack
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ORIGINAL, _REPLY, _ID, _ZONE = 1, 2, 12, 18
_KEY = {_ORIGINAL, _ID, _ZONE}
_TYPE = 0x3FFF
_RECEIVED = 1 << 17
_ANY = bytes(4)
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True)
class Flow:
    """A connection as a filter between the two translations sees its first packet. `target` is who answers.

    Ports are those of tcp and udp, type and code those of icmp; 0 where there are none.
    """

    protocol: int
    source: Address
    target: Address
    source_port: int
    target_port: int
    icmp_type: int
    icmp_code: int
    zone: int
    key: bytes


class Flows:
    """The table of this network namespace, or that of the socket that `opens` makes; to close one takes milliseconds.

    Each call blocks, one at a time, and raises FirewallFailed.
    """

    def __init__(self, opens: Callable[[], socket.socket] | None = None) -> None:
        self._opens = opens or (lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER))
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def ends(self) -> set[End]:
        """From and to which there are flows, before and after translation."""
        with self._using("addresses") as netlink:
            found = {end for flow in _flows_of(netlink, _ANY) for end in _ends(flow)}
        return {(zone, ip_address(packed)) for zone, packed in found}

    def cut(self, *addresses: Address) -> int:
        """Forget every flow from or to these addresses, in no zone; how many those were."""
        return self.cut_where([(0, address) for address in addresses])

    def cut_where(self, ends: Collection[End], unwanted: Callable[[Flow], bool] = lambda flow: True) -> int:
        """Forget those of the flows from or to these ends; how many those were."""
        subject = ", ".join(str(address) for _, address in ends)
        with self._using(subject) as netlink:
            return sum(_cut(netlink, version, ends, unwanted) for version in {each.version for _, each in ends})

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @contextlib.contextmanager
    def _using(self, subject: str) -> Iterator[socket.socket]:
        with self._lock:
            try:
                if self._socket is None:
                    self._socket = self._opens()
                    self._socket.bind((0, 0))
                yield self._socket
            except OSError as error:
                self._close()
                raise FirewallFailed(
                    f"the connections of {subject} cannot be looked up: {error.strerror}",
                    hint="load the kernel module: `modprobe nf_conntrack_netlink`",
                ) from error


def _cut(netlink: socket.socket, version: int, ends: Collection[End], unwanted: Callable[[Flow], bool]) -> int:
    family = struct.pack("BBH", _FAMILIES[version], 0, 0)
    wanted = {(zone, address.packed) for zone, address in ends if address.version == version}
    packed = {address for _, address in wanted}
    found = (attributes for attributes in _flows_of(netlink, family, packed) if _ends(attributes) & wanted)
    flows = [flow for flow in map(_flow, found) if unwanted(flow)]
    for flow in flows:
        _delete(netlink, family + flow.key)
    return len(flows)


def _flows_of(netlink: socket.socket, family: bytes, packed: Collection[bytes] = (b"",)) -> Iterator[dict[int, bytes]]:
    """The attributes of each flow; at least of those that have one of the packed addresses."""
    netlink.send(_message(_GET, _REQUEST | _DUMP, family))
    done = False
    while not done:
        data = netlink.recv(_RECEIVED)
        interesting = any(address in data for address in packed)  # most parts are not, and parsing takes long
        for kind, body in _messages(data):
            done = done or kind == _DONE
            if kind == _ERROR:
                _raise(body)
            elif interesting and kind == _GET - 1:
                yield dict(_attributes(body[4:]))


def _ends(attributes: dict[int, bytes]) -> set[tuple[int, bytes]]:
    """All addresses of both directions, in the flow's zone."""
    zone = _zone(attributes)
    return {(zone, address) for direction in (_ORIGINAL, _REPLY) for address in _tuple(attributes[direction])[:2]}


def _zone(attributes: dict[int, bytes]) -> int:
    return int.from_bytes(attributes.get(_ZONE, b""))


def _flow(attributes: dict[int, bytes]) -> Flow:
    source, _, numbers = _tuple(attributes[_ORIGINAL])
    answerer, _, answers = _tuple(attributes[_REPLY])
    return Flow(
        protocol=numbers[1],
        source=ip_address(source),
        target=ip_address(answerer),
        source_port=numbers.get(2, 0),
        target_port=answers.get(2, 0),
        icmp_type=numbers.get(5, numbers.get(8, 0)),
        icmp_code=numbers.get(6, numbers.get(9, 0)),
        zone=_zone(attributes),
        key=b"".join(_attribute(kind, attributes[kind]) for kind in _KEY & attributes.keys()),
    )


def _tuple(tuple_: bytes) -> tuple[bytes, bytes, dict[int, int]]:
    """Source, destination and the protocol's numbers, by CTA_PROTO_…."""
    parts = dict(_attributes(tuple_))
    source, target = (address for _, address in sorted(_attributes(parts[1])))
    return source, target, {kind: int.from_bytes(value) for kind, value in _attributes(parts[2])}


def _delete(netlink: socket.socket, content: bytes) -> None:
    """One that has just ended by itself is gone, too."""
    netlink.send(_message(_DELETE, _REQUEST | _ACK, content))
    with contextlib.suppress(FileNotFoundError):
        for kind, body in _messages(netlink.recv(_RECEIVED)):
            if kind == _ERROR:
                _raise(body)


def _raise(body: bytes) -> None:
    number = -struct.unpack_from("i", body)[0]
    if number == errno.ENOENT:
        raise FileNotFoundError(number, "no such flow")
    if number:
        raise OSError(number, os.strerror(number))


def _message(kind: int, flags: int, body: bytes) -> bytes:
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
