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
    allocated_ms: int
    instance_id: InstanceId | None = None
    fixed: IPv4Address | None = None


class Beyond(Model):
    """A network apart: the range that its gateway translates, and the floating IPs that are led to it over a link."""

    cidr: IPv4Network
    link: IPv4Network
    device: DeviceName
    floating: Mapping[IPv4Address, IPv4Address] = Field(default_factory=dict)


Lead = tuple[str, IPv4Address]
"""Where a floating IP leads: to an address, on the bridge of a network apart if that is named."""


class Translation(Model):
    """All that a host translates. `floating` is each associated address and the fixed one that it leads to."""

    networks: Mapping[str, IPv4Network] = Field(default_factory=dict, description="the range on each bridge")
    masquerade: bool = True
    floating: Mapping[IPv4Address, IPv4Address] = Field(default_factory=dict)
    apart: Mapping[str, Beyond] = Field(default_factory=dict, description="by their bridges")

    @property
    def routed(self) -> dict[IPv4Address, Beyond]:
        """The floating IPs that lead to networks apart."""
        return {address: beyond for beyond in self.apart.values() for address in beyond.floating}

    @property
    def leads(self) -> dict[IPv4Address, Lead]:
        """Every floating IP."""
        here = {address: ("", fixed) for address, fixed in self.floating.items()}
        return here | {
            address: (bridge, fixed) for bridge, each in self.apart.items() for address, fixed in each.floating.items()
        }

    def inside(self, bridge: str) -> Translation:
        """What the gateway of a network apart translates, in its namespace."""
        beyond = self.apart[bridge]
        return Translation(networks={bridge: beyond.cidr}, masquerade=self.masquerade, floating=beyond.floating)

    @property
    def forwards(self) -> bool:
        """Whether the host has to be a router."""
        return bool(self.floating) or bool(self.routed) or (self.masquerade and bool(self.networks))
