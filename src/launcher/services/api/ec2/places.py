"""Regions, zones, the account, instance types: what the settings say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from launcher.messages import catalogue
from launcher.models import Flavor
from launcher.services.api.ec2.operation import Ask, Described, Listing, Operation, Paged, plain
from launcher.services.api.ec2.query import Ignored, Request
from launcher.services.api.ec2.refusals import Refusal
from launcher.services.api.ec2.xml import Named


class DescribeRegions(Described):
    """The one region."""

    region_name: tuple[str, ...] = ()
    all_regions: Annotated[bool, Ignored("there is one")] = False


class DescribeAvailabilityZones(Described):
    """The zones of the hosts that have reported."""

    zone_name: tuple[str, ...] = ()
    zone_id: tuple[str, ...] = ()
    all_availability_zones: Annotated[bool, Ignored("all are told")] = False


class DescribeAccountAttributes(Request):
    """What the account can do. `EC2` among the platforms, without `VPC`: networks are made by other ways."""

    attribute_name: tuple[str, ...] = ()


class DescribeInstanceTypes(Paged):
    """The flavors."""

    instance_type: Annotated[tuple[str, ...], Field(max_length=100)] = ()


class Region(NamedTuple):
    region_name: str
    region_endpoint: str
    opt_in_status: str = "opt-in-not-required"


class Regions(NamedTuple):
    region_info: tuple[Region, ...]


class Zone(NamedTuple):
    zone_name: str
    zone_state: str
    region_name: str
    message_set: tuple[str, ...]
    zone_id: str
    zone_type: str = "availability-zone"
    group_name: str = ""
    opt_in_status: str = "opt-in-not-required"


class Zones(NamedTuple):
    availability_zone_info: tuple[Zone, ...]


class AttributeValue(NamedTuple):
    attribute_value: str


class Attribute(NamedTuple):
    attribute_name: str
    attribute_value_set: tuple[AttributeValue, ...]


class Attributes(NamedTuple):
    account_attribute_set: tuple[Attribute, ...]


class Processor(NamedTuple):
    supported_architectures: tuple[str, ...] = ("x86_64",)


class Cores(NamedTuple):
    default_v_cpus: Annotated[int, Named("defaultVCpus")]
    default_cores: int
    default_threads_per_core: int = 1


class Memory(NamedTuple):
    size_in_mib: Annotated[int, Named("sizeInMiB")]


class Storage(NamedTuple):
    total_size_in_gb: Annotated[int, Named("totalSizeInGB")]


class Type(NamedTuple):
    instance_type: str
    current_generation: bool
    free_tier_eligible: bool
    supported_usage_classes: tuple[str, ...]
    supported_root_device_types: tuple[str, ...]
    supported_virtualization_types: tuple[str, ...]
    bare_metal: bool
    hypervisor: str
    processor_info: Processor
    v_cpu_info: Annotated[Cores, Named("vCpuInfo")]
    memory_info: Memory
    instance_storage_supported: bool
    instance_storage_info: Storage | None
    burstable_performance_supported: bool


class Types(NamedTuple):
    instance_type_set: tuple[Type, ...]
    next_token: str | None = None


async def find_regions(ask: Ask, request: Any) -> Sequence[Region]:
    if unknown := set(request.region_name) - {ask.region}:
        raise Refusal("InvalidParameterValue", f"Invalid region provided: {min(unknown)}")
    return [Region(ask.region, ask.endpoint)]


async def find_zones(ask: Ask, request: Any) -> Sequence[Zone]:
    names = sorted({host.availability_zone for host in await ask.look(catalogue.ListHosts())})
    wanted = {*request.zone_name, *request.zone_id}
    if unknown := wanted - set(names):
        raise Refusal("InvalidParameterValue", f"Invalid availability zone: [{min(unknown)}]")
    return [
        Zone(each, "available", ask.region, (), each, group_name=ask.region)
        for each in names
        if each in wanted or not wanted
    ]


async def describe_account_attributes(ask: Ask, request: DescribeAccountAttributes) -> Attributes:
    known = {"supported-platforms": "EC2", "default-vpc": "none"}
    for each in request.attribute_name:
        if each not in known:
            raise Refusal("InvalidParameterValue", f"Invalid attribute: {each}")
    return Attributes(
        tuple(
            Attribute(name, (AttributeValue(value),))
            for name, value in known.items()
            if not request.attribute_name or name in request.attribute_name
        )
    )


async def find_types(ask: Ask, request: Any) -> Sequence[Type]:
    flavors = await ask.look(catalogue.ListFlavors())
    if unknown := [each for each in request.instance_type if each not in {flavor.name for flavor in flavors}]:
        raise Refusal(
            "InvalidInstanceType", f"The following supplied instance types do not exist: [{', '.join(unknown)}]"
        )
    return [_type(each) for each in flavors if not request.instance_type or each.name in request.instance_type]


def _type(flavor: Flavor) -> Type:
    return Type(
        instance_type=flavor.name,
        current_generation=True,
        free_tier_eligible=False,
        supported_usage_classes=("on-demand",),
        supported_root_device_types=("instance-store",),
        supported_virtualization_types=("hvm",),
        bare_metal=False,
        hypervisor="xen",
        processor_info=Processor(),
        v_cpu_info=Cores(flavor.vcpus, flavor.vcpus),
        memory_info=Memory(flavor.memory_mb),
        instance_storage_supported=flavor.root_gb > 0,
        instance_storage_info=Storage(flavor.root_gb) if flavor.root_gb else None,
        burstable_performance_supported=False,
    )


OPERATIONS = (
    Listing(
        DescribeRegions,
        Regions,
        find_regions,
        {"region-name": "region_name", "endpoint": "region_endpoint"},
        ("region_name",),
    ).operation(),
    Listing(
        DescribeAvailabilityZones,
        Zones,
        find_zones,
        {**plain(["region_name", "zone_name", "zone_id", "zone_type", "group_name"]), "state": "zone_state"},
        ("zone_name",),
    ).operation(),
    Operation(DescribeAccountAttributes, Attributes, describe_account_attributes, changes=False),
    Listing(
        DescribeInstanceTypes,
        Types,
        find_types,
        {
            **plain(["instance_type", "current_generation", "bare_metal", "hypervisor", "instance_storage_supported"]),
            "memory-info.size-in-mib": "memory_info.size_in_mib",
            "vcpu-info.default-vcpus": "v_cpu_info.default_v_cpus",
            "processor-info.supported-architecture": "processor_info.supported_architectures",
            "supported-root-device-type": "supported_root_device_types",
            "supported-virtualization-type": "supported_virtualization_types",
        },
        ("instance_type",),
        named=("instance_type",),
    ).operation(),
)
