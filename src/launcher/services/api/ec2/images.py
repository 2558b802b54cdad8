"""Images: what can be launched, and the kernels and ramdisks that belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from launcher.errors import Conflict, NotFound, QuotaExceeded
from launcher.images import CatalogueImage, ImageState
from launcher.messages import images as messages
from launcher.messages.images import ListImages
from launcher.messages.tags import RemoveTags, SetTags
from launcher.models import Firmware
from launcher.services.api.ec2 import finding, ids, tags
from launcher.services.api.ec2.instance_shapes import REASONS, ROOT
from launcher.services.api.ec2.operation import TAG_FILTERS, Ask, Listing, Operation, Paged, plain
from launcher.services.api.ec2.query import Ignored, Refused, Request
from launcher.services.api.ec2.refusals import Names, Refusal
from launcher.services.api.ec2.shapes import GROUP_IDS, TAGS, TagSet, moment, tag_set
from launcher.services.api.ec2.states import Reason
from launcher.services.api.ec2.tags import TagSpecification
from launcher.services.api.ec2.xml import Done, Since
from launcher.tagging import Tagged, Target

MODES = {Firmware.BIOS: "legacy-bios", Firmware.UEFI: "uefi"}
FIRMWARES = {mode: firmware for firmware, mode in MODES.items()}
ARCHITECTURES = {"i386": "i686", "arm64": "aarch64"}
"""What EC2 calls otherwise."""
STATES = {ImageState.ACTIVE: "available", ImageState.ERROR: "failed"}
"""In EC2's words; every other one is pending."""


class DescribeImages(Paged):
    """Images by id, by name, by owner or by who may launch them."""

    image_id: tuple[str, ...] = ()
    owner: tuple[str, ...] = ()
    executable_by: tuple[str, ...] = ()
    include_deprecated: Annotated[bool, Ignored("no image is deprecated")] = False
    include_disabled: Annotated[bool, Ignored("no image is disabled")] = False


class RegisterImage(Request):
    """Begin the import of an image from a URL. A file with its checksum must lie beside it there."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    image_location: Annotated[str, Field(description="an http or https URL, or `known:NAME`")]
    description: Annotated[str, Field(max_length=255)] = ""
    architecture: Literal["x86_64", "i386", "arm64"] = "x86_64"
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    boot_mode: Literal["legacy-bios", "uefi"] = "legacy-bios"
    tag_specification: tuple[TagSpecification, ...] = ()
    root_device_name: Annotated[str | None, Ignored(f"it is {ROOT}")] = None
    virtualization_type: Annotated[str | None, Ignored("there is one kind")] = None
    ena_support: Annotated[bool | None, Ignored("there is one kind of NIC")] = None
    sriov_net_support: Annotated[str | None, Ignored("there is one kind of NIC")] = None


class CreateImage(Request):
    """Make an image of an instance's root disk as it is now; the instance runs on."""

    instance_id: str
    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: Annotated[str, Field(max_length=255)] = ""
    no_reboot: Annotated[bool, Ignored("it is never rebooted for that")] = False
    tag_specification: tuple[TagSpecification, ...] = ()


class DeregisterImage(Request):
    """Nobody can launch it any more. Instances that run go on."""

    image_id: str


class CopyImage(Request):
    """The same content as an image of one's own; the bytes are kept once."""

    source_image_id: str
    source_region: str
    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: Annotated[str, Field(max_length=255)] = ""
    client_token: Annotated[str | None, Field(max_length=64, pattern=r"^[ -~]+$")] = None
    copy_image_tags: bool = False
    tag_specification: tuple[TagSpecification, ...] = ()
    encrypted: Annotated[bool, Refused("images are not encrypted", harmless="false")] = False
    kms_key_id: Annotated[str | None, Refused("images are not encrypted")] = None


class ImageItem(NamedTuple):
    image_id: str
    image_location: str
    image_state: str
    image_owner_id: str
    is_public: bool
    product_codes: tuple[str, ...]
    architecture: str
    image_type: str
    kernel_id: str | None
    ramdisk_id: str | None
    name: Annotated[str, Since(REASONS)]
    description: Annotated[str, Since(REASONS)]
    root_device_type: Annotated[str, Since(REASONS)]
    root_device_name: Annotated[str, Since(REASONS)]
    block_device_mapping: Annotated[tuple[str, ...], Since(REASONS)]
    virtualization_type: Annotated[str, Since(TAGS)]
    tag_set: TagSet
    hypervisor: Annotated[str, Since(GROUP_IDS)]
    creation_date: Annotated[str, Since("2014-02-01")]
    state_reason: Annotated[Reason | None, Since(TAGS)]
    boot_mode: Annotated[str, Since("2016-11-15")]


class Made(NamedTuple):
    image_id: str


class Images(NamedTuple):
    images_set: tuple[ImageItem, ...]
    next_token: str | None = None


async def find_images(ask: Ask, request: DescribeImages) -> Sequence[ImageItem]:
    known = await ask.look(ListImages())
    if request.image_id:
        known = list({image.id: image for image in (finding.image(known, each) for each in request.image_id)}.values())
    noted = await tags.of(ask, Tagged.IMAGE)
    found = [_item(image, noted.get(image.id, {})) for image in known if _launchable(image, request.executable_by, ask)]
    owners = {ask.ctx.project_id if each == "self" else each for each in request.owner}
    return [each for each in found if not owners or each.image_owner_id in owners]


