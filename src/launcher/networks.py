"""The nouns of networking: a network, and the lease of one of its addresses."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Annotated

from pydantic import Field, StringConstraints

from launcher.models import LARGEST, InstanceId, MacAddress, Model, Name, Nic

BridgeName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,14}$")]
DomainName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{1,63}$")]
MOST_NICS = 8
SEGMENTS = (2, 2**24 - 1)
"""What names a project's layer 2: a VLAN id (up to 4094) or a VXLAN network identifier."""
LINKS = IPv4Network("198.19.0.0/17")
"""Of the links to networks apart: RFC 2544 keeps it from being anybody's."""
LINK_DEVICE = "nova-link"
MOST_APART = LINKS.num_addresses // 2 - 1


class NetworkMode(StrEnum):
    FLAT = "flat"
    FLAT_DHCP = "flat_dhcp"
    VLAN = "vlan"


class Overlay(StrEnum):
    """How a project's network reaches other hosts: by 802.1Q tags, by VXLAN, or not at all."""

    VLAN = "vlan"
    VXLAN = "vxlan"
    NONE = "none"


class Network(Model):
    """A bridge with a range of addresses. The gateway is also the DHCP server. Without a project it is everybody's."""

    id: int = Field(default=0, ge=0, le=LARGEST, description="0 until the network role has kept it")
    name: Name
    project_id: str | None = None
    mode: NetworkMode
    bridge: BridgeName
    cidr: IPv4Network
    gateway: IPv4Address
    dns: tuple[IPv4Address, ...] = ()
    domain: DomainName = "novalocal"
    segment: int | None = Field(default=None, ge=SEGMENTS[0], le=SEGMENTS[1])
    cidr6: IPv6Network | None = Field(default=None, description="a /64 that guests make their own addresses in (SLAAC)")
    apart: int | None = Field(
        default=None,
        ge=1,
        le=MOST_APART,
        description="a number, if another project's network had its addresses before: its gateway is in a namespace",
    )

    @property
    def zone(self) -> int:
        """Of connection tracking: the same addresses in two zones are different ones."""
        return self.apart or 0

    @property
    def link(self) -> IPv4Network:
        """Of a network apart: between the host, which has the first address, and the network's gateway."""
        return IPv4Network((int(LINKS.network_address) + 2 * (self.apart or 0), 31))

    @property
    def link_device(self) -> str:
        """The host's end of it."""
        return f"{LINK_DEVICE}{self.apart}"

    @property
    def gateway_interface(self) -> IPv4Interface:
        return IPv4Interface(f"{self.gateway}/{self.cidr.prefixlen}")

    @property
    def gateway6_interface(self) -> IPv6Interface | None:
        return IPv6Interface(f"{self.cidr6[1]}/64") if self.cidr6 else None

    @property
    def first(self) -> IPv4Address:
        """The lowest address that a guest may have, unless it is the gateway's."""
        return self.cidr.network_address + 1

    @property
    def last(self) -> IPv4Address:
        """The highest: the broadcast address is nobody's."""
        return self.cidr.broadcast_address - 1

    def may_lease(self, address: IPv4Address) -> bool:
        return self.first <= address <= self.last and address != self.gateway

    def address6_of(self, mac: MacAddress) -> IPv6Address | None:
        """The address that a guest with this MAC makes itself: RFC 4862 with the EUI-64 of RFC 4291, appendix A."""
        if self.cidr6 is None:
            return None
        raw = bytes.fromhex(mac.replace(":", ""))
        return self.cidr6[int.from_bytes(bytes([raw[0] ^ 2, *raw[1:3], 0xFF, 0xFE, *raw[3:]]))]


@dataclass(frozen=True)
class ProjectRange:
    """What a project's network is made of when its first instance needs one: a segment and a part of `cidr`."""

    cidr: IPv4Network
    prefix: int
    segments: range


class FixedIp(Model):
    """A lease: this address belongs to this NIC of this instance until it is released."""

    instance_id: InstanceId
    nic: int = Field(default=0, ge=0, lt=MOST_NICS, description="its place among the instance's NICs")
    address: IPv4Address
    address6: IPv6Address | None = None
    floating: IPv4Address | None = Field(default=None, description="what led to it when the lease was read")
    mac: MacAddress
    hostname: str
    network: Network

    def as_nic(self) -> Nic:
        """As the instance's owner sees it."""
        return Nic(mac=self.mac, network=self.network.name, address=self.address, address6=self.address6)
