"""Which things have which ids in EC2's words: for tags, which are put on ids of any kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from launcher.floating import FloatingIp
from launcher.messages import floating_ips, key_pairs, network, security_groups, volumes
from launcher.messages.images import ListImages
from launcher.models import KeyPair
from launcher.services.api.ec2 import finding, ids
from launcher.services.api.ec2.operation import Ask
from launcher.services.api.ec2.refusals import Refusal
from launcher.tagging import Tagged, Target

TYPES = {
    Tagged.INSTANCE: "instance",
    Tagged.IMAGE: "image",
    Tagged.VOLUME: "volume",
    Tagged.SNAPSHOT: "snapshot",
    Tagged.KEY_PAIR: "key-pair",
    Tagged.SECURITY_GROUP: "security-group",
    Tagged.FLOATING_IP: "elastic-ip",
    Tagged.NETWORK: "vpc",
}
Pairs = Sequence[tuple[str, str]]
"""A thing's id here, and in EC2's words."""


async def _instances(ask: Ask) -> Pairs:
    return [(each.id, ids.INSTANCE.id(each.number)) for each in await finding.instances(ask, ())]


async def _images(ask: Ask) -> Pairs:
    return [(each.id, finding.image_id(each)) for each in await ask.look(ListImages())]


async def _key_pairs(ask: Ask) -> Pairs:
    found = await ask.look(key_pairs.ListKeyPairs())
    return [(key_target(each), ids.of_key(ask.ctx.project_id, each.name, each.created_ms)) for each in found]


async def _groups(ask: Ask) -> Pairs:
    return [(str(each.id), ids.GROUP.id(each.id)) for each in await ask.look(security_groups.ListSecurityGroups())]


async def _addresses(ask: Ask) -> Pairs:
    found = await ask.look(floating_ips.ListFloatingIps())
    return [(address_target(each), ids.of_address(ids.ALLOCATION, each.address)) for each in found]


async def _networks(ask: Ask) -> Pairs:
    return [(str(each.id), ids.VPC.id(each.id)) for each in await ask.look(network.ListNetworks())]


async def _volumes(ask: Ask) -> Pairs:
    return [(each.id, ids.VOLUME.id(each.number)) for each in await ask.look(volumes.ListVolumes())]


async def _snapshots(ask: Ask) -> Pairs:
    return [(each.id, ids.SNAPSHOT.id(each.number)) for each in await ask.look(volumes.ListSnapshots())]


FINDERS: Mapping[str, tuple[Tagged, Callable[[Ask], Awaitable[Pairs]], str]] = {
    "i": (Tagged.INSTANCE, _instances, ids.INSTANCE.unknown),
    **dict.fromkeys(("ami", "aki", "ari"), (Tagged.IMAGE, _images, ids.IMAGE.unknown)),
    "key": (Tagged.KEY_PAIR, _key_pairs, ids.KEY.unknown),
    "sg": (Tagged.SECURITY_GROUP, _groups, ids.GROUP.unknown),
    "eipalloc": (Tagged.FLOATING_IP, _addresses, ids.ALLOCATION.unknown),
    "vol": (Tagged.VOLUME, _volumes, ids.VOLUME.unknown),
    "snap": (Tagged.SNAPSHOT, _snapshots, ids.SNAPSHOT.unknown),
    "vpc": (Tagged.NETWORK, _networks, ids.VPC.unknown),
}


def key_target(pair: KeyPair) -> str:
    """A pair of the same name that is made later is another thing."""
    return f"{pair.name}/{pair.created_ms}"


def address_target(held: FloatingIp) -> str:
    """An address that is given back and held again is another thing."""
    return f"{held.address}/{held.allocated_ms}"


async def targets(ask: Ask, wanted: Sequence[str]) -> tuple[Target, ...]:
    """Raises Refusal for an id that is of no kind, or nobody's."""
    found: dict[str, Target] = {}
    for prefix in {each.partition("-")[0] for each in wanted}:
        if prefix not in FINDERS:
            bad = next(each for each in wanted if each.partition("-")[0] == prefix)
            raise Refusal("InvalidID", f"The ID '{bad}' is not valid")
        kind, find, _ = FINDERS[prefix]
        found |= {name: Target(kind=kind, id=here) for here, name in await find(ask)}
    for each in wanted:
        if each not in found:
            raise Refusal(FINDERS[each.partition("-")[0]][2], f"The ID '{each}' does not exist")
    return tuple(dict.fromkeys(found[each] for each in wanted))


async def names(ask: Ask) -> Mapping[tuple[Tagged, str], str]:
    """EC2's id of everything that is there."""
    kinds = {kind: find for kind, find, _ in FINDERS.values()}
    return {(kind, here): name for kind, find in kinds.items() for here, name in await find(ask)}
