"""The volumes on the hosts, held against their rows; pure.

    row                              owns                                  misses what is not there
    creating, attaching, …           whatever it has                       nothing
    available                        its content, on its host              yes
    in-use                           the same, plugged into its machine    yes, while that runs
    error, deleted                   nothing                               –

As with instances, rows are read before the hosts are looked at and again after: one that moved meanwhile is in transit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from launcher.auditing import Artefact, ArtefactKind, Finding, Look, Trouble
from launcher.db.volume_owners import VolumeOwner
from launcher.volumes import VolumeStatus

KEPT = (VolumeStatus.AVAILABLE, VolumeStatus.IN_USE)
GONE = (VolumeStatus.ERROR, VolumeStatus.DELETED)


def compare_volumes(
    before: Sequence[VolumeOwner], looks: Sequence[Look], after: Sequence[VolumeOwner]
) -> list[Finding]:
    """`before` are the live rows, `after` these and those of the volumes that the looks name."""
    known = {owner.ref.volume_id: owner for owner in before}
    owners = {owner.ref.name: owner for owner in after}
    still = {name: owner for name, owner in owners.items() if _held_still(owner, known.get(owner.ref.volume_id))}
    found = [
        *(finding for look in looks for each in look.artefacts if (finding := _judge(look, each, owners, still))),
        *(finding for look in looks for finding in _missing(look, still)),
    ]
    return sorted(found, key=lambda finding: (finding.host or "", finding.name, finding.kind))


def _judge(
    look: Look, artefact: Artefact, owners: dict[str, VolumeOwner], still: dict[str, VolumeOwner]
) -> Finding | None:
    if artefact.kind not in (ArtefactKind.VOLUME, ArtefactKind.PLUGGED):
        return None
    owner = owners.get(artefact.name)
    if owner is None or (artefact.volume is not None and owner.ref.volume_id != artefact.volume.volume_id):
        return _found(Trouble.UNKNOWN, look, artefact, "no row was ever its owner: made under a lost database")
    reason = _superfluous(look, artefact, owner) if artefact.name in still else None
    return _found(Trouble.OWNERLESS, look, artefact, reason) if reason else None


def _superfluous(look: Look, artefact: Artefact, owner: VolumeOwner) -> str | None:
    """Why its row, which held still, does not own this."""
    if owner.status in GONE:
        return f"it is {owner.status}"
    if owner.status not in KEPT:
        return None
    if look.host != owner.host:
        return f"it is on {owner.host}"
    elsewhere = artefact.kind is ArtefactKind.PLUGGED and artefact.instance_id != owner.instance_id
    return f"it is {owner.status}, and not this machine's" if elsewhere else None


def _missing(look: Look, still: dict[str, VolumeOwner]) -> Iterator[Finding]:
    """A machine that does not run misses nothing."""
    if ArtefactKind.VOLUME not in look.kinds:
        return
    here = {each.name for each in look.artefacts if each.kind is ArtefactKind.VOLUME}
    plugged = {(each.name, each.instance_id) for each in look.artefacts if each.kind is ArtefactKind.PLUGGED}
    running = {each.instance_id: each for each in look.artefacts if each.kind is ArtefactKind.DOMAIN}
    for name, owner in still.items():
        if owner.status not in KEPT or owner.host != look.host:
            continue
        if name not in here:
            missing = Artefact(kind=ArtefactKind.VOLUME, name=name, volume=owner.ref)
            yield _found(Trouble.MISSING, look, missing, f"it is {owner.status}")
        machine = running.get(owner.instance_id)
        if owner.instance_id and machine and (name, owner.instance_id) not in plugged:
            missing = machine.model_copy(update={"kind": ArtefactKind.PLUGGED, "name": name})
            yield _found(Trouble.MISSING, look, missing, f"its machine {machine.name} runs without it")


def _held_still(owner: VolumeOwner, before: VolumeOwner | None) -> bool:
    """A row that was not among the live ones before is new, or was deleted already."""
    return owner.status is VolumeStatus.DELETED if before is None else owner == before


def _found(trouble: Trouble, look: Look, artefact: Artefact, reason: str) -> Finding:
    return Finding(
        trouble=trouble,
        kind=artefact.kind,
        name=artefact.name,
        host=look.host,
        instance_id=artefact.instance_id,
        number=artefact.number,
        volume=artefact.volume,
        reason=reason,
    )
