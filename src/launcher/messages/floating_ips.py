"""To the network role, about floating IPs."""

from __future__ import annotations

from ipaddress import IPv4Address

from pydantic import Field

from launcher.accounts import UserRole
from launcher.floating import FloatingIp, FloatingPool
from launcher.messaging import Call
from launcher.models import Name


class AllocateFloatingIp(Call[FloatingIp]):
    """Hold an address for the project: this one, else the pool's lowest free one. Without a pool, of the first.

    Raises NotFound for the pool, QuotaExceeded, NoMoreFloatingIps, and for an address BadRequest or Conflict.
    """

    topic = "network"
    pool: Name | None = None
    address: IPv4Address | None = None


class ListFloatingIps(Call[list[FloatingIp]]):
    """The project's; an admin sees all."""

    topic = "network"
    needs = UserRole.READER


class ListFloatingPools(Call[list[FloatingPool]]):
    """The settings', in their order."""

    topic = "network"
    needs = UserRole.READER


class GetFloatingIp(Call[FloatingIp]):
    topic = "network"
    needs = UserRole.READER
    address: IPv4Address


class AssociateFloatingIp(Call[FloatingIp]):
    """Let it lead to a fixed IP of the instance, to the first NIC's unless told; repeating it is success.

    Raises NotFound, BadRequest for a fixed IP that is not the instance's, Conflict when the instance has no address
    yet or has a floating one there, or when this one leads elsewhere and it was not asked to `reassociate`.
    """

    topic = "network"
    address: IPv4Address
    instance: str = Field(min_length=1, max_length=255, description="its id, or a unique name in the project")
    fixed: IPv4Address | None = None
    reassociate: bool = False


class DisassociateFloatingIp(Call[FloatingIp]):
    """Let it lead nowhere, and cut what came by it; the project keeps it. Repeating it is success."""

    topic = "network"
    address: IPv4Address


class ReleaseFloatingIp(Call[None]):
    """Give it back to its pool. Raises Conflict while it is associated."""

    topic = "network"
    address: IPv4Address
