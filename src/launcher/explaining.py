"""Whether a packet passes an instance's filters, and which rule decides: the reference that all packet filters follow.

Pure. What a packet is comes in as the filters see it: after the translation of a floating address on the way in,
before it on the way out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from pydantic import Field

from launcher.models import MacAddress, Model
from launcher.policy import Direction, Policy, Protocol, Rule
from launcher.ports import Port

METADATA_ADDRESS = IPv4Address("169.254.169.254")
NOWHERE, NOWHERE6 = IPv4Address("0.0.0.0"), IPv6Address("::")  # noqa: S104 - the address of who has none yet
EVERYBODY = IPv4Address("255.255.255.255")
LINK_LOCAL = IPv6Network("fe80::/10")
DHCP_SERVER, DHCP_CLIENT, DHCP6_SERVER, DHCP6_CLIENT, DNS = 67, 68, 547, 546, 53
ECHO, ECHO6 = 8, 128
ROUTER_SOLICIT, ROUTER_ADVERT, NEIGHBOUR_SOLICIT, NEIGHBOUR_ADVERT, REDIRECT6, MULTICAST_REPORT = (
    133,
    134,
    135,
    136,
    137,
    143,
)

Address = IPv4Address | IPv6Address


class Kind(StrEnum):
    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"
    OTHER = "other"
    ARP = "arp"
    FRAME = "frame"


class State(StrEnum):
    """What connection tracking thinks of a packet."""

    NEW = "new"
    ESTABLISHED = "established"
    RELATED = "related"
    INVALID = "invalid"


class Packet(Model):
    """A packet. Between IPv6 addresses, icmp is ICMPv6; of ARP, the addresses are sender's and target's.

    `other` is any other protocol over IP, `frame` one that is neither IP nor ARP.
    `mac`, `arp_mac` and `advertised` None are the truth.
    """

    kind: Kind
    source: Address
    destination: Address
    source_port: int | None = Field(default=None, ge=0, le=65535)
    port: int | None = Field(default=None, ge=0, le=65535)
    icmp_type: int | None = Field(default=None, ge=0, le=255)
    icmp_code: int | None = Field(default=None, ge=0, le=255)
    state: State = State.NEW
    opens: bool = Field(default=True, description="tcp: SYN without ACK, the first of a connection")
    mac: MacAddress | None = Field(default=None, description="the frame's sender; leaving an instance only")
    arp_mac: MacAddress | None = Field(default=None, description="the sender in an ARP packet")
    advertised: IPv6Address | None = Field(default=None, description="whose neighbour advertisement it is")
    nic: int = Field(default=0, ge=0, description="by which of the instance's NICs it leaves")
    to_host: bool = Field(default=False, description="it leaves for the host itself, whatever its address there")


class Settings(Model):
    """Of `[firewall]` and the metadata service; the port None is: there is none."""

    allow_host_traffic: bool = True
    allow_project_net_traffic: bool = False
    metadata_port: int | None = None


class Decision(Model):
    """Whether a packet passes, and the rule that decides, for a reader."""

    passes: bool
    rule: str


def explain(
    packet: Packet,
    ports: Sequence[Port],
    policy: Policy,
    settings: Settings,
    *,
    direction: Direction = Direction.INGRESS,
) -> Decision:
    """What becomes of a packet to (INGRESS) or from (EGRESS) an instance; `policy` has exactly its groups."""
    if direction is Direction.INGRESS:
        return _arrival(packet, ports, policy, settings)
    if packet.nic >= len(ports):
        return _drops(f"the instance has no NIC {packet.nic}")
    port = ports[packet.nic]
    if lie := _lie(packet, port):
        return _drops(lie)
    if packet.kind is Kind.ARP:
        return _passes("address resolution in its own name")
    if packet.to_host or packet.destination in (*port.gateways, METADATA_ADDRESS):
        return _to_host(packet, port, settings)
    return _departure(packet, policy)


# --- to an instance --------------------------------------------------------------------------------


def _arrival(packet: Packet, ports: Sequence[Port], policy: Policy, settings: Settings) -> Decision:
    if packet.kind is Kind.ARP:
        return _passes("address resolution")
    if packet.kind is Kind.FRAME:
        return _drops("neither IP nor ARP")
    port = next((port for port in ports if packet.destination in port.addresses), None)
    if port is None:
        return _to_everybody(packet, ports)
    if known := _known(packet):
        return known
    checks: tuple[tuple[Callable[[Packet, Port], bool], bool, str], ...] = (
        (_answers_dhcp, True, "the network's DHCP server"),
        (_is_discovery, True, "IPv6 neighbour discovery"),
        (_from_host, settings.allow_host_traffic, "the host itself ([firewall] allow_host_traffic)"),
        (_from_network, settings.allow_project_net_traffic, "the same network ([firewall] allow_project_net_traffic)"),
    )
    for holds, counts, words in checks:
        if counts and holds(packet, port):
            return _passes(words)
    return _by_groups(packet, policy, Direction.INGRESS)


def _to_everybody(packet: Packet, ports: Sequence[Port]) -> Decision:
    """To a broadcast or multicast address, or to one that is not the instance's: what it cannot do without."""
    if packet.destination == EVERYBODY and any(_answers_dhcp(packet, port) for port in ports):
        return _passes("the network's DHCP server")
    if packet.destination.is_multicast and any(port.address6 for port in ports) and _is_discovery(packet, ports[0]):
        return _passes("IPv6 neighbour discovery")
    return _drops(f"{packet.destination} is no address of the instance")


