"""One property of an image at a time: who may launch it, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from launcher.errors import NotFound
from launcher.images import CatalogueImage
from launcher.messages.images import ImageChanges, UpdateImage
from launcher.services.api.ec2 import finding, ids
from launcher.services.api.ec2.images import MODES
from launcher.services.api.ec2.operation import Ask, Operation
from launcher.services.api.ec2.query import Parameters, Refused, Request
from launcher.services.api.ec2.refusals import Names, Refusal
from launcher.services.api.ec2.xml import Done

EVERYBODY = "all"
Attribute = Literal[
    "description", "kernel", "ramdisk", "launchPermission", "productCodes", "blockDeviceMapping", "bootMode"
]


class DescribeImageAttribute(Request):
    """Tell one property of an image; its launch permissions to its owner only."""

    image_id: str
    attribute: Annotated[Attribute, Field(description="its name")]


class ResetImageAttribute(Request):
    """Nobody else may launch it."""

    image_id: str
    attribute: Literal["launchPermission"]


class PermissionAsked(Parameters):
    user_id: Annotated[str | None, Field(description="a project, by name or id")] = None
    group: Literal["all"] | None = None


class Permissions(Parameters):
    add: tuple[PermissionAsked, ...] = ()
    remove: tuple[PermissionAsked, ...] = ()


class Text(Parameters):
    value: str


class ModifyImageAttribute(Request):
    """Change who may launch an image, or what is said of it. For everybody it is made by an admin."""

    image_id: str
    attribute: Literal["launchPermission", "description"] | None = None
    operation_type: Literal["add", "remove"] | None = None
    user_id: tuple[str, ...] = ()
    user_group: tuple[Literal["all"], ...] = ()
    launch_permission: Permissions = Permissions()
    description: Text | None = None
    value: str | None = None
    product_code: Annotated[tuple[str, ...], Refused("there are no product codes")] = ()


class Told(NamedTuple):
    value: str | None


class Permission(NamedTuple):
    """Of a project, or of everybody."""

    user_id: str | None
    group: str | None


class Attributes(NamedTuple):
    """Of which one is told."""

    image_id: str
    launch_permission: tuple[Permission, ...] | None = None
    description: Told | None = None
    kernel: Told | None = None
    ramdisk: Told | None = None
    block_device_mapping: tuple[str, ...] | None = None
    product_codes: tuple[str, ...] | None = None
    boot_mode: Told | None = None


async def describe_image_attribute(ask: Ask, request: DescribeImageAttribute) -> Attributes:
    image = await finding.one_image(ask, request.image_id)
    if request.attribute == "launchPermission":
        _check_own(ask, image)
    known: dict[str, dict[str, Any]] = {
        "description": {"description": Told(image.description)},
        "kernel": {"kernel": Told(ids.of_image("aki", image.kernel_id) if image.kernel_id else None)},
        "ramdisk": {"ramdisk": Told(ids.of_image("ari", image.ramdisk_id) if image.ramdisk_id else None)},
        "launchPermission": {"launch_permission": _permissions(image)},
        "blockDeviceMapping": {"block_device_mapping": ()},
        "productCodes": {"product_codes": ()},
        "bootMode": {"boot_mode": Told(MODES[image.firmware])},
    }
    return Attributes(finding.image_id(image), **known[request.attribute])


async def modify_image_attribute(ask: Ask, request: ModifyImageAttribute) -> Done:
    image = await finding.one_image(ask, request.image_id)
    said = request.value if request.attribute == "description" else None
    if request.description is not None:
        said = request.description.value
    given = [PermissionAsked(user_id=each) for each in request.user_id]
    given += [PermissionAsked(group=each) for each in request.user_group]
    if given and (request.attribute == "description" or request.operation_type is None):
        raise Refusal("InvalidParameterCombination", "UserId and UserGroup go with launchPermission and OperationType")
    adding = request.operation_type == "add"
    more = (*request.launch_permission.add, *(given if adding else ()))
    less = (*request.launch_permission.remove, *(() if adding else given))
    if said is None and not more and not less:
        raise Refusal("InvalidParameterCombination", "No attributes specified.")
    changes = ImageChanges(
        description=said,
        public=True if _everybody(more) else False if _everybody(less) else None,
        projects_more=_projects(more),
        projects_less=_projects(less),
    )
    await ask.change(UpdateImage(image=image.id, changes=changes))
    return Done()


async def reset_image_attribute(ask: Ask, request: ResetImageAttribute) -> Done:
    image = await finding.one_image(ask, request.image_id)
    await ask.change(UpdateImage(image=image.id, changes=ImageChanges(projects=(), public=False)))
    return Done()


def _permissions(image: CatalogueImage) -> tuple[Permission, ...]:
    everybody = (Permission(None, EVERYBODY),) if image.public else ()
    return (*everybody, *(Permission(each, None) for each in image.projects))


def _everybody(those: Iterable[PermissionAsked]) -> bool:
    return any(each.group for each in those)


def _projects(those: Iterable[PermissionAsked]) -> tuple[str, ...]:
    return tuple(each.user_id for each in those if each.user_id)


def _check_own(ask: Ask, image: CatalogueImage) -> None:
    if image.project_id != ask.ctx.project_id:
        raise Refusal("UnauthorizedOperation", f"Not authorized for image: {finding.image_id(image)}")


NAMES: Names = {(NotFound, "project"): "InvalidAMIAttributeItemValue", NotFound: ids.IMAGE.unknown}
OPERATIONS = (
    Operation(DescribeImageAttribute, Attributes, describe_image_attribute, changes=False),
    Operation(ModifyImageAttribute, Done, modify_image_attribute, NAMES),
    Operation(ResetImageAttribute, Done, reset_image_attribute, NAMES),
)
