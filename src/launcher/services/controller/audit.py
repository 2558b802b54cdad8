"""What is on the hosts, held against the rows; pure.

    row                          owns                                                    misses what is not there
    building, cleaning, …        whatever it has                                         nothing
    active                       domain, chain, directory, bases, tap, lease, DHCP line  yes
    paused                       the same                                                yes
    stopped, suspended           the same without a domain                               yes
    error, deleted               nothing                                                 –

Rows are read before the hosts are looked at and again after: a row that moved meanwhile is in transit, too.
Quotas need no such look: they have no counter of their own that could be wrong, usage is the sum over the rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from launcher.auditing import Artefact, ArtefactKind, Finding, Look, Trouble
from launcher.db.owners import Owner
from launcher.models import InstanceId, InstanceRef, VmState

Present = tuple[ArtefactKind, InstanceId | None, str]
OF_VOLUMES = frozenset({ArtefactKind.VOLUME, ArtefactKind.PLUGGED})
"""Whose these are, `volume_audit.py` knows."""
RUNNING = frozenset(ArtefactKind) - {ArtefactKind.EXPORT, ArtefactKind.FLOATING, ArtefactKind.IMAGE} - OF_VOLUMES
DUE = {
    VmState.ACTIVE: RUNNING,
    VmState.PAUSED: RUNNING,
    VmState.RESCUED: RUNNING,
    VmState.SUSPENDED: RUNNING - {ArtefactKind.DOMAIN},
    VmState.STOPPED: RUNNING - {ArtefactKind.DOMAIN},
    VmState.ERROR: frozenset[ArtefactKind](),
    VmState.DELETED: frozenset[ArtefactKind](),
}
"""What an instance at rest must have, and may have no more than; without an entry it is in transit."""


def compare(before: Sequence[Owner], looks: Sequence[Look], after: Sequence[Owner]) -> list[Finding]:
    """`before` are the live rows, `after` these and whatever the looks name. Roles that gave no look say nothing."""
    comparison = _Comparison(before, looks, after)
    return sorted([*comparison.superfluous(), *comparison.missing()], key=_order)


def due(owner: Owner) -> frozenset[ArtefactKind] | None:
    """None for one in transit: it owns what it has and misses nothing."""
    return DUE.get(owner.vm_state) if owner.task_state is None else None


class _Comparison:
    """The indices that both directions need."""

    def __init__(self, before: Sequence[Owner], looks: Sequence[Look], after: Sequence[Owner]) -> None:
        known = {owner.id: owner for owner in before}
        self.looks = looks
        self.owners = {owner.id: owner for owner in after}
        live = [owner for owner in after if owner.vm_state is not VmState.DELETED]
        self.macs = {mac: owner.id for owner in (*before, *live) for mac in owner.macs}
        self.settled = {owner.id for owner in after if _held_still(owner, known.get(owner.id))}
        # A number that a domain or a directory bears is that one's instance's, whatever our own row of it says.
        self.numbers = {owner.number: owner.id for owner in after} | {
            artefact.number: artefact.instance_id
            for look in looks
            for artefact in look.artefacts
            if artefact.number and artefact.instance_id
        }

    def superfluous(self) -> Iterator[Finding]:
        """Artefacts without an owner, with one that should not have them, or of a time that is past."""
        for look in self.looks:
            for artefact in look.artefacts:
                if (found := self._judge(look, artefact)) is not None:
                    yield self._finding(*found, look.host, artefact)

    def missing(self) -> Iterator[Finding]:
        """What instances at rest should have and do not."""
        for look in self.looks:
            present = {(artefact.kind, self._owner_id(artefact), artefact.name) for artefact in look.artefacts}
            for owner in self.owners.values():
                if owner.id in self.settled and look.host in (None, owner.host):
                    for kind in (due(owner) or frozenset()) & look.kinds:
                        yield from _missing(look, owner, kind, present)

    def _judge(self, look: Look, artefact: Artefact) -> tuple[Trouble, str] | None:
        if artefact.kind is ArtefactKind.BASE or artefact.kind in OF_VOLUMES:
            return None  # a base that nobody uses is kept for the next launch
        if artefact.kind is ArtefactKind.EXPORT:
            return Trouble.OWNERLESS, "left by an injection that was cut off"
        if artefact.kind is ArtefactKind.FLOATING:
            return _judge_floating(artefact)
        owner = self.owners.get(self._owner_id(artefact) or "")
        if owner is None:
            return Trouble.UNKNOWN, "no row was ever its owner: another launcher's, or made under a lost database"
        return _judge_owned(look, artefact, owner) if owner.id in self.settled else None

    def _owner_id(self, artefact: Artefact) -> InstanceId | None:
        if artefact.instance_id is None and artefact.kind is ArtefactKind.DHCP:
            return self.macs.get(artefact.name)
        return artefact.instance_id or self.numbers.get(artefact.number or 0)

    def _finding(self, trouble: Trouble, reason: str, host: str | None, artefact: Artefact) -> Finding:
        instance_id = self._owner_id(artefact)
        owner = self.owners.get(instance_id or "")
        return Finding(
            trouble=trouble,
            kind=artefact.kind,
            name=artefact.name,
            host=host,
            instance_id=instance_id,
            number=artefact.number or (owner.number if owner else None),
            reason=reason,
        )


def _judge_floating(artefact: Artefact) -> tuple[Trouble, str] | None:
    """The network role's rows say whose it is; they cannot name an instance that has no lease."""
    if artefact.instance_id is None:
        return Trouble.OWNERLESS, "no floating IP of this address is associated"
    return None if artefact.whole else (Trouble.MISSING, "its rules or its address are not on the host")


