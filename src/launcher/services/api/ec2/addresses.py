"""Elastic IPs, which are floating IPs here: by their address, as in the classic network, or by ids, as in a VPC."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal, NamedTuple

from launcher.errors import BadRequest, Conflict, NotFound, QuotaExceeded
from launcher.floating import FloatingIp
from launcher.messages import floating_ips as messages
from launcher.messages.tags import RemoveTags, SetTags
from launcher.models import Instance
from launcher.services.api.ec2 import finding, ids, states, tagged, tags
from launcher.services.api.ec2.operation import TAG_FILTERS, Ask, Described, Listing, Operation, plain
from launcher.services.api.ec2.query import Ignored, Request
from launcher.services.api.ec2.refusals import Refusal
from launcher.services.api.ec2.shapes import GROUP_IDS, TagSet, tag_set
from launcher.services.api.ec2.tags import TagSpecification
from launcher.services.api.ec2.xml import Done, Since
from launcher.tagging import Tagged, Target

VPC = "vpc"


class AllocateAddress(Request):
    """Hold an address of a pool."""

    domain: Literal["vpc", "standard"] = "vpc"
    address: str | None = None
    public_ipv4_pool: str | None = None
    tag_specification: tuple[TagSpecification, ...] = ()
    network_border_group: Annotated[str | None, Ignored("there is one region")] = None


class AssociateAddress(Request):
    """Let it lead to an instance. By its address it moves; by its id only with `AllowReassociation`."""

    instance_id: str | None = None
    network_interface_id: str | None = None
    public_ip: str | None = None
    allocation_id: str | None = None
    private_ip_address: str | None = None
    allow_reassociation: bool = False


class DisassociateAddress(Request):
    """Let it lead nowhere."""

    public_ip: str | None = None
    association_id: str | None = None


class ReleaseAddress(Request):
    """Give it back to its pool. By its address it is disassociated first; by its id it must lead nowhere."""

    public_ip: str | None = None
    allocation_id: str | None = None
    network_border_group: Annotated[str | None, Ignored("there is one region")] = None


class DescribeAddresses(Described):
    """The project's addresses."""

    public_ip: tuple[str, ...] = ()
    allocation_id: tuple[str, ...] = ()


class Allocated(NamedTuple):
    public_ip: str
    domain: str
    allocation_id: Annotated[str, Since(GROUP_IDS)]
    public_ipv4_pool: str


class Associated(NamedTuple):
    return_: bool
    association_id: Annotated[str, Since(GROUP_IDS)]


class Address(NamedTuple):
    public_ip: str
    instance_id: str
    domain: Annotated[str, Since(GROUP_IDS)]
    allocation_id: Annotated[str, Since(GROUP_IDS)]
    association_id: Annotated[str | None, Since(GROUP_IDS)]
    network_interface_id: Annotated[str | None, Since(GROUP_IDS)]
    network_interface_owner_id: Annotated[str | None, Since(GROUP_IDS)]
    private_ip_address: Annotated[str | None, Since(GROUP_IDS)]
    tag_set: TagSet
    public_ipv4_pool: str


class Addresses(NamedTuple):
    addresses_set: tuple[Address, ...]


async def allocate_address(ask: Ask, request: AllocateAddress) -> Allocated:
    noted = tags.specified(request.tag_specification, "elastic-ip")
    wanted = finding.ip_address("Address", request.address) if request.address else None
    made = await ask.change(messages.AllocateFloatingIp(pool=request.public_ipv4_pool, address=wanted))
    if noted:
        await ask.change(SetTags(targets=(_target(made),), tags=noted))
    return Allocated(str(made.address), request.domain, ids.of_address(ids.ALLOCATION, made.address), made.pool)


async def associate_address(ask: Ask, request: AssociateAddress) -> Associated:
    found = await _find(ask, request.public_ip, request.allocation_id)
    instance, fixed = await _end(ask, request)
    if not any(nic.address for nic in instance.nics):
        name, state = ids.INSTANCE.id(instance.number), states.of(instance).name
        raise Refusal("InvalidInstanceID", f"The {state} instance '{name}' is not in a valid state for this operation.")
    await ask.change(
        messages.AssociateFloatingIp(
            address=found.address,
            instance=instance.id,
            fixed=fixed,
            reassociate=request.allow_reassociation or request.allocation_id is None,
        )
    )
    return Associated(True, ids.of_address(ids.ASSOCIATION, found.address))


async def _end(ask: Ask, request: AssociateAddress) -> tuple[Instance, IPv4Address | None]:
    """Where it shall lead: an instance, or one of its NICs."""
    fixed = finding.ip_address("PrivateIpAddress", request.private_ip_address) if request.private_ip_address else None
    if (request.instance_id is None) == (request.network_interface_id is None):
        raise Refusal("MissingParameter", "Either instance ID or network interface ID must be specified")
    if request.instance_id is not None:
        (instance,) = await finding.instances(ask, [request.instance_id])
        return instance, fixed
    wanted = request.network_interface_id or ""
    ids.INTERFACE.number(wanted)
    for instance in await finding.instances(ask, ()):
        for nic in instance.nics:
            if ids.of_interface(nic.mac) == wanted:
                return instance, fixed or nic.address
    raise ids.INTERFACE.not_found(wanted)


