"""The audit's nouns and messages: what is on the hosts, held against the rows that should own it.

Whatever an instance leaves on a host is an artefact. Ours are those that we marked: a domain by its metadata, a
directory by the file `instance-id`, a tap by its alias, filters by their chain's name. Others are never listed.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from launcher.accounts import UserRole
from launcher.messaging import Call, Notice
from launcher.models import InstanceId, InstanceRef, Model
from launcher.volumes import VolumeRef

NOBODY = "00000000-0000-0000-0000-000000000000"
"""Stands for the id where only the number is known: taps and chains bear no more, and their removal needs no more."""


class ArtefactKind(StrEnum):
    """A base is an image's file that overlays stand on; an export is a disk that an injection never closed.
    A volume may be a snapshot; it is plugged where a machine has it. A floating IP is its rules and its address on the
    host; what of it leads to no lease is nobody's. An image is the bytes of one in the controller's vault, or what has
    come of them.
    """

    DOMAIN = "domain"
    CHAIN = "chain"
    DIRECTORY = "directory"
    BASE = "base"
    TAP = "tap"
    VOLUME = "volume"
    PLUGGED = "plugged"
    EXPORT = "export"
    LEASE = "lease"
    DHCP = "dhcp"
    FLOATING = "floating"
    IMAGE = "image"


class Artefact(Model):
    """One thing, by its name on the host, and as much of its instance as can be read from it.

    One that is not `whole` is there and does not do its work: filters that no packet comes by.
    """

    kind: ArtefactKind
    name: str
    instance_id: InstanceId | None = None
    number: int | None = None
    generation: int | None = None
    volume: VolumeRef | None = None
    whole: bool = True


class Look(Model):
    """What one role found when it looked for these kinds. Without a `host` they are the network's.

    `others` are the numbers that another launcher's machines have there: what they name is left out.
    """

    host: str | None
    kinds: frozenset[ArtefactKind]
    artefacts: tuple[Artefact, ...]
    others: frozenset[int] = frozenset()

    def lacks(self, number: int, kinds: Collection[ArtefactKind]) -> frozenset[ArtefactKind]:
        """Which of these kinds the instance with this number did not have, or not whole."""
        return frozenset(kinds) - {each.kind for each in self.artefacts if each.number == number and each.whole}


class Trouble(StrEnum):
    """What is wrong.

    What is missing is not there, or not whole. An ownerless artefact's instance has ended, or should not have such
    a thing. Of an unknown one this database never had the instance: rows live for ever, so it was made by another
    launcher or under a lost database.
    """

    OWNERLESS = "ownerless"
    STALE = "stale"
    UNKNOWN = "unknown"
    MISSING = "missing"


class Finding(Model):
    """One difference between the rows and a host."""

    trouble: Trouble
    kind: ArtefactKind
    name: str
    host: str | None
    instance_id: InstanceId | None = None
    number: int | None = None
    volume: VolumeRef | None = None
    reason: str


class Audit(Model):
    """All findings. `silent` hosts (and the network role, as "network") gave no answer: nothing is known of them."""

    findings: tuple[Finding, ...]
    instances: int
    artefacts: int
    silent: tuple[str, ...]


class Collected(Model):
    """What was removed, or with `dry_run` would have been; what could not be, with the error as its reason."""

    dry_run: bool
    removed: tuple[Finding, ...]
    failed: tuple[Finding, ...] = ()


# --- to everybody ------------------------------------------------------------------------------


class HostsAudited(Notice):
    """Somebody has looked, and found this."""

    topic = "audits"
    found: tuple[Finding, ...]


class ArtefactsRemoved(Notice):
    """These were nobody's and are gone."""

    topic = "audits"
    removed: tuple[Finding, ...]


# --- to the controller, from the API server ----------------------------------------------------


class AuditHosts(Call[Audit]):
    """Compare the rows with every host, now (admins). Changes nothing."""

    topic = "controller"
    needs = UserRole.ADMIN


class CollectGarbage(Call[Collected]):
    """Remove what nobody owns (admins). Raises Conflict when no row was ever made: that database was lost."""

    topic = "controller"
    needs = UserRole.ADMIN
    dry_run: bool = False


# --- to a compute host ---------------------------------------------------------------------------


class ListArtefacts(Call[Look]):
    topic = "compute"
    needs = UserRole.ADMIN


class RemoveArtefacts(Call[None]):
    """Remove these of one instance, or without one all exports. Raises Conflict while somebody is at work for it."""

    topic = "compute"
    needs = UserRole.ADMIN
    ref: InstanceRef | None
    kinds: frozenset[ArtefactKind]


class RemoveVolume(Call[None]):
    """Delete a volume that no row owns. Raises Conflict while somebody is at work for it."""

    topic = "compute"
    ref: VolumeRef


class UnplugVolume(Call[None]):
    """Pull it out of a machine that no row gave it to. Raises Conflict while somebody is at work for that, DiskHeld."""

    topic = "compute"
    ref: InstanceRef
    name: str


# --- to the network role ---------------------------------------------------------------------------


class ListLeases(Call[Look]):
    topic = "network"
    needs = UserRole.ADMIN


class PublishLeases(Call[None]):
    """Tell the host anew what is leased and what leads to it, and nothing else."""

    topic = "network"
    needs = UserRole.ADMIN