def _launchable(image: CatalogueImage, by: Sequence[str], ask: Ask) -> bool:
    """By everybody (`all`), by whoever asks (`self`), by a project."""
    projects = {ask.ctx.project_id if each == "self" else each for each in by}
    return not by or image.public or bool(projects & {image.project_id, *image.projects})


def _item(image: CatalogueImage, noted: dict[str, str]) -> ImageItem:
    return ImageItem(
        image_id=finding.image_id(image),
        image_location=image.name,
        image_state=STATES.get(image.state, "pending"),
        image_owner_id=image.project_id,
        is_public=image.public,
        product_codes=(),
        architecture=image.architecture,
        image_type=image.kind,
        kernel_id=ids.of_image("aki", image.kernel_id) if image.kernel_id else None,
        ramdisk_id=ids.of_image("ari", image.ramdisk_id) if image.ramdisk_id else None,
        name=image.name,
        description=image.description,
        root_device_type="instance-store",
        root_device_name=ROOT,
        block_device_mapping=(),
        virtualization_type="hvm",
        tag_set=tag_set(noted),
        hypervisor="xen",
        creation_date=moment(image.created_ms),
        state_reason=Reason("Client.InvalidImage", image.reason) if image.state is ImageState.ERROR else None,
        boot_mode=MODES[image.firmware],
    )


async def register_image(ask: Ask, request: RegisterImage) -> Made:
    known = await ask.look(ListImages())
    noted = tags.specified(request.tag_specification, "image", "snapshot")
    _check_name(request.name)
    made = await ask.change(
        messages.CreateImage(
            request=messages.ImageRequest(
                name=request.name,
                source=request.image_location,
                description=request.description,
                architecture=ARCHITECTURES.get(request.architecture, request.architecture),
                kernel_id=finding.image(known, request.kernel_id).id if request.kernel_id else None,
                ramdisk_id=finding.image(known, request.ramdisk_id).id if request.ramdisk_id else None,
                firmware=FIRMWARES[request.boot_mode],
            )
        )
    )
    return await _noted(ask, made, noted)


async def create_image(ask: Ask, request: CreateImage) -> Made:
    (instance,) = await finding.instances(ask, [request.instance_id])
    noted = tags.specified(request.tag_specification, "image", "snapshot")
    _check_name(request.name)
    told = {"name": request.name, "description": request.description}
    made = await ask.change(messages.CreateImageOf(instance_id=instance.id, **told))
    return await _noted(ask, made, noted)


async def deregister_image(ask: Ask, request: DeregisterImage) -> Done:
    image = await finding.one_image(ask, request.image_id)
    await ask.change(messages.DeleteImage(image=image.id))
    await ask.change(RemoveTags(targets=(Target(kind=Tagged.IMAGE, id=image.id),)))
    return Done()


async def copy_image(ask: Ask, request: CopyImage) -> Made:
    if request.source_region != ask.region:
        raise Refusal("InvalidParameterValue", f"Invalid region provided: {request.source_region}")
    source = await finding.one_image(ask, request.source_image_id)
    noted = tags.specified(request.tag_specification, "image", "snapshot")
    kept = (await tags.of(ask, Tagged.IMAGE)).get(source.id, {}) if request.copy_image_tags else {}
    _check_name(request.name)
    told = {"description": request.description, "idempotency_key": request.client_token}
    made = await ask.change(messages.CopyImage(image=source.id, name=request.name, **told))
    return await _noted(ask, made, {**kept, **noted})


def _check_name(name: str) -> None:
    if not finding.is_name(name):
        raise Refusal("InvalidAMIName.Malformed", f"Letters, digits, spaces and ._:@- are understood: {name}")


async def _noted(ask: Ask, made: CatalogueImage, noted: dict[str, str]) -> Made:
    if noted:
        await ask.change(SetTags(targets=(Target(kind=Tagged.IMAGE, id=made.id),), tags=noted))
    return Made(finding.image_id(made))


IMAGE_FILTERS = {
    **plain(["architecture", "description", "hypervisor", "image_id", "image_type", "is_public", "kernel_id", "name"]),
    **plain(["ramdisk_id", "root_device_name", "root_device_type", "virtualization_type"]),
    **plain(["creation_date", "boot_mode"]),
    "owner-id": "image_owner_id",
    "state-reason-code": "state_reason.code",
    "state-reason-message": "state_reason.message",
    "state": "image_state",
    "manifest-location": "image_location",
    **TAG_FILTERS,
}
MAKING: Names = {
    QuotaExceeded: "ResourceLimitExceeded",
    (Conflict, "Idempotency-Key"): "IdempotentParameterMismatch",
    Conflict: "InvalidAMIID.Unavailable",
    NotFound: ids.IMAGE.unknown,
}
OPERATIONS = (
    Operation(RegisterImage, Made, register_image, {**MAKING, (NotFound, "source"): "InvalidParameterValue"}),
    Operation(
        CreateImage, Made, create_image, {QuotaExceeded: "ResourceLimitExceeded", Conflict: "IncorrectInstanceState"}
    ),
    Operation(DeregisterImage, Done, deregister_image, {Conflict: "DependencyViolation", NotFound: ids.IMAGE.unknown}),
    Operation(CopyImage, Made, copy_image, MAKING),
    Listing(DescribeImages, Images, find_images, IMAGE_FILTERS, ("image_id",), named=("image_id",)).operation(),
)
