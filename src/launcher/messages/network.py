"""To the network role."""

from __future__ import annotations

from ipaddress import IPv4Address

from launcher.messaging import Call
from launcher.models import DhcpEvidence, Hostname, InstanceId, MacAddress
from launcher.networks import FixedIp


class AllocateFixedIp(Call[FixedIp]):
    """Lease an address of the project's network to one NIC; repeating it returns the same lease.

    When it returns, the bridge has its gateway and the DHCP server knows the lease. Raises NoMoreFixedIps.
    """

    topic = "network"
    traced = True
    instance_id: InstanceId
    project_id: str
    mac: MacAddress
    hostname: Hostname

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


class FindLease(Call[FixedIp | None]):
    """Whose address this is on this bridge; elsewhere the same address may be somebody else's."""

    topic = "network"
    address: IPv4Address
    bridge: str


class ListAddresses(Call[list[FixedIp]]):
    """The leases of one instance."""

    topic = "network"
    instance_id: InstanceId


class GetDhcpEvidence(Call[DhcpEvidence | None]):
    topic = "network"
    instance_id: InstanceId