async def disassociate_address(ask: Ask, request: DisassociateAddress) -> Done:
    found = await _find(ask, request.public_ip, request.association_id, kind=ids.ASSOCIATION)
    if found.instance_id is None and request.association_id is not None:
        raise ids.ASSOCIATION.not_found(request.association_id)
    await ask.change(messages.DisassociateFloatingIp(address=found.address))
    return Done()


async def release_address(ask: Ask, request: ReleaseAddress) -> Done:
    found = await _find(ask, request.public_ip, request.allocation_id)
    if request.allocation_id is None and found.instance_id is not None:
        await ask.change(messages.DisassociateFloatingIp(address=found.address))
    await ask.change(messages.ReleaseFloatingIp(address=found.address))
    await ask.change(RemoveTags(targets=(_target(found),)))
    return Done()


async def find_addresses(ask: Ask, request: Any) -> Sequence[Address]:
    held = await ask.look(messages.ListFloatingIps())
    wanted = {
        *(_named(held, public_ip=each).address for each in request.public_ip),
        *(_named(held, number=ids.ALLOCATION.number(each), name=each).address for each in request.allocation_id),
    }
    noted = await tags.of(ask, Tagged.FLOATING_IP)
    instances = {each.id: each for each in await finding.instances(ask, ())}
    return [
        _address(each, instances.get(each.instance_id or ""), noted.get(tagged.address_target(each), {}))
        for each in held
        if not wanted or each.address in wanted
    ]


def _address(held: FloatingIp, instance: Instance | None, noted: dict[str, str]) -> Address:
    nic = next((nic for nic in instance.nics if nic.address == held.fixed), None) if instance else None
    return Address(
        public_ip=str(held.address),
        instance_id=ids.INSTANCE.id(instance.number) if instance else "",
        domain=VPC,
        allocation_id=ids.of_address(ids.ALLOCATION, held.address),
        association_id=ids.of_address(ids.ASSOCIATION, held.address) if held.instance_id else None,
        network_interface_id=ids.of_interface(nic.mac) if nic else None,
        network_interface_owner_id=held.project_id if nic else None,
        private_ip_address=str(held.fixed) if held.fixed else None,
        tag_set=tag_set(noted),
        public_ipv4_pool=held.pool,
    )


async def _find(ask: Ask, public_ip: str | None, name: str | None, *, kind: ids.Kind = ids.ALLOCATION) -> FloatingIp:
    held = await ask.look(messages.ListFloatingIps())
    if (public_ip is None) == (name is None):
        raise Refusal("MissingParameter", "Either public IP or an ID must be specified, and not both")
    if public_ip is not None:
        return _named(held, public_ip=public_ip)
    return _named(held, number=kind.number(name or ""), name=name or "", kind=kind)


def _named(
    held: Sequence[FloatingIp],
    *,
    public_ip: str | None = None,
    number: int | None = None,
    name: str = "",
    kind: ids.Kind = ids.ALLOCATION,
) -> FloatingIp:
    if public_ip is not None:
        number = int(finding.ip_address("PublicIp", public_ip))
    for each in held:
        if int(each.address) == number:
            return each
    if public_ip is not None:
        raise Refusal("InvalidAddress.NotFound", f"Address '{public_ip}' not found.")
    raise kind.not_found(name)


def _target(held: FloatingIp) -> Target:
    return Target(kind=Tagged.FLOATING_IP, id=tagged.address_target(held))


OPERATIONS = (
    Operation(
        AllocateAddress,
        Allocated,
        allocate_address,
        {
            QuotaExceeded: "AddressLimitExceeded",
            NotFound: "InvalidPublicIpv4Pool.NotFound",
            BadRequest: "InvalidAddress.NotFound",
            (Conflict, "pool"): "InsufficientAddressCapacity",
            Conflict: "InvalidAddress.InUse",
        },
    ),
    Operation(
        AssociateAddress,
        Associated,
        associate_address,
        {Conflict: "Resource.AlreadyAssociated", BadRequest: "InvalidParameterValue"},
    ),
    Operation(DisassociateAddress, Done, disassociate_address),
    Operation(ReleaseAddress, Done, release_address, {Conflict: "InvalidIPAddress.InUse"}),
    Listing(
        DescribeAddresses,
        Addresses,
        find_addresses,
        {
            **plain(["allocation_id", "association_id", "instance_id", "network_interface_id", "private_ip_address"]),
            **plain(["public_ip", "domain", "network_interface_owner_id"]),
            **TAG_FILTERS,
        },
        ("public_ip",),
    ).operation(),
)
