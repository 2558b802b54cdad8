"""Images: what can be launched, and the kernels and ramdisks that belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from launcher.images import CatalogueImage, ImageState
from launcher.messages.images import ListImages
from launcher.services.api.ec2 import finding, ids, tags
from launcher.services.api.ec2.instance_shapes import REASONS, ROOT
from launcher.services.api.ec2.operation import TAG_FILTERS, Ask, Listing, Paged, plain
from launcher.services.api.ec2.query import Ignored
from launcher.services.api.ec2.shapes import GROUP_IDS, TAGS, TagSet, tag_set
from launcher.services.api.ec2.xml import Since
from launcher.tagging import Tagged

STATES = {ImageState.ACTIVE: "available", ImageState.ERROR: "failed"}
"""In EC2's words; every other one is pending."""


class DescribeImages(Paged):
    """Images by id, by name, by owner or by who may launch them."""

    image_id: tuple[str, ...] = ()
    owner: tuple[str, ...] = ()
    executable_by: tuple[str, ...] = ()
    include_deprecated: Annotated[bool, Ignored("no image is deprecated")] = False
    include_disabled: Annotated[bool, Ignored("no image is disabled")] = False


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
    )


IMAGE_FILTERS = {
    **plain(["architecture", "description", "hypervisor", "image_id", "image_type", "is_public", "kernel_id", "name"]),
    **plain(["ramdisk_id", "root_device_name", "root_device_type", "virtualization_type"]),
    "owner-id": "image_owner_id",
    "state": "image_state",
    "manifest-location": "image_location",
    **TAG_FILTERS,
}
OPERATIONS = (
    Listing(DescribeImages, Images, find_images, IMAGE_FILTERS, ("image_id",), named=("image_id",)).operation(),
)