def _judge_owned(look: Look, artefact: Artefact, owner: Owner) -> tuple[Trouble, str] | None:
    """Of an instance whose row held still."""
    wanted = due(owner)
    if wanted is None:
        return None
    if wanted and look.host not in (None, owner.host):
        return Trouble.OWNERLESS, f"its instance is on {owner.host}"
    if artefact.kind not in wanted:
        return Trouble.OWNERLESS, _state(owner)
    if not artefact.whole:
        return Trouble.MISSING, "it is there, but no packet comes by it"
    if artefact.generation is not None and artefact.generation < owner.generation:
        return Trouble.STALE, f"of generation {artefact.generation}, its instance is at {owner.generation}"
    return None


def _held_still(owner: Owner, before: Owner | None) -> bool:
    """A row that was not among the live ones before is new, or was deleted already."""
    return owner.vm_state is VmState.DELETED if before is None else owner == before


def _missing(look: Look, owner: Owner, kind: ArtefactKind, present: Collection[Present]) -> Iterator[Finding]:
    """A base is nobody's, everything else must be this instance's own."""
    whose = None if kind is ArtefactKind.BASE else owner.id
    for name in _names(owner, kind):
        if (kind, whose, name) not in present:
            yield Finding(
                trouble=Trouble.MISSING,
                kind=kind,
                name=name,
                host=look.host,
                instance_id=owner.id,
                number=owner.number,
                reason=_state(owner),
            )


def _names(owner: Owner, kind: ArtefactKind) -> Iterable[str]:
    """What would be found if it were there."""
    ref = InstanceRef(instance_id=owner.id, number=owner.number)
    names = {
        ArtefactKind.BASE: owner.bases,
        ArtefactKind.CHAIN: (ref.chain,),
        ArtefactKind.TAP: tuple(map(ref.tap_of, range(len(owner.macs)))),
        ArtefactKind.LEASE: owner.addresses,
        ArtefactKind.DHCP: owner.macs,
    }
    return names.get(kind, (ref.name,))


def _state(owner: Owner) -> str:
    return "its instance is " + ("in error" if owner.vm_state is VmState.ERROR else owner.vm_state)


def _order(finding: Finding) -> tuple[str, int, int, str]:
    """By host, instance, and kind as they are declared."""
    return finding.host or "", finding.number or 0, list(ArtefactKind).index(finding.kind), finding.name
