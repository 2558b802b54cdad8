"""Ethernet frames, byte by byte, from what the explaining model calls a packet. Each ends with a mark of its own."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from launcher.explaining import Kind, Packet

MARK = struct.Struct("!4sI")
BROADCAST = "ff:ff:ff:ff:ff:ff"
_PROTOCOLS = {Kind.TCP: 6, Kind.UDP: 17}
_UNASSIGNED = range(143, 252)
"""Each packet another one: to connection tracking, all that two addresses say by one of them is one flow."""
_SYN, _ACK = 2, 16
_FRAGMENT, _OPTIONS = 44, 60

Address = IPv4Address | IPv6Address


def mark(number: int) -> bytes:
    return MARK.pack(b"mark", number)


def ethernet(target: str, sender: str, kind: int, content: bytes) -> bytes:
    return _mac(target) + _mac(sender) + struct.pack("!H", kind) + content


def build(packet: Packet, sender: str, target: str, number: int) -> bytes:
    """The packet in a frame between two MACs; the packet's own `mac` comes first."""
    head = (packet.mac or sender, packet.arp_mac or sender)
    if packet.kind is Kind.FRAME:
        return ethernet(target, head[0], 0x88B5, bytes(46) + mark(number))
    if packet.kind is Kind.ARP:
        assert isinstance(packet.source, IPv4Address)
        assert isinstance(packet.destination, IPv4Address)
        return ethernet(target, head[0], 0x0806, arp(head[1], packet.source, packet.destination) + mark(number))
    content = ip(packet, number)
    return ethernet(target, head[0], 0x0800 if packet.source.version == 4 else 0x86DD, content)


def arp(sender: str, source: IPv4Address, target: IPv4Address, operation: int = 1) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return head + _mac(sender) + source.packed + bytes(6) + target.packed + bytes(10)


def ip(packet: Packet, number: int) -> bytes:
    protocol = _protocol(packet, number)
    return _head(packet, protocol, _content(packet, protocol, number, mark(number)), number & 0xFFFF)


def fragments(packet: Packet, first: int, last: int) -> tuple[bytes, bytes]:
    """A packet of udp or icmp in two, each with a mark at its end. The first of IPv6 has the least size there is."""
    protocol, padding = _protocol(packet, first), 0 if packet.source.version == 4 else 1280 - 40 - 8 - 16
    content = _content(packet, protocol, first, bytes(padding) + mark(first) + mark(last))
    cut, identity = len(content) - 8, first & 0xFFFF
    return _fragment(packet, protocol, content[:cut], 0, 1, identity), _fragment(
        packet, protocol, content[cut:], cut, 0, identity
    )


def _fragment(packet: Packet, protocol: int, part: bytes, at: int, more: int, identity: int) -> bytes:
    if packet.source.version == 4:
        return _head(packet, protocol, part, identity, more << 13 | at // 8)
    return _head(packet, _FRAGMENT, struct.pack("!BBHI", protocol, 0, at | more, identity) + part, identity)


def with_options(packet: Packet, number: int) -> bytes:
    """Of IPv6: behind a header of options for the destination, which says nothing."""
    protocol = _protocol(packet, number)
    content = _content(packet, protocol, number, mark(number))
    return _head(packet, _OPTIONS, struct.pack("!BBBB4x", protocol, 0, 1, 4) + content, number)


def _protocol(packet: Packet, number: int) -> int:
    if packet.kind is Kind.OTHER:
        return _UNASSIGNED[number % len(_UNASSIGNED)]
    return _PROTOCOLS.get(packet.kind) or (1 if packet.source.version == 4 else 58)


def _head(packet: Packet, protocol: int, content: bytes, identity: int, fragment: int = 0) -> bytes:
    """The packet; `fragment` is the flags and the offset of IPv4."""
    source, target = packet.source, packet.destination
    if source.version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(content), identity, fragment, 64, protocol, 0)
        whole = head + source.packed + target.packed
        return whole[:10] + struct.pack("!H", _sum(whole)) + whole[12:] + content
    return struct.pack("!IHBB", 6 << 28, len(content), protocol, 255) + source.packed + target.packed + content


def _content(packet: Packet, protocol: int, number: int, end: bytes) -> bytes:
    sport, dport = packet.source_port or 0, packet.port or 0
    match packet.kind:
        case Kind.TCP:
            flags = _SYN if packet.opens else _ACK
            body = struct.pack("!HHIIBBHHH", sport, dport, number, 0, 0x50, flags, 1024, 0, 0) + end
            place = 16
        case Kind.UDP:
            body = struct.pack("!HHHH", sport, dport, 8 + len(end), 0) + end
            place = 6
        case Kind.ICMP:
            advertised = packet.advertised or (packet.source if packet.source.version == 6 else None)
            about = advertised.packed if advertised and packet.icmp_type == 136 else b""
            body = (
                struct.pack("!BBHHH", packet.icmp_type or 0, packet.icmp_code or 0, 0, number & 0xFFFF, 1) + about + end
            )
            place = 2
        case _:
            return struct.pack("!HHII", sport, dport, 0, 0) + end
    pseudo = b"" if protocol == 1 else packet.source.packed + packet.destination.packed
    pseudo += struct.pack("!II", len(body), protocol) if pseudo else b""
    return body[:place] + struct.pack("!H", _sum(pseudo + body) or 0xFFFF) + body[place + 2 :]


def _sum(data: bytes) -> int:
    """The internet checksum, RFC 1071."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
