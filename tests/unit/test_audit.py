"""The comparison of rows and hosts, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.auditing import Artefact, ArtefactKind, Finding, Look, Trouble
from launcher.db.owners import Owner
from launcher.models import InstanceRef, TaskState, VmState
from launcher.services.artefacts import KINDS
from launcher.services.controller.audit import compare
from tests.orders import instance_id

NETWORK_KINDS = frozenset({ArtefactKind.LEASE, ArtefactKind.DHCP})
BASES = ("a" * 64, "b" * 64)


def an_owner(number: int = 1, **changes: Any) -> Owner:
    values: dict[str, Any] = {
        "id": instance_id(number),
        "number": number,
        "generation": 1,
        "vm_state": VmState.ACTIVE,
        "task_state": None,
        "host": "box",
        "macs": (f"02:16:3e:00:00:{number:02x}",),
        "addresses": (f"10.0.0.{number + 1}",),
        "bases": BASES,
    }
    return Owner(**{**values, **changes})


def everything(owner: Owner, *, generation: int = 1) -> list[Artefact]:
    """What a running instance has, as the drivers list it: taps and chains know the number only."""
    ref = InstanceRef(instance_id=owner.id, number=owner.number)
    whose: dict[str, Any] = {"instance_id": owner.id, "number": owner.number}
    return [
        Artefact(kind=ArtefactKind.DOMAIN, name=ref.name, **whose, generation=generation),
        Artefact(kind=ArtefactKind.DIRECTORY, name=ref.name, **whose),
        Artefact(kind=ArtefactKind.CHAIN, name=ref.chain, number=owner.number),
        *(Artefact(kind=ArtefactKind.TAP, name=ref.tap_of(nic), number=ref.number) for nic in range(len(owner.macs))),
        *(Artefact(kind=ArtefactKind.BASE, name=base) for base in BASES),
        *(Artefact(kind=ArtefactKind.LEASE, name=address, instance_id=owner.id) for address in owner.addresses),
        *(Artefact(kind=ArtefactKind.DHCP, name=mac) for mac in owner.macs),
    ]


def looks(artefacts: list[Artefact], *, host: str = "box", kinds: frozenset[ArtefactKind] = KINDS) -> list[Look]:
    """The host's and the network's."""
    return [
        Look(host=host, kinds=kinds, artefacts=tuple(each for each in artefacts if each.kind not in NETWORK_KINDS)),
        Look(
            host=None,
            kinds=NETWORK_KINDS,
            artefacts=tuple(each for each in artefacts if each.kind in NETWORK_KINDS),
        ),
    ]


def audit(rows: list[Owner], artefacts: list[Artefact], **more: Any) -> list[Finding]:
    """Rows that hold still."""
    return compare([row for row in rows if row.vm_state is not VmState.DELETED], looks(artefacts, **more), rows)


def summary(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(finding.trouble.value, finding.kind.value) for finding in findings}


OWN = {"domain", "chain", "directory", "tap", "lease", "dhcp"}
AT_REST = [
    (VmState.ACTIVE, set()),
    (VmState.STOPPED, {("ownerless", "domain")}),
    (VmState.ERROR, {("ownerless", kind) for kind in OWN}),
    (VmState.DELETED, {("ownerless", kind) for kind in OWN}),
]


@pytest.mark.parametrize(("state", "expected"), AT_REST)
def test_with_everything_there(state: VmState, expected: set[tuple[str, str]]) -> None:
    owner = an_owner(vm_state=state)
    whole = everything(owner)
    if state is VmState.DELETED:  # another instance may have its MAC by now, so the lease says whose it was
        whole[-1] = whole[-1].model_copy(update={"instance_id": owner.id})
    found = audit([owner], whole)
    assert summary(found) == expected
    assert all((finding.instance_id, finding.number) == (owner.id, owner.number) for finding in found)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (VmState.ACTIVE, {*OWN, "base"}),
        (VmState.STOPPED, {*OWN, "base"} - {"domain"}),
        (VmState.ERROR, set()),
        (VmState.DELETED, set()),
    ],
)
def test_with_nothing_there(state: VmState, expected: set[str]) -> None:
    found = audit([an_owner(vm_state=state)], [])
    assert summary(found) == {("missing", kind) for kind in expected}
    assert [finding.name for finding in found if finding.kind is ArtefactKind.BASE] == sorted(BASES) * bool(expected)


@pytest.mark.parametrize("artefacts", [[], everything(an_owner())], ids=["nothing", "everything"])
@pytest.mark.parametrize(
    ("state", "task"),
    [
        (VmState.BUILDING, TaskState.SCHEDULING),
        (VmState.BUILDING, TaskState.SPAWNING),
        (VmState.BUILDING, TaskState.CLEANING),
        (VmState.ACTIVE, TaskState.DELETING),
        (VmState.ERROR, TaskState.DELETING),
    ],
)
def test_in_transit_it_owns_what_it_has_and_misses_nothing(
    state: VmState, task: TaskState, artefacts: list[Artefact]
) -> None:
    for host in (None, "box", "elsewhere"):
        assert audit([an_owner(vm_state=state, task_state=task, host=host)], artefacts) == []


@pytest.mark.parametrize("index", range(8))
def test_one_thing_missing_is_the_one_found(index: int) -> None:
    artefacts = everything(an_owner(1)) + everything(an_owner(2))
    gone = artefacts[index]
    left = [each for each in artefacts if (each.kind, each.name) != (gone.kind, gone.name)]
    found = audit([an_owner(1), an_owner(2)], left)
    assert {(finding.trouble, finding.kind, finding.name) for finding in found} == {
        (Trouble.MISSING, gone.kind, gone.name)
    }
    assert {finding.number for finding in found} == ({1, 2} if gone.kind is ArtefactKind.BASE else {1})


@pytest.mark.parametrize("kind", [ArtefactKind.TAP, ArtefactKind.LEASE, ArtefactKind.DHCP])
def test_of_two_nics_the_second_is_missed_too(kind: ArtefactKind) -> None:
    owner = an_owner(macs=("02:16:3e:00:00:01", "02:16:3e:00:01:01"), addresses=("10.0.0.2", "10.7.0.2"))
    whole = everything(owner)
    assert audit([owner], whole) == []
    second = [artefact for artefact in whole if artefact.kind is kind][1]
    (found,) = audit([owner], [artefact for artefact in whole if artefact != second])
    assert (found.trouble, found.kind, found.name) == (Trouble.MISSING, kind, second.name)


def test_what_no_row_ever_owned_is_unknown() -> None:
    found = audit([an_owner(1)], everything(an_owner(1)) + everything(an_owner(9)))
    assert summary(found) == {("unknown", kind) for kind in OWN}
    by_number = {finding.kind: finding.instance_id for finding in found}
    assert by_number[ArtefactKind.TAP] == instance_id(9), "its directory says whose the tap is"


def test_a_number_without_any_id_is_unknown_too() -> None:
    (found,) = audit([], [Artefact(kind=ArtefactKind.TAP, name="tap00000007", number=7)])
    assert (found.trouble, found.instance_id, found.number) == (Trouble.UNKNOWN, None, 7)


def test_the_tap_of_a_foreign_domain_is_not_our_failed_instances() -> None:
    """A lost database gives numbers out again; the running guest that has one keeps its tap and filters."""
    stranger, ours = an_owner(1, id=instance_id(77)), an_owner(1, vm_state=VmState.ERROR)
    found = [finding for finding in audit([ours], everything(stranger)) if finding.host]
    assert summary(found) == {("unknown", kind) for kind in OWN - {"lease", "dhcp"}}


def test_a_domain_of_a_former_generation_is_stale() -> None:
    owner = an_owner(generation=3)
    assert summary(audit([owner], everything(owner, generation=2))) == {("stale", "domain")}
    assert audit([owner], everything(owner, generation=3)) == []


def test_on_another_host_than_its_own_it_is_ownerless_there_and_missing_here() -> None:
    owner = an_owner()
    strays = looks(everything(owner), host="other")[0]
    found = compare([owner], [strays, *looks(everything(owner))], [owner])
    assert summary(found) == {("ownerless", kind) for kind in ("domain", "chain", "directory", "tap")}
    assert {finding.host for finding in found} == {"other"}
    assert summary(compare([owner], looks([], host="box")[:1], [owner])) == {
        ("missing", kind) for kind in ("domain", "chain", "directory", "tap", "base")
    }


def test_of_a_host_that_did_not_answer_nothing_is_said() -> None:
    assert compare([an_owner()], [], [an_owner()]) == []
    assert compare([an_owner()], looks([], host="other")[:1], [an_owner()]) == []


def test_a_network_without_dhcp_misses_no_line() -> None:
    owner = an_owner()
    host, network = looks(everything(owner))
    bare = Look(
        host=None,
        kinds=frozenset({ArtefactKind.LEASE}),
        artefacts=tuple(each for each in network.artefacts if each.kind is ArtefactKind.LEASE),
    )
    assert compare([owner], [host, bare], [owner]) == []


def test_an_export_is_nobodys_and_an_unused_base_is_no_trouble() -> None:
    found = audit(
        [],
        [Artefact(kind=ArtefactKind.EXPORT, name="disk-1"), Artefact(kind=ArtefactKind.BASE, name="c" * 64)],
    )
    assert summary(found) == {("ownerless", "export")}


MOVED = [
    ([], [an_owner()], "accepted and launched meanwhile"),
    ([an_owner()], [an_owner(vm_state=VmState.DELETED, generation=2)], "deleted meanwhile"),
    ([an_owner()], [an_owner(vm_state=VmState.STOPPED)], "stopped meanwhile"),
    ([an_owner()], [an_owner(generation=2)], "started again meanwhile"),
    (
        [an_owner(vm_state=VmState.BUILDING, task_state=TaskState.CLEANING)],
        [an_owner(vm_state=VmState.ERROR)],
        "failed",
    ),
]


@pytest.mark.parametrize(("before", "after", "what"), MOVED, ids=[what for _, _, what in MOVED])
def test_rows_that_moved_between_the_looks_are_not_judged(before: list[Owner], after: list[Owner], what: str) -> None:
    for artefacts in ([], everything(an_owner())):
        assert compare(before, looks(artefacts), after) == [], what
