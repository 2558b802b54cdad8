"""The nouns of networking: a network, and the lease of one of its addresses."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Annotated

from pydantic import StringConstraints

from launcher.models import InstanceId, MacAddress, Model, Name

BridgeName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,14}$")]
DomainName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{1,63}$")]


class NetworkMode(StrEnum):
    FLAT = "flat"
    FLAT_DHCP = "flat_dhcp"


class Network(Model):
    """A bridge with a range of addresses. The gateway is also the DHCP server."""

    name: Name
    mode: NetworkMode
    bridge: BridgeName
    cidr: IPv4Network
    gateway: IPv4Address
    dns: tuple[IPv4Address, ...] = ()
    domain: DomainName = "novalocal"

    @property
    def gateway_interface(self) -> IPv4Interface:
        return IPv4Interface(f"{self.gateway}/{self.cidr.prefixlen}")


class FixedIp(Model):
    """A lease: this address belongs to this NIC of this instance until it is released."""

    instance_id: InstanceId
    address: IPv4Address
    mac: MacAddress
    hostname: str
    network: Network
