"""What instances leave on one host: found by asking every driver, removed by name. Reads no table, decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from launcher.auditing import NOBODY, Artefact, ArtefactKind, Look
from launcher.drivers.firewall.driver import FirewallDriver
from launcher.drivers.images.store import ImageStore
from launcher.drivers.network.driver import NetworkDriver, Tap
from launcher.drivers.virt.driver import Domain, VirtDriver
from launcher.drivers.volumes.driver import VolumeDriver
from launcher.models import InstanceRef

KINDS = frozenset(ArtefactKind) - {ArtefactKind.LEASE, ArtefactKind.DHCP, ArtefactKind.FLOATING, ArtefactKind.IMAGE}


class Artefacts:
    """Raises what the drivers raise; then nothing can be said of this host.

    `launcher` is our own identity: the domains of another one, and what bears their numbers, are not ours to judge.
    """

    def __init__(
        self,
        *,
        virt: VirtDriver,
        firewall: FirewallDriver,
        network: NetworkDriver,
        images: ImageStore,
        volumes: VolumeDriver,
        launcher: str,
    ) -> None:
        self.launcher, self.volumes = launcher, volumes
        self.virt, self.firewall, self.network, self.images = virt, firewall, network, images

    async def look(self, host: str) -> Look:
        domains, filters = await self.virt.list_domains(), await self.firewall.list_instances()
        others = frozenset(domain.number for domain in domains if domain.launcher not in ("", self.launcher))
        plugged = await self.virt.list_plugged()
        numbered = [
            *map(_domain, domains),
            *(_plugged(domain, name) for domain in domains for name in plugged.get(domain.instance_id, ())),
            *(_chain(ref, filters[ref.number]) for ref in _refs(filters)),
            *(_tap(tap) for tap in await self.network.list_taps() if tap.number > 0),
        ]
        found = [
            *(each for each in numbered if each.number not in others),
            *map(_directory, await self.images.list_instances()),
            *(Artefact(kind=ArtefactKind.BASE, name=name) for name in await self.images.list_bases()),
            *(Artefact(kind=ArtefactKind.EXPORT, name=name) for name in await self.images.list_exports()),
        ]
        found += [
            Artefact(kind=ArtefactKind.VOLUME, name=ref.name, volume=ref) for ref in await self.volumes.list_volumes()
        ]
        return Look(host=host, kinds=KINDS, artefacts=tuple(found), others=others)

    async def remove(self, ref: InstanceRef, kinds: Collection[ArtefactKind]) -> None:
        """In the order in which a launch is undone, up to the first that fails: no domain loses its filters."""
        undos = {
            ArtefactKind.DOMAIN: self.virt.destroy,
            ArtefactKind.CHAIN: self.firewall.remove,
            ArtefactKind.DIRECTORY: self.images.delete_disks,
            ArtefactKind.TAP: self.network.unplug,
        }
        for kind, undo in undos.items():
            if kind in kinds:
                await undo(ref)


def _domain(domain: Domain) -> Artefact:
    return Artefact(
        kind=ArtefactKind.DOMAIN,
        name=domain.name,
        instance_id=domain.instance_id,
        number=domain.number,
        generation=domain.generation,
    )


def _plugged(domain: Domain, name: str) -> Artefact:
    return Artefact(kind=ArtefactKind.PLUGGED, name=name, instance_id=domain.instance_id, number=domain.number)


def _directory(ref: InstanceRef) -> Artefact:
    return Artefact(kind=ArtefactKind.DIRECTORY, name=ref.name, instance_id=ref.instance_id, number=ref.number)


def _chain(ref: InstanceRef, whole: bool) -> Artefact:
    return Artefact(kind=ArtefactKind.CHAIN, name=ref.chain, number=ref.number, whole=whole)


def _tap(tap: Tap) -> Artefact:
    ref = InstanceRef(instance_id=NOBODY, number=tap.number)
    return Artefact(kind=ArtefactKind.TAP, name=ref.tap_of(tap.nic), number=ref.number)


def _refs(numbers: Iterable[int]) -> list[InstanceRef]:
    """No instance has the number 0."""
    return [InstanceRef(instance_id=NOBODY, number=number) for number in numbers if number > 0]
