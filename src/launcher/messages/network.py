"""To the network role."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

from pydantic import Field

from launcher.accounts import UserRole
from launcher.messaging import Call
from launcher.models import DhcpEvidence, Hostname, InstanceId, MacAddress, Name
from launcher.networks import MOST_NICS, SEGMENTS, BridgeName, FixedIp, Network


class AllocateFixedIp(Call[FixedIp]):
    """Lease an address to one NIC; repeating it returns the same lease.

    Without a `network` it is the project's usual one, which in the mode vlan is made by the first launch; without an
    `address` it is the lowest free one. When it returns, the bridge has its gateway and the DHCP server knows the
    lease. Raises NoMoreFixedIps, NotFound, BadRequest, Conflict when the address asked for is another's.
    """

    topic = "network"
    traced = True
    instance_id: InstanceId
    project_id: str
    nic: int = Field(default=0, ge=0, lt=MOST_NICS)
    mac: MacAddress
    hostname: Hostname
    network: str | None = None
    address: IPv4Address | None = None

    @property
    def subject(self) -> InstanceId:
        return self.instance_id


class ReleaseFixedIp(Call[None]):
    """Give the instance's addresses back; none is success."""

    topic = "network"
    traced = True
    instance_id: InstanceId

    @property
    def subject(self) -> InstanceId:
        return self.instance_id


class CheckNetworks(Call[None]):
    """Whether the project's instances may have NICs in these networks, at these addresses, as things stand.

    Raises NotFound for a network, BadRequest for an address that is not to be had, Conflict for one that is taken.
    """

    topic = "network"
    nics: tuple[tuple[str, IPv4Address | None], ...]


class FindLease(Call[FixedIp | None]):
    """Whose address this is on this bridge; without one, None also where several networks have it."""

    topic = "network"
    needs = UserRole.READER
    address: IPv4Address
    bridge: str | None = None


class ListAddresses(Call[list[FixedIp]]):
    """The leases of one instance, in the order of its NICs."""

    topic = "network"
    needs = UserRole.READER
    instance_id: InstanceId


class GetDhcpEvidence(Call[DhcpEvidence | None]):
    """Of the instance's first NIC."""

    topic = "network"
    needs = UserRole.READER
    instance_id: InstanceId


class CreateNetwork(Call[Network]):
    """Make a network (admins). What is left out is chosen: the first address as gateway, a free bridge and segment.

    Its range may be that of other projects' networks. Raises Conflict when the name, the bridge, the segment, or the
    range in this project or for everybody is another network's, and what the host refuses.
    """

    topic = "network"
    needs = UserRole.ADMIN
    name: Name
    project_id: str | None = None
    cidr: IPv4Network
    gateway: IPv4Address | None = None
    bridge: BridgeName | None = None
    segment: int | None = Field(default=None, ge=SEGMENTS[0], le=SEGMENTS[1])
    cidr6: IPv6Network | None = None
    dns: tuple[IPv4Address, ...] | None = None


class ListNetworks(Call[list[Network]]):
    """The project's own and everybody's; an admin sees all."""

    topic = "network"
    needs = UserRole.READER


class DeleteNetwork(Call[None]):
    """By name or id (admins). Raises Conflict while addresses of it are leased."""

    topic = "network"
    needs = UserRole.ADMIN
    network: str
