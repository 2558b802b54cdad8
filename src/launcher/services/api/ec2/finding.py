"""What a client names, found: by EC2's id or by name. Raises Refusal with EC2's code for what is not there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from launcher.groups import Group
from launcher.images import CatalogueImage, ImageState
from launcher.messages.images import ListImages
from launcher.messages.instances import ListInstances, NicRequest
from launcher.messages.volumes import ListSnapshots, ListVolumes
from launcher.models import ImageKind, Instance, Name
from launcher.networks import Network
from launcher.services.api.ec2 import ids
from launcher.services.api.ec2.operation import Ask
from launcher.services.api.ec2.refusals import Refusal, bad_value
from launcher.volumes import Snapshot, Volume, VolumeStatus

Kept = TypeVar("Kept", Volume, Snapshot)
PAGE = 1000
VISIBLE = 3600 * 1000
"""Milliseconds for which a terminated instance is still described."""
NAME = TypeAdapter(Name)
PREFIXES = {ImageKind.MACHINE: "ami", ImageKind.KERNEL: "aki", ImageKind.RAMDISK: "ari"}


async def instances(ask: Ask, wanted: Sequence[str]) -> list[Instance]:
    """The project's, in order of creation, or those that are named, in the order of their names here."""
    numbers = tuple(dict.fromkeys(ids.INSTANCE.number(each) for each in wanted))
    found: list[Instance] = []
    marker: str | None = None
    while True:
        listing = ListInstances(limit=PAGE, marker=marker, numbers=numbers, deleted_after_ms=int(ask.now_ms) - VISIBLE)
        page = await ask.look(listing)
        found += page
        if len(page) < PAGE:
            break
        marker = page[-1].id
    known = {each.number: each for each in found}
    if unknown := [ids.INSTANCE.id(number) for number in numbers if number not in known]:
        raise ids.INSTANCE.not_found(*unknown)
    return [known[number] for number in numbers] if numbers else found


async def volumes(ask: Ask, wanted: Sequence[str]) -> list[Volume]:
    """The project's, or those that are named."""
    return _numbered(await ask.look(ListVolumes()), ids.VOLUME, wanted)


async def snapshots(ask: Ask, wanted: Sequence[str]) -> list[Snapshot]:
    """The project's, or those that are named; one that is being deleted is gone for whoever asks."""
    known = await ask.look(ListSnapshots())
    return _numbered([each for each in known if each.status is not VolumeStatus.DELETING], ids.SNAPSHOT, wanted)


def _numbered(found: list[Kept], kind: ids.Kind, wanted: Sequence[str]) -> list[Kept]:
    if not wanted:
        return found
    known = {kind.id(each.number): each for each in found}
    names = list(dict.fromkeys(kind.id(kind.number(each)) for each in wanted))
    if unknown := [each for each in names if each not in known]:
        raise kind.not_found(*unknown)
    return [known[each] for each in names]


def image_id(image: CatalogueImage) -> str:
    return ids.of_image(PREFIXES[image.kind], image.id)


def image(known: Iterable[CatalogueImage], wanted: str) -> CatalogueImage:
    """By id, or by a name such as `ami-tiny`; of several of one name the newest that can be used."""
    images = list(known)
    for found in (
        [each for each in images if image_id(each) == wanted],
        [each for each in images if each.name == wanted],
    ):
        if found:
            return sorted(found, key=lambda each: each.state is ImageState.ACTIVE)[-1]
    if not re.fullmatch(r"a[mkr]i-([0-9a-f]{8}|[0-9a-f]{17})", wanted):
        raise Refusal(ids.IMAGE.malformed, f'Invalid id: "{wanted}" (expecting "ami-...")')
    raise Refusal(ids.IMAGE.unknown, f"The image id '[{wanted}]' does not exist")


async def one_image(ask: Ask, wanted: str) -> CatalogueImage:
    """Among those that the project may use."""
    known = await ask.look(ListImages())
    return image(known, wanted)


def groups(known: Iterable[Group], names: Sequence[str], group_ids: Sequence[str]) -> tuple[int, ...]:
    """Their numbers, each once, in the order in which they are named."""
    those = list(known)
    found = [*(by_id(those, each).id for each in group_ids), *(by_name(those, each).id for each in names)]
    return tuple(dict.fromkeys(found))


def by_id(known: Iterable[Group], wanted: str) -> Group:
    number = ids.GROUP.number(wanted)
    found = next((group for group in known if group.id == number), None)
    if found is None:
        raise ids.GROUP.not_found(wanted)
    return found


def by_name(known: Iterable[Group], wanted: str) -> Group:
    """A reader of an old version sends what it takes for a name, and for an id, as the same."""
    found = next((group for group in known if group.name == wanted), None)
    if found is None:
        raise ids.GROUP.not_found(wanted)
    return found


def nics(known: Iterable[Network], subnet_id: str | None, address: str | None) -> tuple[NicRequest, ...]:
    """The NIC that is asked for; none leaves it to the launch."""
    if subnet_id is None:
        if address is not None:
            raise Refusal("InvalidParameterCombination", "PrivateIpAddress goes with a SubnetId")
        return ()
    number = ids.SUBNET.number(subnet_id)
    if number not in {each.id for each in known}:
        raise ids.SUBNET.not_found(subnet_id)
    return (NicRequest(network=str(number), address=ip_address("PrivateIpAddress", address) if address else None),)


def ip_address(name: str, text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except AddressValueError:
        raise bad_value(name, text, "It is an IPv4 address.") from None


def name_of(tags: Mapping[str, str]) -> str | None:
    """The tag Name is a thing's name here, too, if it can be one."""
    name = tags.get("Name", "")
    return name if is_name(name) else None


def is_name(text: str) -> bool:
    """Whether a thing here may be called so."""
    try:
        NAME.validate_python(text)
    except ValidationError:
        return False
    return True
