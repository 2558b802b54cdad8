"""The nouns of address translation: pools, floating IPs, and what a host translates all in all."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated

from pydantic import Field, StringConstraints

from launcher.models import InstanceId, Model, Name

DeviceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,14}$")]


class FloatingPool(Model):
    """A range that is launcher's alone. `interface` is the host's device that answers for its addresses."""

    name: Name
    cidr: IPv4Network
    interface: DeviceName

    @property
    def first(self) -> IPv4Address:
        return self.cidr[0] if self.cidr.prefixlen >= 31 else self.cidr[1]

    @property
    def last(self) -> IPv4Address:
        """A range of one or two addresses has no broadcast address (RFC 3021)."""
        return self.cidr[-1] if self.cidr.prefixlen >= 31 else self.cidr[-2]


class Outward(Model):
    """What the settings say of the ways out and in."""

    masquerade: bool = True
    pools: tuple[FloatingPool, ...] = ()


class FloatingIp(Model):
    """An address that a project holds until it deletes it. With an instance, it leads to its `fixed` address."""

    address: IPv4Address
    pool: Name
    project_id: str
    instance_id: InstanceId | None = None
    fixed: IPv4Address | None = None


class Translation(Model):
    """All that a host translates. `floating` is each associated address and the fixed one that it leads to."""

    networks: Mapping[str, IPv4Network] = Field(default_factory=dict, description="the range on each bridge")
    masquerade: bool = True
    floating: Mapping[IPv4Address, IPv4Address] = Field(default_factory=dict)

    @property
    def forwards(self) -> bool:
        """Whether the host has to be a router."""
        return bool(self.floating) or (self.masquerade and bool(self.networks))
