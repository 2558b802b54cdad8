"""The noun of packet filtering on a host: where an instance's NIC meets the network, and what may be seen there."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from launcher.models import InstanceRef, MacAddress, Model
from launcher.networks import FixedIp

LINK_LOCAL = IPv6Network("fe80::/64")


class Port(Model):
    """A NIC's tap, the addresses that are its own, and its network. Without `address6` it has no IPv6 at all.

    `zone` is where connection tracking keeps its bridge's flows.
    """

    tap: str
    bridge: str
    mac: MacAddress
    address: IPv4Address
    gateway: IPv4Address
    cidr: IPv4Network
    address6: IPv6Address | None = None
    gateway6: IPv6Address | None = None
    cidr6: IPv6Network | None = None
    zone: int = 0

    @property
    def link_local(self) -> IPv6Address:
        """What the guest makes of its MAC: RFC 4862 with the EUI-64 of RFC 4291, appendix A."""
        raw = bytes.fromhex(self.mac.replace(":", ""))
        return LINK_LOCAL[int.from_bytes(bytes([raw[0] ^ 2, *raw[1:3], 0xFF, 0xFE, *raw[3:]]))]

    @property
    def addresses6(self) -> tuple[IPv6Address, ...]:
        return (self.link_local, self.address6) if self.address6 else ()

    @property
    def addresses(self) -> tuple[IPv4Address | IPv6Address, ...]:
        return (self.address, *self.addresses6)

    @property
    def gateways(self) -> tuple[IPv4Address | IPv6Address, ...]:
        return (self.gateway, self.gateway6) if self.address6 and self.gateway6 else (self.gateway,)


def ports_of(order: InstanceRef, nics: Sequence[FixedIp]) -> tuple[Port, ...]:
    return tuple(_port(order, lease) for lease in nics)


def _port(order: InstanceRef, lease: FixedIp) -> Port:
    network = lease.network
    gateway6 = network.gateway6_interface
    return Port(
        tap=order.tap_of(lease.nic),
        bridge=network.bridge,
        mac=lease.mac,
        address=lease.address,
        gateway=network.gateway,
        cidr=network.cidr,
        address6=lease.address6,
        gateway6=gateway6.ip if gateway6 else None,
        cidr6=network.cidr6,
        zone=network.zone,
    )
