"""Every operation there is. A new one stands in the `OPERATIONS` of its noun's file."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.services.api.ec2 import (
    addresses,
    attributes,
    extending,
    groups,
    image_attributes,
    images,
    instances,
    key_pairs,
    life,
    modifying,
    networks,
    places,
    snapshots,
    tags,
    volumes,
)
from launcher.services.api.ec2.operation import Operation


def operations() -> Sequence[Operation]:
    """By noun."""
    machines = (instances, life, attributes, modifying, key_pairs)
    disks = (images, image_attributes, volumes, extending, snapshots)
    nouns = (*machines, *disks, groups, addresses, tags, networks, places)
    return [each for noun in nouns for each in noun.OPERATIONS]
