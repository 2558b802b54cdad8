"""What an instance is told with: the names and ids of the things around it, asked for once a request."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from launcher.floating import FloatingIp
from launcher.groups import Group
from launcher.images import CatalogueImage
from launcher.messages import catalogue, floating_ips, network, security_groups
from launcher.messages.images import ListImages
from launcher.messages.volumes import ListVolumes
from launcher.models import HostState, Instance
from launcher.networks import Network
from launcher.services.api.ec2 import ids
from launcher.services.api.ec2.operation import Ask
from launcher.services.api.ec2.shapes import GROUP_IDS, GroupName
from launcher.volumes import Volume

DEFAULT_ZONE = "nova"


def zone(thing: Instance | Volume, hosts: Mapping[str, HostState]) -> str:
    """Its host's, or the one asked for while it has none."""
    host = hosts.get(thing.host or "")
    return (host.availability_zone if host else thing.availability_zone) or DEFAULT_ZONE


@dataclass(frozen=True)
class World:
    """As the asking project sees it."""

    hosts: Mapping[str, HostState]
    images: Mapping[str, CatalogueImage]
    networks: Mapping[str, Network]
    groups: Mapping[str, Group]
    floating: Mapping[str, Mapping[IPv4Address | None, FloatingIp]]
    volumes: Mapping[str, Sequence[Volume]]
    old: bool

    @classmethod
    async def look(cls, ask: Ask) -> World:
        hosts, images, networks, groups, addresses, volumes = await asyncio.gather(
            ask.look(catalogue.ListHosts()),
            ask.look(ListImages()),
            ask.look(network.ListNetworks()),
            ask.look(security_groups.ListSecurityGroups()),
            ask.look(floating_ips.ListFloatingIps()),
            ask.look(ListVolumes()),
        )
        floating: defaultdict[str, dict[IPv4Address | None, FloatingIp]] = defaultdict(dict)
        for each in addresses:
            floating[each.instance_id or ""][each.fixed] = each
        attached: defaultdict[str, list[Volume]] = defaultdict(list)
        for volume in volumes:
            if volume.attachment:
                attached[volume.attachment.instance_id].append(volume)
        mine = sorted(networks, key=lambda each: each.project_id == ask.ctx.project_id)
        return cls(
            hosts={host.name: host for host in hosts},
            images={image.id: image for image in images},
            networks={each.name: each for each in mine},
            groups={group.name: group for group in groups},
            floating=floating,
            volumes=attached,
            old=ask.version < GROUP_IDS,
        )

    def zone(self, instance: Instance) -> str:
        return zone(instance, self.hosts)

    def group_names(self, names: Sequence[str]) -> tuple[GroupName, ...]:
        return tuple(GroupName(name if self.old else self._group_id(name), name) for name in names)

    def _group_id(self, name: str) -> str:
        group = self.groups.get(name)
        return ids.GROUP.id(group.id) if group else name

    def kernel(self, instance: Instance) -> tuple[str | None, str | None]:
        """The ids of its kernel and ramdisk."""
        image = self.images.get(instance.image_id)
        kernel, ramdisk = (image.kernel_id, image.ramdisk_id) if image else (None, None)
        return (
            ids.of_image("aki", kernel) if kernel else None,
            ids.of_image("ari", ramdisk) if ramdisk else None,
        )

    def public(self, instance: Instance, fixed: IPv4Address | None) -> IPv4Address | None:
        """The floating IP that leads to this address of it."""
        those = self.floating.get(instance.id)
        found = those.get(fixed) if those and fixed else None
        return found.address if found else None