def _answers_dhcp(packet: Packet, port: Port) -> bool:
    return packet.source == port.gateway and _is_udp(packet, DHCP_SERVER, DHCP_CLIENT)


def _is_discovery(packet: Packet, _port: Port) -> bool:
    """No instance can send a router advertisement, so one that arrives is a router's."""
    if not _is_icmp6(packet, ROUTER_ADVERT, NEIGHBOUR_SOLICIT, NEIGHBOUR_ADVERT):
        return False
    return packet.icmp_type != ROUTER_ADVERT or packet.source in LINK_LOCAL


def _from_host(packet: Packet, port: Port) -> bool:
    return packet.source in port.gateways


def _from_network(packet: Packet, port: Port) -> bool:
    return packet.source in port.cidr or (port.cidr6 is not None and packet.source in port.cidr6)


# --- from an instance ------------------------------------------------------------------------------


def _lie(packet: Packet, port: Port) -> str | None:
    """In what a packet is not the instance's own to send."""
    if packet.mac not in (None, port.mac):
        return f"the sender's MAC {packet.mac} is not {port.mac}"
    if packet.kind is Kind.FRAME:
        return "neither IP nor ARP"
    return _lie6(packet, port) if packet.source.version == 6 else _lie4(packet, port)


def _lie4(packet: Packet, port: Port) -> str | None:
    if packet.kind is Kind.ARP and packet.arp_mac not in (None, port.mac):
        return f"ARP for the MAC {packet.arp_mac}, which is not {port.mac}"
    if _is_udp(packet, DHCP_SERVER):
        return "only the network's own DHCP server answers DHCP"
    if packet.source == port.address or _asks_dhcp(packet):
        return None
    return f"the source {packet.source} is not {port.address}"


def _lie6(packet: Packet, port: Port) -> str | None:
    if not port.address6:
        return "the network has no IPv6"
    if _is_icmp6(packet, ROUTER_ADVERT, REDIRECT6):
        return "only routers advertise and redirect"
    if _is_udp(packet, DHCP6_SERVER):
        return "an instance is no DHCPv6 server"
    if packet.source not in port.addresses6 and not (packet.source == NOWHERE6 and _is_nameless(packet)):
        return f"the source {packet.source} is none of {', '.join(map(str, port.addresses6))}"
    if _is_icmp6(packet, NEIGHBOUR_ADVERT) and packet.advertised not in (None, *port.addresses6):
        return f"the advertised address {packet.advertised} is none of {', '.join(map(str, port.addresses6))}"
    return None


def _is_nameless(packet: Packet) -> bool:
    """What is sent before there is an address: is it free, who routes, which groups are listened to."""
    return _is_icmp6(packet, NEIGHBOUR_SOLICIT, ROUTER_SOLICIT, MULTICAST_REPORT)


def _asks_dhcp(packet: Packet) -> bool:
    from_nobody = packet.source == NOWHERE and packet.destination == EVERYBODY
    return from_nobody and _is_udp(packet, DHCP_CLIENT, DHCP_SERVER)


