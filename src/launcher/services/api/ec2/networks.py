"""Networks, as the VPCs, subnets and interfaces that clients look for. They are made by other ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from launcher.messages.network import ListNetworks
from launcher.networks import Network
from launcher.services.api.ec2 import finding, ids, tags
from launcher.services.api.ec2.instance_shapes import InterfaceOf, interface
from launcher.services.api.ec2.operation import TAG_FILTERS, Ask, Listing, Paged, plain
from launcher.services.api.ec2.shapes import TagSet, tag_set
from launcher.services.api.ec2.world import DEFAULT_ZONE, World
from launcher.tagging import Tagged

EVERYBODY = "admin"
"""Whose the networks are that every project may use."""


class DescribeVpcs(Paged):
    """Every network is a VPC."""

    vpc_id: tuple[str, ...] = ()


class DescribeSubnets(Paged):
    """With one subnet."""

    subnet_id: tuple[str, ...] = ()


class DescribeNetworkInterfaces(Paged):
    """The NICs of instances."""

    network_interface_id: tuple[str, ...] = ()


class Vpc(NamedTuple):
    vpc_id: str
    owner_id: str
    state: str
    cidr_block: str
    dhcp_options_id: str
    instance_tenancy: str
    is_default: bool
    tag_set: TagSet


class Vpcs(NamedTuple):
    vpc_set: tuple[Vpc, ...]
    next_token: str | None = None


class Subnet(NamedTuple):
    subnet_id: str
    state: str
    owner_id: str
    vpc_id: str
    cidr_block: str
    availability_zone: str
    default_for_az: bool
    map_public_ip_on_launch: bool
    tag_set: TagSet


class Subnets(NamedTuple):
    subnet_set: tuple[Subnet, ...]
    next_token: str | None = None


class Interfaces(NamedTuple):
    network_interface_set: tuple[InterfaceOf, ...]
    next_token: str | None = None


async def find_vpcs(ask: Ask, request: Any) -> Sequence[Vpc]:
    noted = await tags.of(ask, Tagged.NETWORK)
    return [
        Vpc(
            vpc_id=ids.VPC.id(each.id),
            owner_id=each.project_id or EVERYBODY,
            state="available",
            cidr_block=str(each.cidr),
            dhcp_options_id="default",
            instance_tenancy="default",
            is_default=False,
            tag_set=tag_set(noted.get(str(each.id), {})),
        )
        for each in await _networks(ask, ids.VPC, request.vpc_id)
    ]


async def find_subnets(ask: Ask, request: Any) -> Sequence[Subnet]:
    return [
        Subnet(
            subnet_id=ids.SUBNET.id(each.id),
            state="available",
            owner_id=each.project_id or EVERYBODY,
            vpc_id=ids.VPC.id(each.id),
            cidr_block=str(each.cidr),
            availability_zone=DEFAULT_ZONE,
            default_for_az=False,
            map_public_ip_on_launch=False,
            tag_set=(),
        )
        for each in await _networks(ask, ids.SUBNET, request.subnet_id)
    ]


async def find_interfaces(ask: Ask, request: Any) -> Sequence[InterfaceOf]:
    for each in request.network_interface_id:
        ids.INTERFACE.number(each)
    found = await finding.instances(ask, ())
    world = await World.look(ask)
    shown = [
        interface(instance, world, index, nic, world.group_names(instance.security_groups))
        for instance in found
        for index, nic in enumerate(instance.nics)
        if nic.address
    ]
    known = {each.network_interface_id for each in shown}
    if unknown := [each for each in request.network_interface_id if each not in known]:
        raise ids.INTERFACE.not_found(*unknown)
    wanted = set(request.network_interface_id)
    return [each for each in shown if not wanted or each.network_interface_id in wanted]


async def _networks(ask: Ask, kind: ids.Kind, wanted: Sequence[str]) -> list[Network]:
    known = {each.id: each for each in await ask.look(ListNetworks())}
    numbers = [kind.number(each) for each in wanted]
    if unknown := [kind.id(each) for each in numbers if each not in known]:
        raise kind.not_found(*unknown)
    return [known[each] for each in numbers] if numbers else list(known.values())


OPERATIONS = (
    Listing(
        DescribeVpcs,
        Vpcs,
        find_vpcs,
        {
            **plain(["vpc_id", "owner_id", "state", "is_default", "dhcp_options_id"]),
            "cidr": "cidr_block",
            **TAG_FILTERS,
        },
        ("vpc_id",),
        named=("vpc_id",),
    ).operation(),
    Listing(
        DescribeSubnets,
        Subnets,
        find_subnets,
        {**plain(["subnet_id", "vpc_id", "owner_id", "state", "availability_zone", "default_for_az"]), **TAG_FILTERS},
        ("subnet_id",),
        named=("subnet_id",),
    ).operation(),
    Listing(
        DescribeNetworkInterfaces,
        Interfaces,
        find_interfaces,
        {
            **plain(["network_interface_id", "subnet_id", "vpc_id", "owner_id", "status", "mac_address"]),
            **plain(["private_ip_address", "private_dns_name"]),
            "group-id": "group_set.group_id",
            "group-name": "group_set.group_name",
            "association.public-ip": "association.public_ip",
            "addresses.private-ip-address": "private_ip_addresses_set.private_ip_address",
        },
        ("network_interface_id",),
        named=("network_interface_id",),
    ).operation(),
)