def _to_host(packet: Packet, port: Port, settings: Settings) -> Decision:
    if known := _known(packet) or _late(packet):
        return known
    if service := _service(packet, port, settings):
        return _passes(service)
    return _drops("the host answers its instances' DHCP, DNS, metadata and ping, nothing else")


def _service(packet: Packet, port: Port, settings: Settings) -> str | None:
    """What the host does for its instances, in the order of the filters."""
    four, tcp, gateway = packet.source.version == 4, packet.kind is Kind.TCP, packet.destination in port.gateways
    metadata = four and tcp and settings.metadata_port is not None
    services = (
        (_is_udp(packet, DHCP_CLIENT, DHCP_SERVER) and four, "DHCP"),
        (_is_udp(packet, DHCP6_CLIENT, DHCP6_SERVER) and not four, "DHCPv6"),
        (_is_icmp6(packet, ROUTER_SOLICIT, NEIGHBOUR_SOLICIT, NEIGHBOUR_ADVERT), "IPv6 neighbour discovery"),
        (metadata and packet.destination == METADATA_ADDRESS and packet.port == 80, "the metadata service"),
        (metadata and gateway and packet.port == settings.metadata_port, "the metadata service"),
        (gateway and packet.kind in (Kind.TCP, Kind.UDP) and packet.port == DNS, "the gateway's DNS"),
        (gateway and packet.kind is Kind.ICMP and packet.icmp_type == (ECHO if four else ECHO6), "ping of the gateway"),
    )
    return next((words for holds, words in services if holds), None)


def _departure(packet: Packet, policy: Policy) -> Decision:
    if known := _known(packet) or _late(packet):
        return known
    if _asks_dhcp(packet) or _is_discovery_out(packet):
        return _passes("DHCP or IPv6 neighbour discovery")
    if not policy.limits_egress:
        return _passes("no egress rules in one of its groups" if policy.groups else "no groups, so no egress rules")
    return _by_groups(packet, policy, Direction.EGRESS)


def _is_discovery_out(packet: Packet) -> bool:
    return _is_icmp6(packet, ROUTER_SOLICIT, NEIGHBOUR_SOLICIT, NEIGHBOUR_ADVERT, MULTICAST_REPORT)


# --- both ------------------------------------------------------------------------------------------


def _known(packet: Packet) -> Decision | None:
    if packet.state is State.INVALID:
        return _drops("no connection is known that this belongs to")
    if packet.state in (State.ESTABLISHED, State.RELATED):
        return _passes("part of a connection that was let through")
    return None


def _late(packet: Packet) -> Decision | None:
    """A connection that was cut cannot be taken up again from inside."""
    if packet.kind is Kind.TCP and not packet.opens:
        return _drops("no connection is known that this tcp packet belongs to")
    return None


def _by_groups(packet: Packet, policy: Policy, direction: Direction) -> Decision:
    for group in policy.groups:
        for rule in group.rules_for(direction):
            if _lets(rule, packet, policy):
                return _passes(f"group {group.name}: {rule}")
    names = ", ".join(group.name for group in policy.groups)
    return _drops(f"no {direction} rule of {names or 'any group (it has none)'} lets it through")


def _lets(rule: Rule, packet: Packet, policy: Policy) -> bool:
    end = packet.source if rule.direction is Direction.INGRESS else packet.destination
    if rule.cidr is not None and end not in rule.cidr:
        return False
    if rule.cidr is None and end not in policy.members_of(rule):
        return False
    match rule.protocol:
        case Protocol.ANY:
            return True
        case Protocol.ICMP:
            wanted = ((rule.from_port, packet.icmp_type), (rule.to_port, packet.icmp_code))
            return packet.kind is Kind.ICMP and all(each in (None, found) for each, found in wanted)
        case _:
            low, high = rule.ports or (0, 65535)
            return packet.kind.value == rule.protocol.value and packet.port is not None and low <= packet.port <= high


def _is_udp(packet: Packet, source_port: int, port: int | None = None) -> bool:
    return packet.kind is Kind.UDP and packet.source_port == source_port and port in (None, packet.port)


def _is_icmp6(packet: Packet, *types: int) -> bool:
    return packet.kind is Kind.ICMP and packet.source.version == 6 and packet.icmp_type in types


def _passes(rule: str) -> Decision:
    return Decision(passes=True, rule=rule)


def _drops(rule: str) -> Decision:
    return Decision(passes=False, rule=rule)
